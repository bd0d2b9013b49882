"""The gathering of cosignatures: a job of the maintenance process, a thread for each witness.

A witness that is away delays neither the signing nor the other witnesses.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

from digestry.backend import Backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.job_states import JobState
from digestry.catalog.transparency.checkpoint_rows import StoredCheckpoint
from digestry.coordination.protocol import FencedLock, Job
from digestry.errors import Conflict, DigestryError
from digestry.registry.config import RegistryConfig
from digestry.registry.exclusive_job import ExclusiveJob
from digestry.registry.log_witness_client import SawOther, WitnessClient, WitnessFailed, WitnessRefused
from digestry.registry.observability.log_metrics import WITNESS_STATE
from digestry.registry.transparency_config import TransparencyConfig, WitnessConfig
from digestry.translog.cosignatures import cosignatures
from digestry.translog.notes import InvalidNote, Note, parse_note

log: Final = logging.getLogger("digestry.registry")

_LOOK_SECONDS: Final = 0.25
_END_SECONDS: Final = 2.0
_FIRST_DELAY: Final = 1.0
_LONGEST_DELAY: Final = 60.0
_ATTEMPTS: Final = 3
_ASKED_SECONDS: Final = 3.0


class WitnessesJob(ExclusiveJob):
    """Has the log cosigned."""

    name = "log witnesses"
    lock = Job.WITNESSES

    def __init__(self, config: RegistryConfig, backend: Backend) -> None:
        super().__init__(backend)
        self._config = config

    def work(self, catalog: Catalog, lock: FencedLock, stop: threading.Event) -> None:
        """Have it cosigned until ``stop`` is set."""
        ended = threading.Event()
        record = WitnessRecord(catalog, lock, self._backend.now)
        threads = [
            threading.Thread(
                target=self._serve,
                args=(Cosigner(witness, catalog, lock, record, self._config.transparency), ended),
                name=f"witness {witness.name}",
                daemon=True,
            )
            for witness in self._config.transparency.witnesses
        ]
        for thread in threads:
            thread.start()
        try:
            while not stop.wait(_LOOK_SECONDS):
                lock.check()
        finally:
            ended.set()
            for thread in threads:
                thread.join(_END_SECONDS)

    def _serve(self, cosigner: Cosigner, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                pause = cosigner.step()
            except Conflict:
                return
            except DigestryError as error:
                log.error("witness %s: trying again: %s", cosigner.name, error.message)
                pause = _LONGEST_DELAY / 10
            except Exception:
                log.exception("witness %s: trying again", cosigner.name)
                pause = _LONGEST_DELAY
            ended.wait(pause)


class WitnessRecord:
    """The failures of all witnesses, as the metrics show them. Thread-safe."""

    def __init__(self, catalog: Catalog, lock: FencedLock, now: clock.Clock) -> None:
        self._catalog = catalog
        self._lock = lock
        self._now = now
        self._turn = threading.Lock()
        found = catalog.jobs.state(WITNESS_STATE)
        self._state = {} if found is None else dict(found.state)

    def note(self, witness: str, *, problem: str = "", refused: bool = False) -> None:
        """Note that a request to a witness failed, or, without a ``problem``, did not."""
        with self._turn:
            before = self._state.get(witness, {})
            failures = int(before.get("failures", 0)) + bool(problem)
            state = {"failures": failures, "problem": problem, "refused": int(refused)}
            if state != before:
                self._state[witness] = state
                now = self._now()
                self._catalog.jobs.store(JobState(WITNESS_STATE, now, now, self._state), self._lock)


class Cosigner:
    """Has the newest checkpoint cosigned by one witness."""

    def __init__(
        self,
        witness: WitnessConfig,
        catalog: Catalog,
        lock: FencedLock,
        record: WitnessRecord,
        config: TransparencyConfig,
    ) -> None:
        self.name = witness.name
        self._keys = witness.keys
        self._interval = config.cosign_interval
        self._fresh: tuple[str, int] | None = None
        self._until = 0.0
        self._client = WitnessClient(witness)
        self._catalog = catalog
        self._lock = lock
        self._record = record
        self._seen: dict[str, int] = {}
        self._failures = 0

    def step(self) -> float:
        """Have the newest checkpoint cosigned, if it is not; return after how many seconds to look again.

        Raises :class:`Conflict` if another holds the lock, and :class:`StorageError`.
        """
        try:
            if not self._cosign():
                return _LOOK_SECONDS
        except WitnessFailed as error:
            refused = isinstance(error, WitnessRefused)
            if self._failures == 0 or refused:
                log.error("the log is not cosigned: %s", error.message)
            self._record.note(self.name, problem=error.message, refused=refused)
            self._failures += 1
            return min(_LONGEST_DELAY, _FIRST_DELAY * float(1 << min(self._failures, 6)))
        if self._failures:
            log.info("the witness %s cosigns again", self.name)
        self._failures = 0
        self._record.note(self.name)
        return _LOOK_SECONDS

    def _is_fresh(self, newest: StoredCheckpoint) -> bool:
        """Return whether the witness cosigned a checkpoint, with a key that it has, not too long ago.

        What was asked for here is measured by this process's clock: the witness's may be wrong.
        """
        if not newest.cosigners(self._keys):
            return False
        place = newest.checkpoint.origin, newest.checkpoint.size
        if self._fresh != place:
            try:
                note = parse_note(newest.served)
                found = cosignatures(Note(newest.checkpoint.text, note.signatures), self._keys)
            except InvalidNote:
                found = []
            age = time.time() - max((each.seconds for each in found), default=0)
            self._fresh = place
            self._until = time.monotonic() + self._interval - max(0.0, age)
        return time.monotonic() < self._until

    def _cosign(self) -> bool:
        """Return whether the witness was asked."""
        for _ in range(_ATTEMPTS):
            newest = self._catalog.log.checkpoint()
            if newest is None or self._is_fresh(newest):
                return False
            origin, size = newest.checkpoint.origin, newest.checkpoint.size
            old = self._seen.get(origin)
            if old is None:
                old = self._catalog.log.last_cosigned(origin, self.name)
            if old > size:
                self._seen.pop(origin, None)
                raise WitnessRefused(
                    f"the witness {self.name} has cosigned {origin} with {old} entries, and this registry has"
                    f" signed {size}: its catalog is older than it was (docs/transparency.md)"
                )
            answer = self._client.submit(newest, old, self._catalog.log.consistency(old, size))
            if not isinstance(answer, SawOther):
                self._catalog.log_signer.cosign(origin, size, answer, fence=self._lock)
                self._seen[origin] = size
                self._fresh, self._until = (origin, size), time.monotonic() + self._interval
                return True
            self._seen[origin] = answer.size
        raise WitnessFailed(f"the witness {self.name} names another size each time")


def seen_by(witness: WitnessConfig, newest: StoredCheckpoint, catalog: Catalog) -> int | None:
    """Return with how many entries a witness has cosigned the log of a checkpoint; None if it had not.

    Raises :class:`WitnessRefused` if it cosigned another history, and :class:`WitnessFailed`.
    """
    client, size = WitnessClient(witness), newest.checkpoint.size
    answer = client.submit(newest, 0, ())
    if not isinstance(answer, SawOther):
        return None
    if answer.size <= size:
        proof = catalog.log.consistency(answer.size, size)
        client.submit(newest, answer.size, proof)
    return answer.size


def ask_all(
    witnesses: Sequence[WitnessConfig], newest: StoredCheckpoint, catalog: Catalog
) -> Mapping[str, int | WitnessFailed | None]:
    """Return for each witness what :func:`seen_by` does, or raises, of those that answer within seconds."""
    answers: dict[str, int | WitnessFailed | None] = {
        witness.name: WitnessFailed(f"the witness {witness.name} does not answer in time")
        for witness in witnesses
    }
    told: queue.SimpleQueue[tuple[str, int | WitnessFailed | None]] = queue.SimpleQueue()

    def ask(witness: WitnessConfig) -> None:
        try:
            told.put((witness.name, seen_by(witness, newest, catalog)))
        except WitnessFailed as error:
            told.put((witness.name, error))
        except DigestryError as error:
            told.put((witness.name, WitnessFailed(f"the witness {witness.name}: {error.message}")))

    for witness in witnesses:
        threading.Thread(target=ask, args=(witness,), name=f"ask {witness.name}", daemon=True).start()
    until = time.monotonic() + _ASKED_SECONDS
    for _ in witnesses:
        with contextlib.suppress(queue.Empty):
            name, answer = told.get(timeout=max(0.0, until - time.monotonic()))
            answers[name] = answer
    return answers
