"""The graph of indexes, manifests and configs around many digests of many repositories, in few statements.

Functions and a class on a transaction. A key is a pair of the repository's row and a text. The number of rows
is bounded: :class:`TooMuch` is raised if there are more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import Column, Connection, Row, Select, select

from digestry.catalog import dialect
from digestry.catalog.schema import manifest_references, manifests
from digestry.model.digest import Digest
from digestry.model.history import Holder

Key: TypeAlias = tuple[int, str]

MOST_ROWS: Final = 20_000
"""Of one question and kind."""

_ROUNDS: Final = 64
_DEPTH: Final = 3  # an index, its children, their configs


class TooMuch(Exception):
    """A bound was exceeded: fewer keys must be read together."""


def rows_of(
    connection: Connection,
    columns: Select[Any],
    repository: Column[Any],
    key: Column[Any],
    keys: Iterable[Key],
) -> Sequence[Row[Any]]:
    """Return the rows of the table of ``repository`` and ``key`` where those two are one of ``keys``.

    Raises :class:`TooMuch`.
    """
    wanted = dialect.of(connection).bulk_keys(sorted(keys), int)
    here = (repository == wanted.first) & (key == wanted.second)
    statement = columns.join_from(wanted.table, repository.table, here)
    rows = connection.execute(statement.limit(MOST_ROWS + 1)).all()
    if len(rows) > MOST_ROWS:
        raise TooMuch
    return rows


def nodes_of(connection: Connection, key: Column[Any], keys: Iterable[Key]) -> Sequence[Row[Any]]:
    """Return the manifests whose column ``key`` is one of ``keys``, deleted ones included: rows with
    repository_id, digest, media_type, size, config, deleted_at. Raises :class:`TooMuch`."""
    return rows_of(connection, _NODES, manifests.c.repository_id, key, keys)


class Relations:
    """The part of the repositories' graphs, index → manifest → config, around some digests."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._nodes: dict[Key, Row[Any]] = {}
        self._direct: dict[Key, set[str]] = {}
        self._parents: dict[Key, set[str]] = {}
        self._children: dict[Key, list[str]] = {}

    # -- reading -------------------------------------------------------------------------------

    def read(self, keys: Iterable[Key]) -> None:
        """Read what holds each of ``keys``, the children of each, their configs, and what else holds those.

        Raises :class:`TooMuch`.
        """
        pending = set(keys)
        for _ in range(_DEPTH):
            self._read_direct(pending)
            self._read_parents({(row, holder) for row, key in pending for holder in self._direct[row, key]})
            further = {(row, inside) for row, key in pending for inside in self.inside(row, key)}
            pending = further - self._direct.keys()
            if not pending:
                return

    def _read_direct(self, keys: set[Key]) -> None:
        """Return the manifests that are, or have as their config, one of ``keys``."""
        for key in keys:
            self._direct[key] = set()
        for column in (manifests.c.digest, manifests.c.config):
            fresh = set()
            for row in nodes_of(self._connection, column, keys):
                mine = (row.repository_id, row.digest)
                key = row.digest if column is manifests.c.digest else row.config
                self._direct[row.repository_id, key].add(row.digest)
                if mine not in self._nodes:
                    self._nodes[mine] = row
                    fresh.add(mine)
            self._read_children(fresh)

    def _read_parents(self, frontier: set[Key]) -> None:
        """Return the indexes that list one of ``frontier``, and those that list these, and so on."""
        for _ in range(_ROUNDS):
            frontier = frontier - self._parents.keys()
            if not frontier:
                return
            for key in frontier:
                self._parents[key] = set()
            found = set()
            for row in self._listed(manifest_references.c.child, frontier):
                self._parents[row.repository_id, row.child].add(row.parent)
                found.add((row.repository_id, row.parent))
            fresh = found - self._nodes.keys()
            for row in nodes_of(self._connection, manifests.c.digest, fresh):
                self._nodes[row.repository_id, row.digest] = row
            self._read_children(fresh)
            if len(self._nodes) > MOST_ROWS:
                raise TooMuch
            frontier = found

    def _read_children(self, keys: Iterable[Key]) -> None:
        indexes = [key for key in keys if key in self._nodes and self._nodes[key].config is None]
        for row in self._listed(manifest_references.c.parent, indexes):
            self._children.setdefault((row.repository_id, row.parent), []).append(row.child)

    def _listed(self, column: Column[Any], keys: Iterable[Key]) -> Sequence[Row[Any]]:
        return rows_of(self._connection, _LISTED, manifest_references.c.repository_id, column, keys)

    # -- telling -------------------------------------------------------------------------------

    @property
    def nodes(self) -> KeysView[Key]:
        """Every manifest and index that was read."""
        return self._nodes.keys()

    def node(self, repository: int, digest: str) -> Row[Any] | None:
        """Return the manifest's row, as :func:`nodes_of` has it; None if there is none."""
        return self._nodes.get((repository, digest))

    def is_image(self, repository: int, digest: str) -> bool:
        """Return whether ``digest`` is a manifest that was read and is no index."""
        return self.config_of(repository, digest) is not None

    def config_of(self, repository: int, digest: str) -> str | None:
        """Return the config of a manifest that was read; None for an index."""
        node = self.node(repository, digest)
        config: str | None = None if node is None else node.config
        return config

    def looked_at(self, repository: int, digest: str) -> bool:
        """Return whether the holders of ``digest`` are known."""
        return (repository, digest) in self._direct

    def inside(self, repository: int, digest: str) -> Iterator[str]:
        """Yield an index's children, and a manifest's config."""
        node = self.node(repository, digest)
        if node is None:
            return
        yield from self._children.get((repository, digest), ())
        if node.config is not None:
            yield node.config

    def holding(self, repository: int, digest: str) -> set[str]:
        """Return all nodes that are or hold ``digest``, which was looked at."""
        found = set(self._direct[repository, digest])
        frontier = list(found)
        while frontier:
            for parent in self._parents.get((repository, frontier.pop()), ()):
                if parent not in found:
                    found.add(parent)
                    frontier.append(parent)
        return found

    def holder(self, repository: int, digest: str) -> Holder:
        """Return a node, as an answer has it."""
        node = self._nodes[repository, digest]
        return Holder(
            digest=Digest.parse(digest),
            media_type=node.media_type,
            size=node.size,
            present=node.deleted_at is None,
            config=None if node.config is None else Digest.parse(node.config),
            manifests=tuple(sorted(map(Digest.parse, self._children.get((repository, digest), ())))),
        )


_NODES: Final = select(
    manifests.c.repository_id,
    manifests.c.digest,
    manifests.c.media_type,
    manifests.c.size,
    manifests.c.config,
    manifests.c.deleted_at,
)
_LISTED: Final = select(
    manifest_references.c.repository_id, manifest_references.c.parent, manifest_references.c.child
).where(manifest_references.c.role == "manifest")
