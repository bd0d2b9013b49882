"""The notes of what was signed last, outside of the catalog: in a file of the node, and beside the content.

A catalog that was put back does not know what was signed since; these do.
"""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from digestry.blobs.protocols import NoteStore
from digestry.catalog.transparency.signing import Head, LogContradicted
from digestry.errors import DigestryError, StorageError
from digestry.fsio import read_file, storage_errors, write_file
from digestry.model.json_types import prepared

log: Final = logging.getLogger("digestry.registry")

HEAD_FILE: Final = "log-head.json"
"""The name of the note below a node's directory, and beside the content."""
_BETWEEN_SECONDS: Final = 10.0
"""Between two writes beside the content, each of which is a request that somebody may pay for."""
_END_SECONDS: Final = 3.0
_LARGEST: Final = 4096


class _Note(msgspec.Struct, frozen=True):
    origin: str
    size: int
    root: str


def _encode(head: Head) -> bytes:
    return msgspec.json.encode(_Note(head.origin, head.size, base64.b64encode(head.root).decode()))


def _decode(content: bytes, where: object) -> Head:
    try:
        note = msgspec.json.decode(content, type=prepared(_Note))
        return Head(note.origin, note.size, base64.b64decode(note.root, validate=True))
    except (msgspec.DecodeError, ValueError) as error:
        raise StorageError(
            f"{where}, which says what was signed last, is damaged: {error}",
            hint="if the catalog is the newest one, remove it",
        ) from error


class HeadFile:
    """The note of what was signed last, in a file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / HEAD_FILE

    def read(self) -> Head | None:
        """Return the note; None if there is none. Raises :class:`StorageError`."""
        with storage_errors("read", self.path):
            try:
                content = read_file(self.path)
            except FileNotFoundError:
                return None
        return _decode(content, self.path)

    def sweep(self) -> None:
        """Remove what a killed :meth:`write` left. Raises :class:`StorageError`."""
        with storage_errors("remove what was left of", self.path):
            for path in self.path.parent.glob(f".{HEAD_FILE}.*"):
                path.unlink(missing_ok=True)

    def write(self, head: Head) -> None:
        """Store the note durably. Raises :class:`StorageError`."""
        write_file(self.path, _encode(head), mode=0o600)


class HeadBesideContent(Protocol):
    """The note of what was signed last, beside the registry's content."""

    def read(self) -> Head | None:
        """Return the note; None if there is none, or nowhere to have one. Raises :class:`StorageError`."""
        ...

    def check(self) -> None:
        """Raise :class:`LogContradicted` if another history was noted there meanwhile."""
        ...

    def keep(self, head: Head) -> None:
        """Write the note soon."""
        ...

    def close(self) -> None:
        """Write what is left to write, within seconds."""
        ...


class NoHead:
    """Stands for a store that keeps no notes, as a disk: the node's own file is beside the content."""

    def read(self) -> None:
        """Return None."""

    def check(self) -> None:
        """Do nothing."""

    def keep(self, head: Head) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class HeadInStore:
    """The note beside content in a store without files, written by a thread at most every ten seconds.

    Before each write it is read, and ``compare`` compares it with the catalog: two registries that have
    the same content and two catalogs find each other by that. It raises :class:`LogContradicted`.
    """

    def __init__(self, store: NoteStore, compare: Callable[[Head], None]) -> None:
        self._store = store
        self._compare = compare
        self._next: Head | None = None
        self._found: LogContradicted | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def read(self) -> Head | None:
        """Return the note; None if there is none. Raises :class:`StorageError`."""
        content = self._store.read_note(HEAD_FILE, _LARGEST)
        return None if content is None else _decode(content, self._store.note_location(HEAD_FILE))

    def check(self) -> None:
        """Raise :class:`LogContradicted` if another history was noted there meanwhile."""
        with self._changed:
            found, self._found = self._found, None
        if found is not None:
            raise found

    def keep(self, head: Head) -> None:
        """Write the note soon."""
        with self._changed:
            self._next = head
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log head", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Write what is left to write, within seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._closed)
                head, self._next = self._next, None
            if head is None:
                return
            self._write(head)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, _BETWEEN_SECONDS)

    def _write(self, head: Head) -> None:
        try:
            noted = self.read()
            if noted is not None and noted != head:
                self._compare(noted)
                if noted.origin == head.origin and noted.size > head.size:
                    return  # another node signs by now
            self._store.write_note(HEAD_FILE, _encode(head))
        except LogContradicted as error:
            with self._changed:
                self._found = error
        except DigestryError as error:
            log.warning("it was not noted beside the content what was signed last: %s", error.message)


def head_beside(store: NoteStore | None, compare: Callable[[Head], None]) -> HeadBesideContent:
    """Return the note beside the content of a registry, whose store keeps notes or (None) does not."""
    return NoHead() if store is None else HeadInStore(store, compare)
