"""The events of a Kubernetes ``watch``: one JSON object a line.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Literal, TypeAlias

from urllib3 import BaseHTTPResponse

from digestry.errors import ProtocolViolation, TooLarge
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_object, as_text

LONGEST_LINE: Final = 16 << 20
"""In bytes. An object takes at most the 1.5 MB that etcd takes, and JSON may spell it longer."""

_CHUNK: Final = 1 << 16

ChangeKind: TypeAlias = Literal["is", "gone", "mark"]
_KINDS: Final[dict[str, ChangeKind]] = {
    "ADDED": "is",
    "MODIFIED": "is",
    "DELETED": "gone",
    "BOOKMARK": "mark",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One event. ``object`` is its present state, or its last one before its deletion; a ``mark`` (BOOKMARK)
    only means that all events until ``version`` were sent."""

    kind: ChangeKind
    object: JsonObject
    version: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An event of the type ERROR: the Status that the server would have answered with."""

    status: int
    message: str


class Ended(Exception):
    """The stream ended in the middle of a line."""


def changes(lines: Iterable[bytes], where: str, kind: str) -> Iterator[Change | Failure]:
    """Yield the events in ``lines``, of objects of ``kind`` (``Pod``).

    Raises :class:`ProtocolViolation` for a line that is not an event, or one that cannot be understood:
    no change may be lost in silence.
    """
    for line in lines:
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ProtocolViolation(f"{where}: the watch has a line that is not JSON") from error
        type_ = as_object(event).get("type")
        value = as_object(event).get("object")
        if type_ == "ERROR":
            code = as_object(value).get("code")
            if not isinstance(code, int) or isinstance(code, bool):
                raise ProtocolViolation(f"{where}: the watch has an error without a code: {shown(value)}")
            yield Failure(code, as_text(as_object(value).get("message")))
            continue
        known = _KINDS.get(type_) if isinstance(type_, str) else None
        if known is None:
            what = (
                f"an event of the type {shown(type_)}"
                if "type" in as_object(event)
                else "something that is not an event"
            )
            raise ProtocolViolation(f"{where}: the watch has {what}")
        yield _change(known, value, where, kind)


def _change(change: ChangeKind, value: object, where: str, kind: str) -> Change:
    metadata = as_object(as_object(value).get("metadata"))
    version, name = as_text(metadata.get("resourceVersion")), as_text(metadata.get("name"))
    if not version or not (name or change == "mark"):
        raise ProtocolViolation(f"{where}: the watch has an event about no object with a name and a version")
    if as_object(value).get("kind", kind) != kind:
        raise ProtocolViolation(f"{where}: the watch has an event about something that is not a {kind}")
    return Change(change, as_object(value), version)


class Stream:
    """An answer that is received line by line, in a thread of its own, so that a slow one blocks no caller.

    ``begin`` sends the request to ``where``; ``seconds`` are for all of it, and ``limit`` is in bytes. Its
    errors are those of :mod:`urllib3`, and TimeoutError.
    """

    def __init__(
        self, begin: Callable[[], BaseHTTPResponse], *, where: str, seconds: float, limit: int
    ) -> None:
        self._begin = begin
        self._where = where
        self._end = time.monotonic() + seconds
        self._limit = limit
        self._parts: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._over = threading.Event()
        self._begun = threading.Event()
        self._status = 0
        self._retry_after = ""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    @property
    def status(self) -> int:
        """The status of the answer; waits for it. 0 if there is none: then reading it says why."""
        if not self._begun.wait(max(0.0, self._end - time.monotonic())):
            raise TimeoutError
        return self._status

    @property
    def retry_after(self) -> str:
        """The header, or nothing."""
        return self._retry_after

    def close(self) -> None:
        """Stop reading; the rest of the answer is dropped."""
        self._over.set()

    def body(self) -> bytes:
        """Return all of an answer that is not a stream."""
        return b"".join(self._pieces())

    def lines(self) -> Iterator[bytes]:
        """Yield the lines, each as soon as it is whole.

        Raises :class:`Ended` for a last one that is not, and :class:`TooLarge` for one that does not
        end.
        """
        rest = bytearray()
        for piece in self._pieces():
            start = 0
            while (end := piece.find(b"\n", start)) >= 0:
                rest += piece[start:end]
                start = end + 1
                line = bytes(rest)
                rest.clear()
                yield line
            rest += piece[start:]
            if len(rest) > LONGEST_LINE:
                raise TooLarge(f"{self._where}: a line of the watch does not end", limit=LONGEST_LINE)
        if rest.strip():
            raise Ended

    def _pieces(self) -> Iterator[bytes]:
        while True:
            try:
                piece = self._parts.get(timeout=max(0.0, self._end - time.monotonic()))
            except Empty as error:
                raise TimeoutError from error
            if piece is None:
                return
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def _run(self) -> None:
        try:
            response = self._begin()
            try:
                self._status = response.status
                self._retry_after = response.headers.get("Retry-After", "")
                self._begun.set()
                read = 0
                # As it comes: nothing may wait until a piece is full.
                while piece := response.read1(_CHUNK, decode_content=False):
                    if self._over.is_set():
                        return
                    read += len(piece)
                    if read > self._limit:
                        raise TooLarge(
                            f"{self._where}: an answer is longer than {self._limit} bytes, and was not read",
                            limit=self._limit,
                        )
                    self._parts.put(piece)
            finally:
                # It is not read to its end as a rule, and must not go back to the pool.
                response.close()
            self._parts.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that reads
            self._parts.put(error)
        finally:
            self._begun.set()
