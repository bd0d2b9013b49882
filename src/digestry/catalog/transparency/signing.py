"""The signing of the journal as a log: leaves, tree and checkpoint in one transaction of one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select

from digestry.catalog.database import Database
from digestry.catalog.job_states import Fence
from digestry.catalog.journal import to_event
from digestry.catalog.observation_schema import log_entries
from digestry.catalog.schema import journal
from digestry.catalog.transactions import retried
from digestry.catalog.transparency import audit, checkpoint_rows, keys
from digestry.catalog.transparency.checkpoint_rows import StoredCheckpoint
from digestry.catalog.transparency.damage import LogDamaged
from digestry.catalog.transparency.thinning import CheckpointThinning
from digestry.catalog.transparency.tree_rows import GrowingTiles, TableReader, size_of
from digestry.errors import Conflict, NotFound
from digestry.translog.checkpoints import Checkpoint, open_checkpoint
from digestry.translog.entries import SECRET_SIZE, make_leaf
from digestry.translog.merkle import EMPTY_ROOT, Frontier, leaf_hash, root_from
from digestry.translog.notes import COSIGNATURE, ED25519, InvalidNote, Signature, SignerKey

_BATCH: Final = 2000
IsPublic = Callable[[str], bool]
"""Return whether everybody may read a repository."""


class LogContradicted(Conflict):
    """The log in the catalog is not the one, or not all of the one, that was signed."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log that was signed: its name, its size and the root of its tree."""

    origin: str
    size: int
    root: bytes


class LogSigner:
    """Appends the journal's entries to the log, and signs. Used by the holder of the lock. Blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self, origin: str) -> bool:
        """Return whether there is something to sign."""
        with self._database.read() as connection:
            size = size_of(connection)
            last = select(func.coalesce(func.max(journal.c.sequence), 0))
            if connection.execute(last).scalar_one() != size:
                return True
            return not _newest_of_size(connection, origin, size)

    def unsigned(self) -> int:
        """Return how many entries of the journal are not in the log."""
        with self._database.read() as connection:
            last = select(func.coalesce(func.max(journal.c.sequence), 0))
            return max(0, int(connection.execute(last).scalar_one()) - size_of(connection))

    @retried
    def begin(self, name: str, *, now: int, fence: Fence | None) -> keys.Origin:
        """Return the log's name: ``name``, and a key is made for it, unless it has one already."""
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            found = keys.origins(connection)
            return found[-1] if found else keys.begin(connection, name, now=now, reason="")

    def check(self, head: Head | None) -> None:
        """Raise :class:`LogContradicted` unless the log continues ``head``, has the leaves that its last
        checkpoint was signed over, and the journal has the last entry that is in it.

        Raises :class:`LogDamaged` for rows that are missing, or a checkpoint or key that is not what it was.
        """
        with self._database.read() as connection:
            names = keys.origins(connection)
            last = checkpoint_rows.last(connection, names[-1].name) if names else []
            newest = last[0] if last else None
            check_head(connection, head, newest)
            size = size_of(connection)
            _check_own(connection, newest, Frontier(size, GrowingTiles(connection, size).frontier()))
            _check_last_entry(connection, size)
            if newest is not None:
                _check_note(connection, newest)

    @retried
    def sign(
        self,
        is_public: IsPublic,
        *,
        now: int,
        fence: Fence | None,
        head: Head | None = None,
        limit: int = _BATCH,
    ) -> StoredCheckpoint | None:
        """Append at most ``limit`` entries of the journal, and sign; return the new checkpoint, None if there
        was nothing to sign.

        ``head`` is what was signed last, as was noted elsewhere. Raises :class:`LogContradicted` if the
        catalog's log does not continue it, or its own last checkpoint, or if an entry of the journal is
        missing, and :class:`LogDamaged`.
        """
        while True:
            # All that takes time is done before the write lock is taken: pushes wait for that.
            with self._database.read() as connection:
                plan = _planned(connection, is_public, head, limit)
            if plan is None:
                return None
            with self._database.write() as connection:
                if fence is not None:
                    fence.require_held(connection)
                if _begun(connection) != plan.begun:
                    continue  # the log was begun under another name meanwhile
                checkpoint = plan.checkpoint
                signers = _signers(connection, checkpoint.origin, now)
                if plan.leaves:
                    connection.execute(insert(log_entries), plan.leaves)
                plan.tiles.write(connection)
                return checkpoint_rows.add(connection, checkpoint, checkpoint.sign(signers), now=now)

    def thinning(self) -> CheckpointThinning:
        """Return what removes old checkpoints."""
        return CheckpointThinning(self._database)

    def of_nothing(self, *, now: int) -> StoredCheckpoint:
        """Return the checkpoint of the log without entries, which every other continues; it is not stored."""
        with self._database.read() as connection:
            origin = keys.origins(connection)[-1].name
            checkpoint = Checkpoint(origin, 0, EMPTY_ROOT)
            return StoredCheckpoint(
                checkpoint, str(checkpoint.sign(_signers(connection, origin, now))), "", now
            )

    @retried
    def cosign(self, origin: str, size: int, signatures: Sequence[Signature], *, fence: Fence | None) -> None:
        """Add the cosignatures of a checkpoint by witnesses."""
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            checkpoint_rows.cosign(connection, origin, size, signatures)

    @retried
    def rotate(self, *, witness: str | None = None, now: int, overlap: int) -> SignerKey:
        """Replace the key of the log, or the one of this registry as a ``witness`` of that name; return the
        new one.

        The log's older keys sign for ``overlap`` microseconds more. Raises :class:`NotFound` without a log.
        """
        with self._database.write() as connection:
            if witness is not None:
                return keys.rotate(connection, witness, COSIGNATURE, now=now, overlap=0)
            found = keys.origins(connection)
            if not found:
                raise NotFound("the log of this registry was not begun yet", hint="serve the registry once")
            return keys.rotate(connection, found[-1].name, ED25519, now=now, overlap=overlap)

    @retried
    def begin_again(self, name: str, *, now: int, reason: str) -> keys.Origin:
        """Sign the log under another name from now on. Raises :class:`Conflict` for one that it had."""
        with self._database.write() as connection:
            return keys.begin(connection, name, now=now, reason=reason)

    def witness_keys(self, name: str) -> list[keys.StoredKey]:
        """Return the keys with which this registry is, or was, a witness of that name, the newest first."""
        with self._database.read() as connection:
            return keys.keys_of(connection, name, COSIGNATURE)


