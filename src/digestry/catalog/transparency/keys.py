"""The names and keys of the log in the catalog. Functions on a transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from digestry.catalog.observation_schema import log_keys, log_origins
from digestry.catalog.transparency.damage import LogDamaged
from digestry.errors import Conflict
from digestry.translog.notes import COSIGNATURE, ED25519, InvalidNote, SignerKey, VerifierKey


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key, and since when, and until when, it signs (microseconds since 1970; None for no end)."""

    signer: SignerKey
    created_at: int
    retired_at: int | None

    def signs(self, now: int) -> bool:
        """Return whether the key signs at that time."""
        return self.retired_at is None or self.retired_at > now


@dataclass(frozen=True, slots=True)
class Origin:
    """A name of the log, since when (microseconds since 1970) it has that, and why another one was given
    up."""

    number: int
    name: str
    began_at: int
    reason: str


def origins(connection: Connection) -> list[Origin]:
    """Return the names of the log, the one in force last."""
    rows = connection.execute(select(log_origins).order_by(log_origins.c.number))
    return [Origin(row.number, row.origin, row.began_at, row.reason) for row in rows]


def begin(connection: Connection, name: str, *, now: int, reason: str) -> Origin:
    """Give the log a name, and a key of that name. Raises :class:`Conflict` for one that it had before."""
    earlier = origins(connection)
    if any(origin.name == name for origin in earlier):
        raise Conflict(
            f"the log was signed as {name} before",
            hint="a new log needs a name that no other one had, such as the old one with a number after it",
        )
    made = Origin(len(earlier) + 1, name, now, reason)
    row = {"number": made.number, "origin": name, "began_at": now, "reason": reason}
    connection.execute(insert(log_origins), row)
    if not keys_of(connection, name, ED25519):
        add_key(connection, SignerKey.new(name), now=now)
    return made


def keys_of(connection: Connection, name: str, algorithm: int) -> list[StoredKey]:
    """Return the keys of a name and type, the newest first. Raises :class:`LogDamaged`."""
    query = select(log_keys).where(log_keys.c.name == name, log_keys.c.algorithm == algorithm)
    rows = connection.execute(query.order_by(log_keys.c.created_at.desc(), log_keys.c.public))
    return [StoredKey(_signer(row), row.created_at, row.retired_at) for row in rows]


def add_key(connection: Connection, signer: SignerKey, *, now: int) -> None:
    """Store a key that signs from now on."""
    row = {
        "name": signer.name,
        "public": signer.verifier.public,
        "algorithm": signer.algorithm,
        "private": signer.seed,
        "created_at": now,
        "retired_at": None,
    }
    connection.execute(insert(log_keys), row)


def rotate(connection: Connection, name: str, algorithm: int, *, now: int, overlap: int) -> SignerKey:
    """Add a new key of a name; the others sign for ``overlap`` microseconds more.

    It is the newest also if the clock was set back meanwhile: the order says which key declares which.
    """
    same = (log_keys.c.name == name) & (log_keys.c.algorithm == algorithm)
    newest = connection.execute(select(func.max(log_keys.c.created_at)).where(same)).scalar()
    connection.execute(
        update(log_keys).values(retired_at=now + overlap).where(same, log_keys.c.retired_at.is_(None))
    )
    signer = SignerKey.new(name, algorithm)
    add_key(connection, signer, now=now if newest is None else max(now, newest + 1))
    return signer


def witness_key(connection: Connection, name: str, *, now: int) -> SignerKey:
    """Return the key with which this registry is a witness called ``name``; one is made if there is none."""
    found = [key for key in keys_of(connection, name, COSIGNATURE) if key.signs(now)]
    if found:
        return found[0].signer
    signer = SignerKey.new(name, COSIGNATURE)
    add_key(connection, signer, now=now)
    return signer


def verifiers(connection: Connection, name: str) -> list[VerifierKey]:
    """Return the public parts of all keys with which the log of that name was ever signed."""
    return [key.signer.verifier for key in keys_of(connection, name, ED25519)]


def _signer(row: Row[Any]) -> SignerKey:
    try:
        signer = SignerKey(row.name, row.algorithm, bytes(row.private))
    except InvalidNote as error:
        raise LogDamaged(f"the key of {row.name} in the catalog is damaged: {error.message}") from error
    if signer.verifier.public != bytes(row.public):
        raise LogDamaged(f"the key of {row.name} in the catalog is damaged: its two parts are of two keys")
    return signer
