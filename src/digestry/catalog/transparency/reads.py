"""What is served of the log: checkpoints, tiles, bundles of entries, and openings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, Select, func, select

from digestry.catalog.database import Database
from digestry.catalog.journal import to_event
from digestry.catalog.observation_schema import log_entries
from digestry.catalog.schema import journal
from digestry.catalog.transparency import checkpoint_rows, keys
from digestry.catalog.transparency.checkpoint_rows import StoredCheckpoint
from digestry.catalog.transparency.keys import Origin, StoredKey
from digestry.catalog.transparency.tree_rows import TableReader, hashes, size_of
from digestry.translog.entries import Leaf, Opening, make_leaf
from digestry.translog.merkle import consistency_proof, leaf_hash
from digestry.translog.notes import ED25519
from digestry.translog.tiles import Tile, encode_bundle

_SECRETS: Final = (log_entries.c.hash.label("leaf_hash"), log_entries.c.secret, log_entries.c.sealed)
_LOOKED_BACK: Final = 100


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
            names = keys.origins(connection)
            if not names:
                return None
            size = size_of(connection)
            entries = select(func.coalesce(func.max(journal.c.sequence), 0))
            unsigned = int(connection.execute(entries).scalar_one()) - size
            last = checkpoint_rows.last(connection, names[-1].name)
            return LogState(names[-1].name, size, unsigned, last[0] if last else None)

    def keys(self) -> LogKeys | None:
        """Return the log's names and keys; None if it was never begun."""
        with self._database.read() as connection:
            names = keys.origins(connection)
            if not names:
                return None
            found = keys.keys_of(connection, names[-1].name, ED25519)
            return LogKeys(names[-1].name, tuple(names[:-1]), tuple(found))

    def checkpoint(self, *, quorum: int = 0) -> StoredCheckpoint | None:
        """Return the newest checkpoint that ``quorum`` witnesses or more have cosigned; None without one."""
        with self._database.read() as connection:
            names = keys.origins(connection)
            if not names:
                return None
            name, before = names[-1].name, None
            while some := checkpoint_rows.last(
                connection, name, limit=_LOOKED_BACK if quorum else 1, before=before
            ):
                for found in some:
                    if len(found.cosigners) >= quorum:
                        return found
                before = some[-1].checkpoint.size
            return None

    def last_cosigned(self, origin: str, witness: str) -> int:
        """Return how many leaves the newest checkpoint has that a witness cosigned; 0 if there is none."""
        with self._database.read() as connection:
            return checkpoint_rows.last_cosigned(connection, origin, witness)

    def tile(self, tile: Tile) -> bytes | None:
        """Return a tile of hashes; None if the log has not so many."""
        with self._database.read() as connection:
            found = hashes(connection, tile)
        return b"".join(found) if len(found) == tile.width else None

    def bundle(self, tile: Tile) -> Bundle | None:
        """Return a bundle of entries; None if the log has not so many."""
        first = log_entries.c.sequence > tile.first
        with self._database.read() as connection:
            query = _leaves().where(first, log_entries.c.sequence <= tile.first + tile.width)
            rows = connection.execute(query.order_by(log_entries.c.sequence)).all()
        if len(rows) != tile.width:
            return None
        leaves = [_leaf(row).content for row in rows]
        wrong = (
            tile.first + place
            for place, (leaf, row) in enumerate(zip(leaves, rows, strict=True))
            if leaf_hash(leaf) != bytes(row.leaf_hash)
        )
        return Bundle(encode_bundle(leaves), next(wrong, None))

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


def _leaves() -> Select[Any]:
    return select(journal, *_SECRETS).join_from(
        log_entries, journal, log_entries.c.sequence == journal.c.sequence
    )


def _leaf(row: Row[Any]) -> Leaf:
    values = row._asdict()
    return make_leaf(to_event(values), bytes(row.secret), sealed=bool(row.sealed))
