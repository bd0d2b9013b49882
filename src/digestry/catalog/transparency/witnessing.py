"""What this registry has seen of other logs, as their witness (C2SP ``tlog-witness``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, insert, select, update

from digestry.catalog import transaction_locks
from digestry.catalog.database import Database
from digestry.catalog.observation_schema import witnessed_logs
from digestry.catalog.transactions import retried
from digestry.catalog.transparency import keys
from digestry.errors import Conflict, ContentError
from digestry.translog.checkpoints import Checkpoint
from digestry.translog.cosignatures import AddCheckpoint, cosign
from digestry.translog.merkle import EMPTY_ROOT, verify_consistency
from digestry.translog.notes import (
    COSIGNATURE,
    InvalidNote,
    Note,
    Signature,
    SignerKey,
    VerifierKey,
    parse_note,
)

_SECOND: Final = 1_000_000
REPEATED: Final = 2
"""Seconds for which the same checkpoint gets the same cosignature. Anybody who has it may send it again, and
has nothing written by that."""


class SizeDiffers(Conflict):
    """The log was last seen with ``size`` entries, not with as many as the request says."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the last checkpoint that was cosigned here has {size} entries")
        self.size = size


class Inconsistent(ContentError):
    """A checkpoint that does not continue the one that was cosigned before."""


@dataclass(frozen=True, slots=True)
class WitnessedState:
    """The last checkpoint of another log that was cosigned here, with its signatures, and when (microseconds
    since 1970)."""

    origin: str
    size: int
    root: bytes
    note: str
    seen_at: int


class Witnessing:
    """The logs that this registry is a witness of. Thread-safe; blocks, and raises :class:`StorageError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check(
        self, name: str, request: AddCheckpoint, checkpoint: Checkpoint, note: Note, *, now: int
    ) -> Signature | None:
        """Compare a checkpoint with what was seen of its log, without a lock and without writing anything.

        ``note`` has the signatures of the log that were verified. Returns the cosignature that the witness
        ``name`` made of it in the last :data:`REPEATED` seconds; None if it is to be added. Raises
        :class:`SizeDiffers`, and :class:`Inconsistent`.
        """
        with self._database.read() as connection:
            seen = _seen(connection, checkpoint.origin)
            _check(seen, request, checkpoint)
            return _repeated(connection, seen, name, note.text, now)

    @retried
    def add(
        self, name: str, request: AddCheckpoint, checkpoint: Checkpoint, note: Note, *, now: int
    ) -> Signature:
        """Compare as :meth:`check` does, cosign as the witness ``name``, and remember: one transaction."""
        with self._database.write() as connection:
            transaction_locks.lock(connection, f"witness {checkpoint.origin}")
            seen = _seen(connection, checkpoint.origin)
            _check(seen, request, checkpoint)
            key = keys.witness_key(connection, name, now=now)
            signature = cosign(checkpoint.text, key, now // _SECOND)
            row = {
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root": checkpoint.root,
                "checkpoint": str(Note(note.text, (*note.signatures, signature))),
                "seen_at": now,
            }
            if seen is None:
                connection.execute(insert(witnessed_logs), row)
            else:
                connection.execute(
                    update(witnessed_logs).where(witnessed_logs.c.origin == checkpoint.origin).values(row)
                )
            return signature

    def seen(self, origin: str) -> WitnessedState | None:
        """Return the last checkpoint of a log that was cosigned here."""
        with self._database.read() as connection:
            return _seen(connection, origin)

    def key(self, name: str, *, now: int) -> VerifierKey:
        """Return the public part of the key with which the witness ``name`` cosigns; one is made if there is
        none."""
        with self._database.read() as connection:
            found = [key for key in keys.keys_of(connection, name, COSIGNATURE) if key.signs(now)]
        return found[0].signer.verifier if found else self._made(name, now)

    @retried
    def _made(self, name: str, now: int) -> VerifierKey:
        with self._database.write() as connection:
            return keys.witness_key(connection, name, now=now).verifier


def _seen(connection: Connection, origin: str) -> WitnessedState | None:
    row = connection.execute(select(witnessed_logs).where(witnessed_logs.c.origin == origin)).first()
    if row is None:
        return None
    return WitnessedState(row.origin, row.size, bytes(row.root), row.checkpoint, row.seen_at)


def _check(seen: WitnessedState | None, request: AddCheckpoint, checkpoint: Checkpoint) -> None:
    """Raise :class:`SizeDiffers` or :class:`Inconsistent` unless a checkpoint continues what was seen."""
    size, root = (0, EMPTY_ROOT) if seen is None else (seen.size, seen.root)
    if request.old_size != size:
        raise SizeDiffers(size)
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise Inconsistent("a log without entries has another root")
    try:
        verify_consistency(size, root, checkpoint.size, checkpoint.root, request.proof)
    except ContentError as error:
        raise Inconsistent(error.message) from error


def _repeated(
    connection: Connection, seen: WitnessedState | None, name: str, text: str, now: int
) -> Signature | None:
    """Return the cosignature that this checkpoint got just now, by the key that the witness ``name`` has."""
    if seen is None or not 0 <= now - seen.seen_at < REPEATED * _SECOND:
        return None
    try:
        note = parse_note(seen.note.encode())
    except InvalidNote:  # it was damaged, and is written anew
        return None
    found = [key.signer for key in keys.keys_of(connection, name, COSIGNATURE) if key.signs(now)]
    if note.text != text or not found:
        return None
    return _made_by(found[0], note)


def _made_by(signer: SignerKey, note: Note) -> Signature | None:
    """Return the signature of a note that a key has made."""
    key = signer.verifier
    try:
        return next(
            one for one in note.signatures if key.made(one) and key.verify(note.text, one) is not None
        )
    except (StopIteration, InvalidNote):
        return None
