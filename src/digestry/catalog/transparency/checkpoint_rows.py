"""The checkpoints in the catalog. Functions on a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, select, update

from digestry.catalog.observation_schema import log_checkpoints
from digestry.translog.checkpoints import Checkpoint
from digestry.translog.notes import InvalidNote, Note, Signature, VerifierKey, parse_signatures


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint that was signed, with the lines of its cosignatures; the time is in microseconds since
    1970."""

    checkpoint: Checkpoint
    note: str
    cosignatures: str
    signed_at: int

    @property
    def served(self) -> bytes:
        """The note with all signatures that there are."""
        return f"{self.note}{''.join(each.line for each in _parsed(self.cosignatures))}".encode()

    def cosigners(self, keys: Sequence[VerifierKey]) -> frozenset[str]:
        """Return the names of the witnesses whose ``keys`` cosigned it."""
        found = _parsed(self.cosignatures)
        return frozenset(key.name for key in keys if any(key.made(signature) for signature in found))


def last(
    connection: Connection,
    origin: str,
    *,
    limit: int = 1,
    before: int | None = None,
    cosigned: bool = False,
) -> list[StoredCheckpoint]:
    """Return the newest checkpoints of a log, the newest first; those of fewer leaves than ``before``, and
    ``cosigned`` ones only."""
    query = select(log_checkpoints).where(log_checkpoints.c.origin == origin)
    if cosigned:
        query = query.where(log_checkpoints.c.cosignatures != "")
    if before is not None:
        query = query.where(log_checkpoints.c.size < before)
    rows = connection.execute(query.order_by(log_checkpoints.c.size.desc()).limit(limit))
    return [_stored(row) for row in rows]


def of_size(connection: Connection, origin: str, size: int) -> StoredCheckpoint | None:
    """Return the checkpoint of a log with so many leaves, if one was signed."""
    row = connection.execute(select(log_checkpoints).where(_is(origin, size))).first()
    return None if row is None else _stored(row)


def add(connection: Connection, checkpoint: Checkpoint, note: Note, *, now: int) -> StoredCheckpoint:
    """Store a checkpoint that was signed."""
    row = {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root,
        "note": str(note),
        "signed_at": now,
        "cosignatures": "",
    }
    connection.execute(insert(log_checkpoints), row)
    return StoredCheckpoint(checkpoint, str(note), "", now)


def cosign(connection: Connection, origin: str, size: int, signatures: Sequence[Signature]) -> None:
    """Add cosignatures to a checkpoint, in place of older ones by the same keys."""
    query = select(log_checkpoints.c.cosignatures).where(_is(origin, size))
    lines = connection.execute(query.with_for_update()).scalar_one()
    new = {(signature.name, signature.key_id) for signature in signatures}
    kept = [each for each in _parsed(lines) if (each.name, each.key_id) not in new]
    text = "".join(signature.line for signature in (*kept, *signatures))
    connection.execute(update(log_checkpoints).values(cosignatures=text).where(_is(origin, size)))


def last_cosigned(connection: Connection, origin: str, witness: str) -> int:
    """Return how many leaves the newest checkpoint has that a witness cosigned; 0 if there is none."""
    line = log_checkpoints.c.cosignatures.contains(f"\u2014 {witness} ", autoescape=True)
    # From the newest on: one that cosigns has cosigned one of the last, and no more are read.
    query = select(log_checkpoints.c.size).where(log_checkpoints.c.origin == origin, line)
    return connection.execute(query.order_by(log_checkpoints.c.size.desc()).limit(1)).scalar() or 0


def _parsed(lines: str) -> tuple[Signature, ...]:
    """Return cosignatures; none if they are damaged: the witnesses are then asked again."""
    try:
        return parse_signatures(lines) if lines else ()
    except InvalidNote:
        return ()


def _is(origin: str, size: int) -> ColumnElement[bool]:
    return and_(log_checkpoints.c.origin == origin, log_checkpoints.c.size == size)


def _stored(row: Row[Any]) -> StoredCheckpoint:
    values = row._mapping
    checkpoint = Checkpoint(values["origin"], values["size"], bytes(values["root"]))
    return StoredCheckpoint(checkpoint, values["note"], values["cosignatures"], values["signed_at"])
