"""The signing of the journal as a transparency log: a job of the maintenance process.

Of several nodes one does it at a time, under a fenced lock. What was signed last is also noted outside of the
catalog (:mod:`.log_heads`), so that a catalog that was put back does not sign another history.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import Final

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.job_states import JobState
from digestry.catalog.transparency.checkpoint_rows import StoredCheckpoint
from digestry.catalog.transparency.damage import LogDamaged
from digestry.catalog.transparency.signing import Head, LogContradicted
from digestry.coordination.protocol import FencedLock, Job
from digestry.errors import DigestryError, StorageError
from digestry.registry.access.identity import ANONYMOUS
from digestry.registry.access.rules import Rules
from digestry.registry.config import RegistryConfig
from digestry.registry.exclusive_job import ExclusiveJob
from digestry.registry.log_audit import LogAudit
from digestry.registry.log_heads import HeadFile, head_beside
from digestry.registry.log_witness_client import WitnessFailed, WitnessRefused
from digestry.registry.log_witnesses import ask_all
from digestry.registry.observability.log_metrics import LOG_STATE
from digestry.registry.transparency_config import default_origin

log: Final = logging.getLogger("digestry.registry")

_LOOK_SECONDS: Final = 0.2
_BETWEEN_SECONDS: Final = 0.5
"""Between two checkpoints: a registry that takes pushes all the time signs many entries at once."""
_MANY: Final = 1000
_REFUSED_SECONDS: Final = 10.0
_THINNING_SECONDS: Final = 600.0
"""From one removal of old checkpoints to the next."""
_BETWEEN_BATCHES: Final = 1.0
_HINT: Final = (
    "put the newer catalog back; if its entries are lost for good, digestry log begin NAME begins a log of"
    " another name (docs/transparency.md)"
)


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
        with contextlib.closing(keeper):
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
        self._beside = head_beside(backend.notes, catalog.log_signer.check)
        self._witnesses = config.transparency.witnesses
        self._named = config.transparency.origin
        self._default = default_origin(config.hosts, catalog.identity.get().id)
        self._rules = Rules(config.access.rules) if config.access.enabled else None
        self._head: Head | None = None
        self._origin = ""
        self._refused = ""
        known = catalog.jobs.state(LOG_STATE)
        changed = -1 if known is None else int(known.state.get("changed", -1))
        self._audit = LogAudit(catalog.log, changed if changed >= 0 else None)
        self._thinning = catalog.log_signer.thinning()
        self._thinned_at = time.monotonic() - _THINNING_SECONDS + _BETWEEN_BATCHES

    def step(self) -> float:
        """Sign what is to be signed; return after how many seconds to look again.

        Raises :class:`Conflict` if another holds the lock by now, and :class:`StorageError`.
        """
        if self._audit.step():
            self._record()
        try:
            self._beside.check()
            if not self._origin:
                self._begin()
            signed = None
            if self._catalog.log_signer.waiting(self._origin):
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
            self._thin()
            return _LOOK_SECONDS
        self._note(signed)
        self._thin()
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
        self._catalog.log_signer.check(self._head)
        self._compare_beside()
        self._compare_with_witnesses()
        self._origin = found

    def close(self) -> None:
        """Note what was signed last, within seconds."""
        self._beside.close()

    def _compare_beside(self) -> None:
        """Compare the catalog with what was noted beside the content. Raises :class:`LogContradicted`."""
        try:
            noted = self._beside.read()
        except StorageError as error:
            log.warning("whether the log went on since is not known: %s", error.message)
            return
        if noted is not None:
            self._catalog.log_signer.check(noted)

    def _compare_with_witnesses(self) -> None:
        """Ask the witnesses whether the log went on: a catalog may have been put back with all notes.

        Of a suspended log all of them must say that this is its end. Raises :class:`LogContradicted`.
        """
        if not (self._witnesses or self._catalog.log_suspension.reason()):
            return
        newest = self._catalog.log.checkpoint() or self._catalog.log_signer.of_nothing(now=self._now())
        size = newest.checkpoint.size
        answers = ask_all(self._witnesses, newest, self._catalog)
        for witness, answer in answers.items():
            if isinstance(answer, WitnessRefused):
                raise LogContradicted(answer.message) from answer
            if isinstance(answer, WitnessFailed):
                log.warning("whether the log went on since is not known: %s", answer.message)
            elif answer is not None and answer > size:
                raise LogContradicted(
                    f"the witness {witness} has cosigned this log with {answer} entries, and this catalog"
                    f" has signed {size}"
                )
        suspended = self._catalog.log_suspension.reason()
        if not suspended:
            return
        if not answers or any(answer != size for answer in answers.values()):
            raise LogContradicted(
                f"{suspended}: whether more was signed than its {size} entries is not known; if nothing was,"
                " digestry log resume signs on"
            )
        log.warning("all witnesses say that the log ends with its %d entries: it is signed on", size)
        self._catalog.log_suspension.resume(now=self._now())

    def _is_public(self, repository: str) -> bool:
        return self._rules is None or "pull" in self._rules.allowed(ANONYMOUS, repository)

    def _note(self, signed: StoredCheckpoint) -> None:
        checkpoint = signed.checkpoint
        self._head = Head(checkpoint.origin, checkpoint.size, checkpoint.root)
        try:
            self._file.write(self._head)
        except StorageError as error:
            log.error("it was not noted what was signed last: %s", error.message)
        self._beside.keep(self._head)

    def _thin(self) -> None:
        """Remove some of the old checkpoints, if it is time. Raises as :meth:`step` does."""
        if time.monotonic() < self._thinned_at + _THINNING_SECONDS:
            return
        removed, ended = self._thinning.step(now=self._now(), fence=self._lock)
        pause = _THINNING_SECONDS if ended else _BETWEEN_BATCHES
        self._thinned_at = time.monotonic() - _THINNING_SECONDS + pause
        if removed:
            log.debug("%d old checkpoints were removed", removed)

    def _refuse(self, error: DigestryError) -> None:
        # It may have been begun anew meanwhile.
        self._origin = ""
        log.error("the log is not signed: %s (%s)", error.message, _HINT)
        if self._refused != error.message:
            self._refused = error.message
            self._record()

    def _record(self) -> None:
        now = self._now()
        changed = -1 if self._audit.changed is None else self._audit.changed
        state = JobState(LOG_STATE, now, now, {"refused": self._refused, "changed": changed})
        self._catalog.jobs.store(state, self._lock)
