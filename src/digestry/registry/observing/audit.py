"""The audit log: a line of JSON for each write, by whom, from where, and what came of it.

A write's line is written before its answer is sent: what a client was told is in it, whatever is
killed next. It is not fsynced; what must survive a power loss, the moves of tags, is in the journal.
A line is one ``write`` in append mode, so that the lines of several processes never mix. A log that
cannot be written breaks no request: its lines are counted as lost.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from digestry.catalog import clock
from digestry.catalog.collection import ACTOR, Removed, Stayed
from digestry.errors import InvalidConfiguration
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.registry.observing.config import STDERR, LogConfig
from digestry.registry.observing.logs import cut, encode

if TYPE_CHECKING:
    from digestry.registry.exchange import Exchange

log: Final = logging.getLogger("digestry.registry")

_COMPLAINT_SECONDS: Final = 60.0
_MOVES: Final = {"created": "create-tag", "moved": "move-tag", "deleted": "delete-tag"}
_REMOVALS: Final = {
    "tag": "delete-tag",
    "manifest": "delete-manifest",
    "link": "remove-link",
    "blob": "remove-blob",
}
_ACTIONS: Final = {
    ("manifest", "PUT"): "push-manifest",
    ("manifest", "DELETE"): "delete-manifest",
    ("blob", "DELETE"): "delete-blob",
    ("upload", "POST"): "begin-upload",
    ("upload", "PUT"): "push-blob",
    ("upload", "DELETE"): "cancel-upload",
}
READS: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_NO_WRITES: Final = frozenset(("resolve", "token", "metrics", "health", "other"))

Entry = dict[str, Any]


def is_write(exchange: Exchange) -> bool:
    """Whether a request has a line. The parts of an upload have none of their own."""
    method = exchange.scope["method"]
    return method not in READS and exchange.route not in _NO_WRITES and method != "PATCH"


class AuditLog:
    """The log of one process. Thread-safe. ``lost`` is called with how many lines were lost."""

    def __init__(
        self, config: LogConfig, root: Path, *, lost: Callable[[int], None] = lambda _: None
    ) -> None:
        self._file = config.audit_file(root)
        self._stderr = config.audit == STDERR
        self._lost = lost
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._open_as = (0, 0)
        self._torn = False
        self._complained = float("-inf")

    def check(self) -> None:
        """Opens the file. Raises :class:`InvalidConfiguration` if it cannot be there, or be this user's."""
        try:
            self._place()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            raise InvalidConfiguration(
                f"cannot write the audit log {self._file}: {error.strerror}",
                hint="[log] audit names a file in a folder that is there",
            ) from error
        except OSError as error:
            log.error("the audit log %s cannot be written yet: %s", self._file, error.strerror)
        self.close()

    @property
    def enabled(self) -> bool:
        """Whether anything is written."""
        return self._stderr or self._file is not None

    def write(self, entries: Sequence[Entry]) -> None:
        """Writes a line for each. Blocks; never raises for what a disk does."""
        content = "".join(encode(entry) + "\n" for entry in entries).encode()
        with self._lock:
            try:
                descriptor = self._place()
                if self._torn:
                    content = b"\n" + content
                written = os.write(descriptor, content)
                self._torn = written < len(content)
                if not self._torn:
                    return
                reason = "the file system is full"
            except OSError as error:
                reason = error.strerror or str(error)
        self._lost(len(entries))
        self._complain(reason)

    def _place(self) -> int:
        if self._file is None:
            return sys.stderr.fileno()
        try:
            found = self._file.stat()
            there = found.st_dev, found.st_ino
        except FileNotFoundError:
            there = None
        if self._descriptor is None or there != self._open_as:
            # It was put aside, by this registry or by logrotate: the next one begins.
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            opened = os.fstat(self._descriptor)
            self._open_as = opened.st_dev, opened.st_ino
            self._torn = False
        return self._descriptor

    def _complain(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._complained >= _COMPLAINT_SECONDS:
            self._complained = now
            log.error("the audit log cannot be written, and what happens now is missing from it: %s", reason)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


def entries(exchange: Exchange, status: int) -> list[Entry]:
    """The lines of a request that is answered with ``status``: of itself, and of the tags it moved."""
    route, method = exchange.route, exchange.scope["method"]
    common: Entry = {
        "time": clock.to_rfc3339(clock.now()),
        "request_id": exchange.request_id,
        "user": exchange.asker.identity.name,
        "address": exchange.client.host if exchange.client else "",
        "client": cut(exchange.header(b"user-agent") or ""),
        "repository": exchange.repository,
        "status": status,
    }
    deed = dict(exchange.deed or {})
    events: Sequence[TagEvent] = deed.pop("events", ())
    own: Entry = {
        **common,
        "action": _ACTIONS.get((route, method), f"{method.lower()}-{route}"),
        **{name: str(value) if isinstance(value, Digest) else value for name, value in deed.items()},
    }
    if status >= 400:
        own["path"] = cut(exchange.scope["path"])
        own["error"] = cut(exchange.failure)
    moves = [{**common, **_move(event)} for event in events]
    if own["action"] == "delete-tag" and moves:
        return moves  # that is all there is to it
    return [own, *moves]


def _move(event: TagEvent) -> Entry:
    return {
        "action": _MOVES[event.event],
        "tag": event.tag,
        "from": None if event.from_digest is None else str(event.from_digest),
        "to": None if event.to_digest is None else str(event.to_digest),
        "sequence": event.sequence,
    }


class Removals:
    """Writes a line for each thing that collection removes."""

    def __init__(self, audit: AuditLog, job: str) -> None:
        self._audit = audit
        self._job = job

    def __call__(self, item: Removed | Stayed) -> None:
        if isinstance(item, Stayed) or not self._audit.enabled:
            return
        entry = {
            "time": clock.to_rfc3339(clock.now()),
            "user": ACTOR,
            "client": self._job,
            "action": _REMOVALS[item.kind],
            "repository": item.repository,
            "tag" if item.kind == "tag" else "digest": item.name,
            "size": item.size,
            "reason": item.why,
        }
        self._audit.write([{name: value for name, value in entry.items() if value not in {"", 0}}])


class Rotation:
    """Puts a large audit log aside, as ``audit.log.1`` and so on. A job of the maintenance process."""

    name = "audit log"
    _SECONDS: Final = 30.0

    def __init__(self, config: LogConfig, root: Path) -> None:
        self._file = config.audit_file(root)
        self._size = config.audit_size
        self._keep = config.audit_files

    def run(self, _stop: threading.Event) -> float:
        """Looks how large it is."""
        try:
            if self._file is not None and self._size and self._file.stat().st_size > self._size:
                self._rotate(self._file)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("the audit log %s cannot be put aside: %s", self._file, error.strerror)
        return self._SECONDS

    def _rotate(self, file: Path) -> None:
        def numbered(number: int) -> Path:
            return file.with_name(f"{file.name}.{number}")

        if self._keep == 0:
            file.unlink()
            return
        for number in range(self._keep - 1, 0, -1):
            if numbered(number).exists():
                numbered(number).replace(numbered(number + 1))
        file.replace(numbered(1))
