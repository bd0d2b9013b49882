"""The audit log: one line of JSON for each write. :mod:`.audit_events` makes the lines.

A write's line is written before its answer is sent, so that a kill after an answer loses no line. It is not
fsynced; the moves of tags, which must survive a power loss, are in the journal. A line is one ``write`` in
append mode, so that the lines of several processes never mix. If the log cannot be written, requests still
succeed: its lines are counted as lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from digestry import fsio
from digestry.errors import InvalidConfiguration, StorageError
from digestry.registry.observability.audit_shares import keep_shares
from digestry.registry.observability.counters import Family, ProcessMetrics
from digestry.registry.observability.logs import encode
from digestry.registry.observability_config import OFF, STDERR, LogConfig
from digestry.registry.permissions import is_shared

log: Final = logging.getLogger("digestry.registry")

LOST: Final = Family("digestry_audit_lost_lines", "Lines of the audit log that could not be written.")

PLACE_FILE: Final = "audit-log.json"
"""In the scratch directory: where the audit log is, for commands without the server's configuration."""

KEPT: Final = "kept"
"""How a file's name ends that has the lines of users whose share of the log others would take."""

_COMPLAINT_SECONDS: Final = 60.0

LogEntry = dict[str, object]


class AuditLog:
    """The audit log of one process. Thread-safe."""

    def __init__(self, config: LogConfig, scratch: Path) -> None:
        self.lost = 0
        """How many lines could not be written."""
        self._scratch = scratch
        self._file = config.audit_file(scratch)
        self._stderr = config.audit == STDERR
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._open_as = (0, 0)
        self._regular = False
        self._complained = float("-inf")

    def check(self) -> None:
        """Open the file. Raises :class:`InvalidConfiguration` if it cannot be created or written."""
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
        """Whether an audit log is configured."""
        return self._stderr or self._file is not None

    def write(self, entries: Sequence[LogEntry]) -> None:
        """Write one line for each entry. Blocks; never raises for a failure of the disk."""
        content = "".join(encode(entry) + "\n" for entry in entries).encode()
        with self._lock:
            try:
                descriptor = self._place()
                write = _write_to_file if self._regular else os.write
                if write(descriptor, content) == len(content):
                    return
                reason = "the file system is full"
            except OSError as error:
                reason = error.strerror or str(error)
            self.lost += len(entries)
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
            self._descriptor = self._open(self._file)
            opened = os.fstat(self._descriptor)
            self._open_as = opened.st_dev, opened.st_ino
            self._regular = stat.S_ISREG(opened.st_mode)
        return self._descriptor

    def _open(self, file: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        try:
            descriptor = os.open(file, flags | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(file, flags, 0o600)
        if not file.is_relative_to(self._scratch) or is_shared(self._scratch):
            os.fchmod(descriptor, 0o640)  # for tools that collect logs
        return descriptor

    def _complain(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._complained >= _COMPLAINT_SECONDS:
            self._complained = now
            log.error("the audit log cannot be written, and what happens now is missing from it: %s", reason)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


class AuditMeter:
    """Copies the number of lost lines to the process's counters."""

    def __init__(self, metrics: ProcessMetrics, *logs: AuditLog) -> None:
        self._logs = logs
        self._lost = metrics.counter(LOST)

    def read(self) -> None:
        """Copy the present number."""
        self._lost.reached(sum(audit.lost for audit in self._logs))


def _write_to_file(descriptor: int, content: bytes) -> int:
    """Write as ``os.write`` does, on a new line also after one that a full disk or a power loss cut short."""
    if _is_torn(descriptor):
        # It may only look so while another process writes: without a writer it is certain.
        with _locked(descriptor, fcntl.LOCK_EX):
            if _is_torn(descriptor):
                os.write(descriptor, b"\n")
    with _locked(descriptor, fcntl.LOCK_SH):
        return os.write(descriptor, content)


def _is_torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


@contextlib.contextmanager
def _locked(descriptor: int, operation: int) -> Iterator[None]:
    fcntl.flock(descriptor, operation)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def record_path(config: LogConfig, scratch: Path) -> None:
    """Record the path of the audit log in the scratch directory, for commands that are given only that."""
    file = scratch / PLACE_FILE
    try:
        if config.audit is None:
            fsio.remove_file(file)
        else:
            place = str(config.audit.absolute() if isinstance(config.audit, Path) else config.audit)
            fsio.write_file(file, msgspec.json.encode({"audit": place}))
    except StorageError as error:
        log.error("commands will not find the audit log: %s", error.message)


def recorded_path(scratch: Path) -> LogConfig:
    """Return the recorded path of the audit log of the server that last used this scratch directory."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        place = msgspec.json.decode(fsio.read_file(scratch / PLACE_FILE), type=dict[str, str]).get("audit")
        if place is not None:
            return LogConfig(audit=place if place in {OFF, STDERR} else Path(place))
    return LogConfig()


class RotationJob:
    """A maintenance job that rotates large audit logs to ``audit.log.1`` and so on."""

    name = "audit log"
    _SECONDS: Final = 30.0

    def __init__(self, config: LogConfig, scratch: Path) -> None:
        self._files = [config.audit_file(scratch), config.for_anonymous_refusals(scratch).audit_file(scratch)]
        self._size = config.audit_size
        self._keep = config.audit_files

    def run(self, _stop: threading.Event) -> float:
        """Rotate each log that is too large, and return after how many seconds to call again."""
        for file in self._files:
            try:
                if file is not None and self._size and file.stat().st_size > self._size:
                    self._rotate(file)
            except FileNotFoundError:
                pass
            except (OSError, StorageError) as error:
                reason = error.message if isinstance(error, StorageError) else error.strerror
                log.error("the audit log %s cannot be put aside: %s", file, reason)
        return self._SECONDS

    def _rotate(self, file: Path) -> None:
        def numbered(number: int) -> Path:
            return file.with_name(f"{file.name}.{number}")

        if self._keep == 0:
            file.unlink()
            return
        if numbered(self._keep).exists():
            kept = file.with_name(f"{file.name}.{KEPT}")
            keep_shares([kept, numbered(self._keep)], kept, self._size)
            numbered(self._keep).unlink()
        for number in range(self._keep - 1, 0, -1):
            if numbered(number).exists():
                numbered(number).replace(numbered(number + 1))
        file.replace(numbered(1))
