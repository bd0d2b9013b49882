"""What is served of the log: checkpoints, tiles, bundles of entries, and openings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Row, Select, func, select

from digestry.catalog.database import Database
from digestry.catalog.journal import to_event
from digestry.catalog.observation_schema import log_entries
from digestry.catalog.schema import journal
from digestry.catalog.transparency import audit, checkpoint_rows
from digestry.catalog.transparency import keys as log_keys
from digestry.catalog.transparency.checkpoint_rows import StoredCheckpoint
from digestry.catalog.transparency.damage import LogDamaged
from digestry.catalog.transparency.keys import Origin, StoredKey
from digestry.catalog.transparency.tree_rows import TableReader, hashes, size_of
from digestry.errors import DigestryError
from digestry.translog.entries import Leaf, Opening, make_leaf
from digestry.translog.merkle import consistency_proof, leaf_hash
from digestry.translog.notes import ED25519, VerifierKey
from digestry.translog.tiles import Tile, encode_bundle

_SECRETS: Final = (log_entries.c.hash.label("leaf_hash"), log_entries.c.secret, log_entries.c.sealed)
_LOOKED_BACK: Final = 100
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The log's name, the names that it had before, and the keys of the name in force, the newest first."""

    origin: str
    earlier: tuple[Origin, ...]
    keys: tuple[StoredKey, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Entries as a bundle. ``changed`` is the index of the first that is not what was logged, if one is."""

    content: bytes
    changed: int | None = None


@dataclass(frozen=True, slots=True)
class LogState:
    """The state of the log: how many entries of the journal it has (``size``) and has not (``unsigned``), and
    its last checkpoint."""

    origin: str
    size: int
    unsigned: int
    last: StoredCheckpoint | None


class TransparencyLog:
    """The log of a catalog. Thread-safe; each method blocks, and raises :class:`StorageError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> LogState | None:
        """Return the state of the log; None if it was never begun."""
        with self._database.read() as connection:
            names = log_keys.origins(connection)
            if not names:
                return None
            size = size_of(connection)
            entries = select(func.coalesce(func.max(journal.c.sequence), 0))
            unsigned = max(0, int(connection.execute(entries).scalar_one()) - size)
            last = checkpoint_rows.last(connection, names[-1].name)
            return LogState(names[-1].name, size, unsigned, last[0] if last else None)

    def keys(self) -> LogKeys | None:
        """Return the log's names and keys; None if it was never begun."""
        with self._database.read() as connection:
            names = log_keys.origins(connection)
            if not names:
                return None
            found = log_keys.keys_of(connection, names[-1].name, ED25519)
            return LogKeys(names[-1].name, tuple(names[:-1]), tuple(found))

    def checkpoint(self, *, quorum: int = 0, keys: Sequence[VerifierKey] = ()) -> StoredCheckpoint | None:
        """Return the newest checkpoint that ``quorum`` or more of the witnesses with these ``keys`` have
        cosigned; None without one."""
        with self._database.read() as connection:
            names = log_keys.origins(connection)
            if not names:
                return None
            name, before = names[-1].name, None
            while some := checkpoint_rows.last(
                connection,
                name,
                limit=_LOOKED_BACK if quorum else 1,
                before=before,
                cosigned=quorum > 0,
            ):
                for found in some:
                    if len(found.cosigners(keys)) >= quorum:
                        return found
                before = some[-1].checkpoint.size
            return None

    def last_cosigned(self, origin: str, witness: str) -> int:
        """Return how many leaves the newest checkpoint has that a witness cosigned; 0 if there is none."""
        with self._database.read() as connection:
            return checkpoint_rows.last_cosigned(connection, origin, witness)

    def tile(self, tile: Tile) -> bytes | None:
        """Return a tile of hashes; None if the log has not so many. Raises :class:`LogDamaged`."""
        with self._database.read() as connection:
            found = _all_of(connection, tile, lambda: hashes(connection, tile))
        return None if found is None else b"".join(found)

    def bundle(self, tile: Tile) -> Bundle | None:
        """Return a bundle of entries; None if the log has not so many. Raises :class:`LogDamaged`."""
        of_tile = log_entries.c.sequence > tile.first, log_entries.c.sequence <= tile.first + tile.width
        query = _leaves().where(*of_tile).order_by(log_entries.c.sequence)
        with self._database.read() as connection:
            rows = _all_of(connection, tile, lambda: connection.execute(query).all())
        if rows is None:
            return None
        leaves = [_leaf(row).content for row in rows]
        wrong = (
            tile.first + place
            for place, (leaf, row) in enumerate(zip(leaves, rows, strict=True))
            if leaf_hash(leaf) != bytes(row.leaf_hash)
        )
        return Bundle(encode_bundle(leaves), next(wrong, None))

    def compare(self, first: int, *, limit: int) -> tuple[int, int | None]:
        """Compare entries of the journal, from the index ``first`` on, with their leaves.

        Returns the index to go on from, 0 after the last one, and the first entry that was changed or lost.
        """
        query = (
            select(log_entries.c.sequence.label("position"), *_SECRETS, journal)
            .outerjoin_from(log_entries, journal, log_entries.c.sequence == journal.c.sequence)
            .where(log_entries.c.sequence > first)
            .order_by(log_entries.c.sequence)
            .limit(limit)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        wrong = (row.position - 1 for row in rows if row.sequence is None or not audit.is_signed(row))
        return rows[-1].position if len(rows) == limit else 0, next(wrong, None)

    def openings(
        self,
        repository: str,
        /,
        *,
        audits: bool,
        tag: str | None = None,
        first: int = 0,
        index: int | None = None,
        limit: int,
    ) -> list[Opening]:
        """Return the openings of a repository's leaves, by rising index: those from ``first`` on, or the one
        of ``index``; those of a ``tag`` only."""
        query = _leaves().where(journal.c.repository == repository)
        if tag is not None:
            query = query.where(journal.c.tag == tag)
        if index is None:
            query = query.where(journal.c.sequence > first)
        else:
            query = query.where(journal.c.sequence == index + 1)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(journal.c.at).limit(limit)).all()
        return [_leaf(row).opening(row.sequence - 1, audits=audits) for row in rows]

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the log of ``old`` leaves is the beginning of that of ``new``."""
        with self._database.read() as connection:
            return consistency_proof(old, new, TableReader(connection, new))


def _all_of(connection: Connection, tile: Tile, read: Callable[[], Sequence[T]]) -> Sequence[T] | None:
    """Return the rows of a tile; None if the log has not so many.

    Raises :class:`LogDamaged` if some are missing, although a checkpoint was signed over them.
    """
    found = read()
    if len(found) == tile.width:
        return found
    names = log_keys.origins(connection)
    last = checkpoint_rows.last(connection, names[-1].name) if names else []
    if not tile.exists(max(size_of(connection), last[0].checkpoint.size if last else 0)):
        return None
    found = read()  # they may have been signed since the first look
    if len(found) != tile.width:
        raise LogDamaged(
            f"the catalog has {len(found)} of the {tile.width} rows that {tile.path} of the signed log is"
            " made of: the others were removed"
        )
    return found


def _leaves() -> Select[Any]:
    return select(journal, *_SECRETS).join_from(
        log_entries, journal, log_entries.c.sequence == journal.c.sequence
    )


def _leaf(row: Row[Any]) -> Leaf:
    try:
        return make_leaf(to_event(row._asdict()), bytes(row.secret), sealed=bool(row.sealed))
    except (DigestryError, ArithmeticError, TypeError, ValueError) as error:
        message = f"journal entry {row.sequence}, which is in the signed log, cannot be read: {error}"
        raise LogDamaged(message) from error
