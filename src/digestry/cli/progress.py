"""The progress of a transfer: bars on a terminal, else one line for each blob, or nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from digestry.cli.output import human_size, note

if TYPE_CHECKING:
    from digestry.images.transfer import Stage, TransferObserver
    from digestry.model.descriptor import Descriptor

_WORDS: Final[dict[Stage, str]] = {
    "waiting": "waiting",
    "present": "already there",
    "done": "pulled",
    "mounted": "mounted from another repository",
    "sent": "pushed",
    "skipped": "skipped",
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


@contextlib.contextmanager
def watching(*, quiet: bool, words: Mapping[Stage, str] = _WORDS) -> Iterator[TransferObserver]:
    """Yield an observer that shows a transfer on standard error; ``words`` are those for the stages."""
    if quiet:
        from digestry.images.transfer import SilentObserver

        yield SilentObserver()
    elif sys.stderr is None or not sys.stderr.isatty():
        yield _Lines(words)
    else:
        # It takes a twentieth of a second to import.
        from digestry.cli.progress_bars import Bars, TransferBars

        with Bars() as bars:
            yield TransferBars(bars, words)


class Amount(Protocol):
    """A count of bytes that are done."""

    def total(self, size: int) -> None:
        """Set the number of bytes in all."""

    def moved(self, count: int) -> None:
        """Count bytes that are done. Thread-safe."""


class _Unshown:
    """A count of the bytes that are done, which is not shown."""

    def total(self, size: int) -> None:
        """Set the number of bytes in all."""

    def moved(self, count: int) -> None:
        """Count bytes that are done. Thread-safe."""


@contextlib.contextmanager
def measuring(title: str, *, quiet: bool) -> Iterator[Amount]:
    """Yield a count that is shown as a bar on standard error, if that is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield _Unshown()
        return
    from digestry.cli.progress_bars import AmountBar, Bars

    with Bars() as bars:
        bar = AmountBar(bars, title)
        yield bar
        bar.end()
