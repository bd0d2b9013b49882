"""Asking many sources at once, each within a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from digestry.errors import DigestryError
from digestry.inventory.observation import (
    ContainerObservation,
    Note,
    Observation,
    RepeatableSource,
    Source,
    Unseen,
)
from digestry.model.text import number_of

SOURCE_TIMEOUT: Final = 300.0
"""Seconds that one source may take for everything that it has to say."""


@dataclass(frozen=True, slots=True)
class TimeLimitedSource:
    """A source, with its time limit in seconds, and its name in the report.

    ``label`` replaces the source's own name, ``host`` the host of its containers, each if it is not empty.
    """

    source: Source
    timeout: float = SOURCE_TIMEOUT
    label: str = ""
    host: str = ""

    @property
    def name(self) -> str:
        return self.label or self.source.name

    def observe(self) -> Iterator[Observation]:
        """See :class:`~digestry.inventory.observation.Source`."""
        if not self.label and not self.host:
            yield from self.source.observe()
            return
        for seen in self.source.observe():
            if isinstance(seen, Unseen | Note):
                yield replace(seen, source=self.name)
            else:
                yield replace(seen, source=self.name, host=self.host or seen.host)


def keep(sources: Iterable[Source]) -> None:
    """Make those of ``sources`` that can keep data between rounds do so."""
    for source in sources:
        inner = source.source if isinstance(source, TimeLimitedSource) else source
        if isinstance(inner, RepeatableSource):
            inner.keep()


@dataclass(slots=True)
class Gathered:
    """The observations of the sources, in their order."""

    containers: list[ContainerObservation] = field(default_factory=list)
    problems: list[Unseen] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def gather(sources: Sequence[Source], *, timeout: float = SOURCE_TIMEOUT) -> Gathered:
    """Ask all sources, in parallel, and return their observations.

    One that does not finish within its own timeout, or ``timeout`` seconds, is a problem; its observations
    until then count. So is one that raises an error of digestry's.
    """
    askings = [
        _Asking(source, source.timeout if isinstance(source, TimeLimitedSource) else timeout)
        for source in sources
    ]
    for asking in askings:
        asking.start()
    result = Gathered()
    for asking in askings:
        for seen in asking.finish():
            if isinstance(seen, Unseen):
                result.problems.append(seen)
            elif isinstance(seen, Note):
                result.notes.append(seen)
            else:
                result.containers.append(seen)
    return result


class _Asking:
    """One source being asked, in a daemon thread, which does not keep the program alive."""

    def __init__(self, source: Source, timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._seen: list[Observation] = []
        self._error: BaseException | None = None
        self._deadline = 0.0
        self._thread = threading.Thread(target=self._run, name=f"source {source.name}", daemon=True)

    def start(self) -> None:
        self._deadline = time.monotonic() + self._timeout
        self._thread.start()

    def _run(self) -> None:
        seen = self._seen
        try:
            for item in self._source.observe():
                seen.append(item)  # one by one: the observations from before a hang must be there
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error

    def finish(self) -> list[Observation]:
        """Return the observations, once the source has ended or its time is over."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        name = self._source.name
        if self._thread.is_alive():
            seen = list(self._seen)
            count = sum(isinstance(item, ContainerObservation) for item in seen)
            named = number_of(count, "container")
            remark = f"; the report lists {named} that it named until then" if count else ""
            return [*seen, Unseen(name, f"it did not finish within {self._timeout:g} s{remark}")]
        if self._error is None:
            return self._seen
        if isinstance(self._error, DigestryError):
            return [*self._seen, Unseen(name, self._error.message, self._error.hint)]
        raise self._error
