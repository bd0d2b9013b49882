"""The progress of a transfer: bars on a terminal, else one line for each blob, or nothing."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from digestry.cli.output import human_size, note

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from digestry.images.transfer import Stage, TransferObserver
    from digestry.model.descriptor import Descriptor
    from digestry.model.digest import Digest

_WORDS: Final[dict[Stage, str]] = {
    "waiting": "waiting",
    "present": "already there",
    "done": "pulled",
    "mounted": "mounted from another repository",
    "sent": "pushed",
    "skipped": "skipped: not kept in registries",
}


COPYING: Final[dict[Stage, str]] = {**_WORDS, "sent": "copied"}
"""The words of a copy, which is neither a pull nor a push."""


class _Lines:
    """An observer that prints a line when a blob has come to its end."""

    def __init__(self, words: Mapping[Stage, str]) -> None:
        self._words = words

    def stage(self, descriptor: Descriptor, stage: Stage) -> None:
        if stage != "waiting":
            note(f"{descriptor.digest.short}: {self._words[stage]} ({human_size(descriptor.size)})")

    def moved(self, descriptor: Descriptor, count: int) -> None:
        pass


class _Bars:
    """An observer that has rich draw a bar for each blob."""

    def __init__(self, progress: Progress, words: Mapping[Stage, str]) -> None:
        self._progress = progress
        self._words = words
        self._tasks: dict[Digest, TaskID] = {}
        self._lock = threading.Lock()

    def stage(self, descriptor: Descriptor, stage: Stage) -> None:
        with self._lock:
            task = self._tasks.get(descriptor.digest)
            if task is None:
                total = max(descriptor.size, 1)
                task = self._progress.add_task(descriptor.digest.short, total=total, stage="")
                self._tasks[descriptor.digest] = task
        self._progress.update(task, stage=self._words[stage])
        if stage not in {"waiting", "skipped"}:
            self._progress.update(task, completed=max(descriptor.size, 1))

    def moved(self, descriptor: Descriptor, count: int) -> None:
        # No word while bytes move: the bar and the speed say it.
        self._progress.update(self._tasks[descriptor.digest], advance=count, stage="")


@contextlib.contextmanager
def watching(*, quiet: bool, words: Mapping[Stage, str] = _WORDS) -> Iterator[TransferObserver]:
    """Yield an observer that shows a transfer on standard error; ``words`` are those for the stages."""
    if quiet:
        from digestry.images.transfer import SilentObserver

        yield SilentObserver()
    elif sys.stderr is None or not sys.stderr.isatty():
        yield _Lines(words)
    else:
        # rich takes a twentieth of a second to import: only a terminal needs it.
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[stage]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield _Bars(progress, words)


class Amount:
    """A count of the bytes that are done, which is not shown."""

    def total(self, size: int) -> None:
        """Set the number of bytes in all."""

    def moved(self, count: int) -> None:
        """Count bytes that are done. Thread-safe."""


class _Bar(Amount):
    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None)

    def total(self, size: int) -> None:
        self._progress.update(self._task, total=max(size, 1))

    def moved(self, count: int) -> None:
        self._progress.update(self._task, advance=count)


@contextlib.contextmanager
def measuring(title: str, *, quiet: bool) -> Iterator[Amount]:
    """Yield a count that is shown as a bar on standard error, if that is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield Amount()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress, title)
