"""Progress bars on a terminal, by rich, which only a terminal needs: it takes long to import."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from digestry.cli.output import human_size

if TYPE_CHECKING:
    from rich.table import Table

    from digestry.images.transfer import Stage
    from digestry.model.descriptor import Descriptor
    from digestry.model.digest import Digest

_BAR: Final = 18
"""Columns of a bar: with the longest word of a stage, a line has no more than 80."""
_AROUND: Final = 2
"""Lines of the terminal that no bar takes."""


class Bars(Progress):
    """Bars on standard error, the first of them at the bottom; of many, those that move are shown."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(_BAR),
            _AmountColumn(),
            _StateColumn(),
        )
        self._console = Console(stderr=True)
        super().__init__(*columns, console=self._console)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Return the table of the bars that the terminal has room for."""
        shown = list(tasks)
        first, others = shown[:1], shown[1:]
        room = max(self._console.height - _AROUND - 1, 1)
        if len(others) > room and not self.finished:
            moving = [task for task in others if not task.finished and task.completed]
            waiting = [task for task in others if not task.finished and not task.completed]
            others = (moving + waiting)[:room]
        return super().make_tasks_table([*others, *first])


class _AmountColumn(ProgressColumn):
    """The bytes that are done, of those that there are, if their number is known."""

    def render(self, task: Task) -> Text:
        done = human_size(int(task.completed))
        return Text(done if task.total is None else f"{done}/{human_size(int(task.total))}")


class _StateColumn(ProgressColumn):
    """The stage of a transfer in a word, or while bytes move its speed and the time that is left."""

    def render(self, task: Task) -> Text:
        stage = task.fields.get("stage", "")
        if stage:
            return Text(stage)
        speed = task.finished_speed or task.speed
        parts = [f"{human_size(int(speed))}/s"] if speed else []
        left = task.time_remaining
        if left is not None and not task.finished:
            parts.append(f"{datetime.timedelta(seconds=int(left))} left")
        return Text(", ".join(parts))


class TransferBars:
    """An observer of a transfer that draws a bar for each blob, and one for all that is to move."""

    def __init__(self, bars: Bars, words: Mapping[Stage, str]) -> None:
        self._bars = bars
        self._words = words
        self._tasks: dict[Digest, TaskID] = {}
        self._ended: set[Digest] = set()
        self._all: TaskID | None = None
        self._size = 0
        self._lock = threading.Lock()

    def stage(self, descriptor: Descriptor, stage: Stage) -> None:
        """Show the stage that a blob came to."""
        size = max(descriptor.size, 1)
        with self._lock:
            if self._all is None:
                self._all = self._bars.add_task("total", total=None, stage="")
            task = self._tasks.get(descriptor.digest)
            if task is None:
                task = self._bars.add_task(descriptor.digest.short, total=size, stage="")
                self._tasks[descriptor.digest] = task
                self._size += size if stage != "skipped" else 0
                self._bars.update(self._all, total=self._size, visible=self._size > 0)
            ended = stage not in {"waiting", "skipped"} and descriptor.digest not in self._ended
            self._bars.update(task, stage=self._words[stage])
            if ended:
                self._ended.add(descriptor.digest)
                self._end(task, size, is_moved=stage in {"done", "sent"})

    def moved(self, descriptor: Descriptor, count: int) -> None:
        """Show that bytes of a blob moved."""
        task = self._tasks[descriptor.digest]
        with self._lock:
            # No word while bytes move: the bar and the speed say it.
            self._bars.update(task, stage="")
            self._advance(task, count)

    def _end(self, task: TaskID, size: int, *, is_moved: bool) -> None:
        rest = size - next(one.completed for one in self._bars.tasks if one.id == task)
        if is_moved:
            self._advance(task, rest)
            return
        # What was there already has no part in the speed.
        self._bars.update(task, completed=size)
        self._size -= int(rest)
        if self._all is not None:
            self._bars.update(self._all, total=self._size, visible=self._size > 0)

    def _advance(self, task: TaskID, count: float) -> None:
        self._bars.update(task, advance=count)
        if self._all is not None:
            self._bars.update(self._all, advance=count)


class AmountBar:
    """One bar, of bytes that are done."""

    def __init__(self, bars: Bars, title: str) -> None:
        self._bars = bars
        self._task = bars.add_task(title, total=None, stage="")

    def total(self, size: int) -> None:
        """Set the number of bytes in all."""
        self._bars.update(self._task, total=max(size, 1))

    def moved(self, count: int) -> None:
        """Count bytes that are done. Thread-safe."""
        self._bars.update(self._task, advance=count)

    def end(self) -> None:
        """Show that nothing more comes."""
        (task,) = self._bars.tasks
        self._bars.update(self._task, total=max(task.completed, 1), completed=max(task.completed, 1))
