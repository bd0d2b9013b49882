"""The signing of the journal as a transparency log: a job of the maintenance process.

Of several nodes one does it at a time, under a fenced lock. What was signed last is also noted in a file
beside the catalog, so that a catalog that was restored from a backup does not sign another history.
"""

from __future__ import annotations

import base64
import logging
import threading
from pathlib import Path
from typing import Final

import msgspec

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.job_states import JobState
from digestry.catalog.transparency.checkpoint_rows import StoredCheckpoint
from digestry.catalog.transparency.damage import LogDamaged
from digestry.catalog.transparency.signing import Head, LogContradicted
from digestry.coordination.protocol import FencedLock, Job
from digestry.errors import DigestryError, StorageError
from digestry.fsio import read_file, storage_errors, write_file
from digestry.model.json_types import prepared
from digestry.registry.access.identity import ANONYMOUS
from digestry.registry.access.rules import Rules
from digestry.registry.config import RegistryConfig
from digestry.registry.exclusive_job import ExclusiveJob
from digestry.registry.log_witness_client import WitnessFailed, WitnessRefused
from digestry.registry.log_witnesses import seen_by
from digestry.registry.observability.log_metrics import LOG_STATE
from digestry.registry.transparency_config import default_origin

log: Final = logging.getLogger("digestry.registry")

HEAD_FILE: Final = "log-head.json"
"""The name of the note below a node's directory."""
_LOOK_SECONDS: Final = 0.2
_BETWEEN_SECONDS: Final = 0.5
"""Between two checkpoints: a registry that takes pushes all the time signs many entries at once."""
_MANY: Final = 1000
_REFUSED_SECONDS: Final = 30.0
_HINT: Final = (
    "put the newer catalog back; if its entries are lost for good, digestry log begin NAME begins a log of"
    " another name (docs/transparency.md)"
)


class _Note(msgspec.Struct, frozen=True):
    origin: str
    size: int
    root: str


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
        try:
            note = msgspec.json.decode(content, type=prepared(_Note))
            return Head(note.origin, note.size, base64.b64decode(note.root, validate=True))
        except (msgspec.DecodeError, ValueError) as error:
            raise StorageError(
                f"{self.path}, which says what was signed last, is damaged: {error}",
                hint="if the catalog is the newest one, remove the file",
            ) from error

    def sweep(self) -> None:
        """Remove what a killed :meth:`write` left. Raises :class:`StorageError`."""
        with storage_errors("remove what was left of", self.path):
            for path in self.path.parent.glob(f".{HEAD_FILE}.*"):
                path.unlink(missing_ok=True)

    def write(self, head: Head) -> None:
        """Store the note durably. Raises :class:`StorageError`."""
        note = _Note(head.origin, head.size, base64.b64encode(head.root).decode())
        write_file(self.path, msgspec.json.encode(note), mode=0o600)


class LogJob(ExclusiveJob):
    """Signs the log."""

    name = "log"
    lock = Job.LOG
    take_over_seconds = 1.0

    def __init__(self, config: RegistryConfig, backend: Backend) -> None:
        super().__init__(backend)
        self._config = config

    def work(self, catalog: Catalog, lock: FencedLock, stop: threading.Event) -> None:
        """Sign until ``stop`` is set."""
        keeper = LogKeeper(self._config, self._backend, catalog, lock)
        while not stop.is_set():
            lock.check()
            stop.wait(keeper.step())


class LogKeeper:
    """The signing of one holder of the lock, which fences what it writes."""

    def __init__(self, config: RegistryConfig, backend: Backend, catalog: Catalog, lock: FencedLock) -> None:
        self._catalog = catalog
        self._lock = lock
        self._now = backend.now
        self._file = HeadFile(config.scratch)
        self._witnesses = config.transparency.witnesses
        self._named = config.transparency.origin
        self._default = default_origin(config.hosts, catalog.identity.get().id)
        self._rules = Rules(config.access.rules) if config.access.enabled else None
        self._head: Head | None = None
        self._origin = ""
        self._refused = ""

    def step(self) -> float:
        """Sign what is to be signed; return after how many seconds to look again.

        Raises :class:`Conflict` if another holds the lock by now, and :class:`StorageError`.
        """
        try:
            if not self._origin:
                self._begin()
            if not self._catalog.log_signer.waiting(self._origin):
                return _LOOK_SECONDS
            signed = self._catalog.log_signer.sign(
                self._is_public, now=self._now(), fence=self._lock, head=self._head
            )
        except (LogContradicted, LogDamaged) as error:
            self._refuse(error)
            return _REFUSED_SECONDS
        if self._refused:
            self._refused = ""
            self._record()
        if signed is None:
            return _LOOK_SECONDS
        self._note(signed)
        # A journal that is older than its log is caught up batch after batch.
        return 0.0 if self._catalog.log_signer.unsigned() >= _MANY else _BETWEEN_SECONDS

    def _begin(self) -> None:
        name = self._named or self._default
        found = self._catalog.log_signer.begin(name, now=self._now(), fence=self._lock).name
        if self._named is not None and found != self._named:
            log.warning(
                "the log goes on as %s, although the configuration names it %s: digestry log begin %s"
                " begins one of that name",
                found,
                self._named,
                self._named,
            )
        self._file.sweep()
        self._head = self._file.read()
        if self._head is None:
            self._ask_witnesses()
        self._catalog.log_signer.check(self._head)
        self._origin = found

    def _ask_witnesses(self) -> None:
        """Ask the witnesses whether the log went on: the file that would say so is not there, as after a
        restore.

        Raises :class:`LogContradicted`.
        """
        newest = self._catalog.log.checkpoint()
        size = 0 if newest is None else newest.checkpoint.size
        for witness in self._witnesses if newest is not None else ():
            try:
                seen = seen_by(witness, self._catalog)
            except WitnessRefused as error:
                raise LogContradicted(error.message) from error
            except WitnessFailed as error:
                log.warning("whether the log went on since is not known: %s", error.message)
                continue
            if seen > size:
                raise LogContradicted(
                    f"the witness {witness.name} has cosigned this log with {seen} entries, and this catalog"
                    f" has signed {size}"
                )

    def _is_public(self, repository: str) -> bool:
        return self._rules is None or "pull" in self._rules.allowed(ANONYMOUS, repository)

    def _note(self, signed: StoredCheckpoint) -> None:
        checkpoint = signed.checkpoint
        self._head = Head(checkpoint.origin, checkpoint.size, checkpoint.root)
        try:
            self._file.write(self._head)
        except StorageError as error:
            log.error("it was not noted what was signed last: %s", error.message)

    def _refuse(self, error: DigestryError) -> None:
        # It may have been begun anew meanwhile.
        self._origin = ""
        log.error("the log is not signed: %s (%s)", error.message, _HINT)
        if self._refused != error.message:
            self._refused = error.message
            self._record()

    def _record(self) -> None:
        now = self._now()
        state = JobState(LOG_STATE, now, now, {"refused": self._refused})
        self._catalog.jobs.note(state, self._lock)
