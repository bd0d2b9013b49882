"""The base of sources that ask one engine or runtime."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

from digestry.errors import DigestryError
from digestry.inventory.observation import Observation, Unseen


class Closeable(Protocol):
    """A connection to an engine, which opens again when it is used after a close."""

    def close(self) -> None: ...


class EngineSource(ABC):
    """The containers of one engine: those that run, or, with ``include_stopped``, all.

    The connection to the ``engine`` is closed after each observation.
    """

    def __init__(self, name: str, engine: Closeable, *, include_stopped: bool) -> None:
        self._name = name
        self._connection = engine
        self._include_stopped = include_stopped

    @property
    def name(self) -> str:
        return self._name

    def observe(self) -> Iterator[Observation]:
        with contextlib.closing(self._connection):
            yield from self._observe()

    @abstractmethod
    def _observe(self) -> Iterator[Observation]: ...

    def _unseen(self, error: DigestryError) -> Unseen:
        """Return the problem that ``error`` kept something of the engine from being seen."""
        return Unseen(self._name, error.message, error.hint)