def check_head(connection: Connection, head: Head | None, last: StoredCheckpoint | None) -> None:
    """Raise :class:`LogContradicted` unless the catalog's log continues the one that was signed up to
    ``head``. ``last`` is the catalog's own last checkpoint of the log in force."""
    if head is None:
        return
    names = [origin.name for origin in keys.origins(connection)]
    if head.origin not in names:
        raise LogContradicted(f"the log was signed as {head.origin}, which this catalog does not know")
    size = size_of(connection)
    if head.origin == names[-1] and (last is None or last.checkpoint.size < head.size):
        have = 0 if last is None else last.checkpoint.size
        raise LogContradicted(
            f"the log {head.origin} was signed with {head.size} entries, and this catalog has signed {have}"
        )
    if size < head.size:
        if head.origin == names[-1]:
            raise LogContradicted(f"the log {head.origin} was signed with {head.size} entries, not {size}")
        return  # it was begun anew because entries were lost
    if last is not None and head == Head(last.checkpoint.origin, last.checkpoint.size, last.checkpoint.root):
        return  # the leaves are compared with that
    if head.origin == names[-1] and root_from(head.size, TableReader(connection, size)) != head.root:
        raise LogContradicted(
            f"the log {head.origin} was signed with other entries than this catalog has among the first"
            f" {head.size}"
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be written: the new leaves, the tiles that they fill, and the checkpoint over them.

    ``begun`` is the state of the log that it continues.
    """

    begun: tuple[str, int, StoredCheckpoint | None]
    leaves: list[dict[str, Any]]
    tiles: GrowingTiles
    checkpoint: Checkpoint


def _begun(connection: Connection) -> tuple[str, int, StoredCheckpoint | None]:
    """Return the log's name, its size and its last checkpoint without the cosignatures."""
    origin = keys.origins(connection)[-1].name
    last = next(iter(checkpoint_rows.last(connection, origin)), None)
    return origin, size_of(connection), None if last is None else replace(last, cosignatures="")


def _planned(connection: Connection, is_public: IsPublic, head: Head | None, limit: int) -> _Plan | None:
    """Return what is to be signed next; None if nothing is. Raises as :meth:`LogSigner.sign` does."""
    begun = origin, size, last = _begun(connection)
    check_head(connection, head, last)
    tiles = GrowingTiles(connection, size)
    tree = Frontier(size, tiles.frontier())
    _check_own(connection, last, tree)
    _check_last_entry(connection, size)
    rows = _new_rows(connection, size, limit)
    if not rows and last is not None and last.checkpoint.size == size:
        return None
    leaves = [_leaf(row, is_public) for row in rows]
    for leaf in leaves:
        tree.append(leaf["hash"])
        tiles.append(leaf["hash"])
    return _Plan(begun, leaves, tiles, Checkpoint(origin, tree.size, tree.root()))


def _signers(connection: Connection, origin: str, now: int) -> list[SignerKey]:
    found = [key.signer for key in keys.keys_of(connection, origin, ED25519) if key.signs(now)]
    if not found:
        raise LogDamaged(f"the log {origin} has no key that signs")
    return found


def _check_own(connection: Connection, last: StoredCheckpoint | None, tree: Frontier) -> None:
    if last is None:
        return
    signed, size = last.checkpoint, tree.size
    if signed.size == size:
        root = tree.root()
    elif signed.size < size:
        root = root_from(signed.size, TableReader(connection, size))
    else:
        raise LogContradicted(
            f"the log {signed.origin} was signed with {signed.size} entries, and the catalog has {size}"
        )
    if root != signed.root:
        raise LogContradicted(
            f"the leaves in the catalog are not those of the log {signed.origin} that was signed with"
            f" {signed.size} entries: rows of the log were changed"
        )


def _check_last_entry(connection: Connection, size: int) -> None:
    """Raise :class:`LogContradicted` unless the journal has the last entry that is in the log.

    Where it was removed, the next entry gets its position, and would never be logged.
    """
    if not size:
        return
    query = (
        select(log_entries.c.hash.label("leaf_hash"), log_entries.c.secret, log_entries.c.sealed, journal)
        .join_from(log_entries, journal, log_entries.c.sequence == journal.c.sequence)
        .where(log_entries.c.sequence == size)
    )
    row = connection.execute(query).first()
    if row is None or not audit.is_signed(row):
        what = "is missing" if row is None else "is not the one that was signed"
        raise LogContradicted(f"journal entry {size}, the last one in the log, {what}")


def _check_note(connection: Connection, last: StoredCheckpoint) -> None:
    """Raise :class:`LogDamaged` unless the note of the last checkpoint is the one that was signed."""
    origin = last.checkpoint.origin
    known = keys.verifiers(connection, origin)
    if not known:
        raise LogDamaged(f"the log {origin} has no key in the catalog")
    what = f"the last checkpoint of {origin} in the catalog is damaged"
    try:
        signed = open_checkpoint(last.note.encode(), origin, known)
    except InvalidNote as error:
        raise LogDamaged(f"{what}: {error.message}") from error
    if signed.checkpoint != last.checkpoint:
        raise LogDamaged(f"{what}: its note says {signed.checkpoint.size} entries, or another root")


def _newest_of_size(connection: Connection, origin: str, size: int) -> bool:
    return checkpoint_rows.of_size(connection, origin, size) is not None


def _new_rows(connection: Connection, size: int, limit: int) -> Sequence[Row[Any]]:
    query = select(journal).where(journal.c.sequence > size).order_by(journal.c.sequence).limit(limit)
    rows = connection.execute(query).all()
    for number, row in enumerate(rows, size + 1):
        if row.sequence != number:
            raise LogContradicted(
                f"journal entry {number} is missing: {row.sequence} comes next; the log takes no entries"
                " until it is there"
            )
    return rows


def _leaf(row: Row[Any], is_public: IsPublic) -> dict[str, Any]:
    secret, sealed = os.urandom(SECRET_SIZE), not is_public(row.repository)
    leaf = make_leaf(to_event(row._asdict()), secret, sealed=sealed)
    return {
        "sequence": row.sequence,
        "hash": leaf_hash(leaf.content),
        "secret": secret,
        "sealed": sealed,
    }
