"""Bulk resolution: answer queries about many digests and tags of many repositories in few statements.

These are functions on a transaction, for ``catalog.py``. A repository's digest or tag is a pair of the
repository's row and a text. The amount that is read is bounded: the answer leaves out what exceeds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, select

from digestry.catalog import dialect, image_parts, journal, manifest_rows, tag_history
from digestry.catalog.image_graph import MOST_ROWS, Key, Relations, TooMuch, nodes_of, rows_of
from digestry.catalog.image_parts import Referrer, Visible
from digestry.catalog.schema import links, manifest_references, manifests, repositories, tags
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.history import TagEvent, TagSpan
from digestry.model.image_parts import LayerImage, PartReferrers
from digestry.model.resolution import MOST_EVENTS, MOST_SPANS, Resolution, ResolveQuery, TagState

_BATCH: Final = 400  # queries that are answered together
_MOST_BYTES: Final = 8 << 20  # of annotations, and about so many of an answer
_MOST_REFERRERS: Final = 500  # of one manifest; a client that needs more sends a query for that alone
_MOST_BASES: Final = 50  # layers whose base images are searched
_NODE_BYTES: Final = 400
_EVENT_BYTES: Final = 350
_SPAN_BYTES: Final = 250
_MOST_PREFIXED: Final = 3
_ALGORITHMS: Final = ("sha256", "sha512")


@dataclass(frozen=True, slots=True)
class Piece:
    """Content that may be sent along: its digest, and its size in bytes."""

    digest: Digest
    size: int


@dataclass(slots=True)
class Found:
    """The answers to the first queries, and the contents that go with them."""

    resolutions: list[Resolution] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)


def resolve(
    connection: Connection, queries: Sequence[ResolveQuery], *, contents: bool, visible: Visible
) -> Found:
    """Answer as many of the first ``queries`` as fit into one response, at least one. Referrers of layers and
    configs are those of all repositories that are ``visible``."""
    result = Found()
    left = _MOST_BYTES
    position = 0
    size = _BATCH
    while position < len(queries) and left > 0:
        some = queries[position : position + size]
        batch = _Batch(connection, some, visible)
        try:
            resolutions = batch.resolve()
        except TooMuch:
            if len(some) > 1:
                size = max(1, len(some) // 2)
                continue
            resolutions = [Resolution(some[0].repository)]
            batch = _Batch(connection, (), visible)
            left -= _MOST_BYTES // 4  # looked at for nothing: no request has that done any number of times
        result.resolutions += resolutions
        if contents:
            result.pieces += batch.pieces()
        left -= batch.bytes_read
        position += len(some)
    return result


class _Batch:
    """Some queries that are resolved together."""

    def __init__(self, connection: Connection, queries: Sequence[ResolveQuery], visible: Visible) -> None:
        self._connection = connection
        self._visible = visible
        self._queries = queries
        self._ids: dict[str, int] = {}
        self._relations = Relations(connection)
        self._targets: dict[Key, Descriptor] = {}
        self._prefixed: dict[Key, tuple[str, ...]] = {}
        self._referrers: dict[Key, list[Descriptor]] = {}
        self._events: dict[tuple[str, str], list[TagEvent]] = {}
        self._spans: dict[tuple[str, str], list[TagSpan]] | None = {}
        self._requested: set[Key] = set()
        self._parts: dict[Key, list[str]] = {}
        self._part_referrers: dict[str, list[Referrer]] = {}
        self._bases: dict[str, LayerImage] = {}
        self.bytes_read = 0

    def resolve(self) -> list[Resolution]:
        """Return one resolution for each query. Raises :class:`TooMuch`."""
        names = list(dict.fromkeys(query.repository for query in self._queries))
        by_name = select(repositories.c.name, repositories.c.id).where(repositories.c.name.in_(names))
        self._ids = {row.name: row.id for row in self._connection.execute(by_name)}
        known = [
            (self._ids[query.repository], query) for query in self._queries if query.repository in self._ids
        ]
        self._read_tags([(row, tag) for row, query in known for tag in query.tags])
        for row, query in known:
            for prefix in query.prefixes:
                self._prefixed[row, prefix] = self._beginning_with(row, prefix)
        self._requested = {(row, str(digest)) for row, query in known for digest in query.digests}
        self._requested |= {(row, str(target.digest)) for (row, _), target in self._targets.items()}
        self._requested |= {(row, found) for (row, _), some in self._prefixed.items() for found in some}
        self._relations.read(self._requested)
        self._read_referrers(self._relations.nodes | self._requested)
        self._read_parts()
        self._read_events()
        self._read_spans()
        return [self._resolution(query) for query in self._queries]

    # -- reading -------------------------------------------------------------------------------

    def _read_tags(self, keys: Iterable[Key]) -> None:
        columns = select(tags.c.repository_id, tags.c.name, tags.c.digest)
        pointing = {
            (row.repository_id, row.name): row.digest
            for row in rows_of(self._connection, columns, tags.c.repository_id, tags.c.name, keys)
        }
        wanted = {(row, digest) for (row, _), digest in pointing.items()}
        found = {
            (node.repository_id, node.digest): node
            for node in nodes_of(self._connection, manifests.c.digest, wanted)
            if node.deleted_at is None
        }
        for (row, tag), digest in pointing.items():
            node = found.get((row, digest))
            if node is not None:
                self._targets[row, tag] = Descriptor(node.media_type, Digest.parse(digest), node.size)

    def _beginning_with(self, repository: int, prefix: str) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for column in (manifests.c.digest, manifests.c.config):
            for algorithm in _ALGORITHMS:
                start = f"{algorithm}:{prefix}"
                query = (
                    select(column)
                    .distinct()
                    .where(manifests.c.repository_id == repository, column >= start, column < f"{start}g")
                    .limit(_MOST_PREFIXED)
                )
                found.update(dict.fromkeys(self._connection.execute(query).scalars()))
        return tuple(found)[:_MOST_PREFIXED]

    def _read_referrers(self, nodes: Iterable[Key]) -> None:
        subjects = list(nodes)
        self._referrers = {key: [] for key in subjects}
        newest_first = (
            select(manifests.c.repository_id, manifests.c.subject, manifests.c.digest, manifests.c.size)
            .where(manifests.c.deleted_at.is_(None))
            .order_by(manifests.c.pushed_at.desc(), manifests.c.digest)
        )
        here = (manifests.c.repository_id, manifests.c.subject)
        listed: list[tuple[Key, int]] = []
        for row in rows_of(self._connection, newest_first, *here, subjects):
            self._count(_NODE_BYTES)
            listed.append(((row.repository_id, row.digest), row.size))
        for row in manifest_rows.rows_in_order(self._connection, listed):
            self._count(len(row.annotations))
            self._referrers[row.repository_id, row.subject].append(_descriptor(row))

    def _count(self, read: int) -> None:
        """Count bytes that an answer has room for. Raises :class:`TooMuch`."""
        self.bytes_read += read
        if self.bytes_read > _MOST_BYTES:
            raise TooMuch

    def _read_parts(self) -> None:
        """Read which layers and configs of the images have referrers, those, and the layers' base images."""
        images = [key for key in self._relations.nodes if self._relations.is_image(*key)]
        self._parts = image_parts.parts_with_referrers(self._connection, images)
        parts = {part for some in self._parts.values() for part in some}
        for referrer in image_parts.referrers_of(self._connection, parts, self._visible):
            self._part_referrers.setdefault(referrer.part, []).append(referrer)
        configs = {self._relations.config_of(*key) for key in images}
        layers = [
            part
            for part, referrers in sorted(self._part_referrers.items())
            if part not in configs and any(_may_be_openvex(_descriptor(one.row)) for one in referrers)
        ]
        for layer in layers[:_MOST_BASES]:
            base = image_parts.base_with(self._connection, layer, self._visible)
            if base is not None:
                self._bases[layer] = base

    def _read_events(self) -> None:
        wanted = {(query.repository, tag) for query in self._queries for tag in query.tags}
        for event in journal.newest(self._connection, sorted(wanted), MOST_EVENTS + 1):
            self.bytes_read += _EVENT_BYTES
            self._events.setdefault((event.repository, event.tag), []).append(event)

    def _read_spans(self) -> None:
        """Read when tags pointed to each node; None if that is more than an answer has room for."""
        names = {row: name for name, row in self._ids.items()}
        wanted = {(names[row], digest) for row, digest in self._relations.nodes}
        found = tag_history.newest_pointing(self._connection, sorted(wanted), MOST_SPANS + 1, MOST_ROWS + 1)
        if len(found) > MOST_ROWS:
            if len(self._queries) > 1:
                raise TooMuch
            self._spans = None
            return
        spans: dict[tuple[str, str], list[TagSpan]] = {}
        for repository, span in found:
            spans.setdefault((repository, str(span.digest)), []).append(span)
        self.bytes_read += _SPAN_BYTES * len(found)
        self._spans = spans

    def pieces(self) -> list[Piece]:
        """Return the requested indexes, and the manifests and layers of OpenVEX referrers."""
        wanted = {
            (row, str(referrer.digest)): referrer.size
            for (row, _), referrers in self._referrers.items()
            for referrer in referrers
            if _may_be_openvex(referrer)
        }
        wanted |= {
            (referrer.row.repository_id, referrer.row.digest): referrer.row.size
            for referrers in self._part_referrers.values()
            for referrer in referrers
            if _may_be_openvex(_descriptor(referrer.row))
        }
        keys = dialect.of(self._connection).bulk_keys(sorted(wanted), int)
        of_wanted = (
            (manifest_references.c.repository_id == keys.first)
            & (manifest_references.c.parent == keys.second)
            & (manifest_references.c.role == "layer")
        )
        # Joined with the link: a repository serves only what was pushed to it.
        linked = (links.c.repository_id == manifest_references.c.repository_id) & (
            links.c.digest == manifest_references.c.child
        )
        layers = (
            select(links.c.digest, links.c.size)
            .join_from(keys.table, manifest_references, of_wanted)
            .join(links, linked)
            .limit(MOST_ROWS)
        )
        found = {digest: size for (_, digest), size in wanted.items()}
        found |= {row.digest: row.size for row in self._connection.execute(layers)}
        for key in self._requested:
            node = self._relations.node(*key)
            if node is not None and node.config is None and node.deleted_at is None:
                found[node.digest] = node.size
        return [Piece(Digest.parse(digest), size) for digest, size in found.items()]

    # -- resolving -----------------------------------------------------------------------------

    def _resolution(self, query: ResolveQuery) -> Resolution:
        row = self._ids.get(query.repository)
        if row is None:
            # Missing content has no holders, but its tags may have a history.
            none: dict[str, tuple[Any, ...]] = {str(digest): () for digest in query.digests}
            return Resolution(
                query.repository,
                holders=none,
                tags=tuple(self._tag_state(query.repository, None, tag) for tag in query.tags),
                referrers=dict(none),
                prefixes=dict.fromkeys(query.prefixes, ()),
            )
        states = tuple(self._tag_state(query.repository, row, tag) for tag in query.tags)
        starts = [str(digest) for digest in query.digests]
        starts += [str(state.target.digest) for state in states if state.target is not None]
        starts += [found for prefix in query.prefixes for found in self._prefixed[row, prefix]]
        holders: dict[str, tuple[Digest, ...]] = {}
        inside: set[str] = set()
        pending = list(dict.fromkeys(starts))
        for digest in pending:  # grows while it is walked
            if digest in holders or not self._relations.looked_at(row, digest):
                continue
            closure = self._relations.holding(row, digest)
            inside |= closure
            holders[digest] = tuple(Digest.parse(member) for member in sorted(closure))
            pending += self._relations.inside(row, digest)
        self.bytes_read += _NODE_BYTES * (len(inside) + len(holders))
        return Resolution(
            query.repository,
            nodes=tuple(self._relations.holder(row, digest) for digest in sorted(inside)),
            holders=holders,
            tags=states,
            referrers={
                digest: tuple(found)
                for digest in sorted(inside.union(starts))
                if len(found := self._referrers.get((row, digest), [])) <= _MOST_REFERRERS
            },
            prefixes={
                prefix: tuple(Digest.parse(found) for found in self._prefixed[row, prefix])
                for prefix in query.prefixes
            },
            spans=self._spans_of(query.repository, inside),
            **self._parts_of(row, inside),
        )

    def _parts_of(self, row: int, nodes: Iterable[str]) -> dict[str, Any]:
        """Return the fields of an answer about the parts of the images among ``nodes``."""
        parts = {
            digest: tuple(part for part in self._parts[row, digest] if part in self._part_referrers)
            for digest in sorted(nodes)
            if (row, digest) in self._parts
        }
        named = sorted({part for some in parts.values() for part in some})
        self.bytes_read += _NODE_BYTES * len(parts)
        return {
            "parts": {digest: tuple(map(Digest.parse, some)) for digest, some in parts.items()},
            "part_referrers": tuple(found for part in named for found in self._referrers_of(part)),
            "bases": {part: self._bases[part] for part in named if part in self._bases},
        }

    def _referrers_of(self, part: str) -> Iterator[PartReferrers]:
        by_repository: dict[str, list[Descriptor]] = {}
        for referrer in self._part_referrers[part]:
            self.bytes_read += len(referrer.row.annotations) + _NODE_BYTES
            by_repository.setdefault(referrer.repository, []).append(_descriptor(referrer.row))
        for name, descriptors in sorted(by_repository.items()):
            yield PartReferrers(Digest.parse(part), name, tuple(descriptors))

    def _spans_of(self, repository: str, digests: Iterable[str]) -> dict[str, tuple[TagSpan, ...]]:
        if self._spans is None:
            return {}
        return {
            digest: tuple(
                msgspec.structs.replace(span, media_type="", size=0, sequence=None) for span in found
            )
            for digest in sorted(digests)
            if len(found := self._spans.get((repository, digest), [])) <= MOST_SPANS
        }

    def _tag_state(self, repository: str, row: int | None, tag: str) -> TagState:
        events = self._events.get((repository, tag), [])
        shown = [
            msgspec.structs.replace(
                event,
                number=None,
                sequence=None,
                address="",
                client="",
                hash="",
                previous_hash="",
                reason=None,
            )
            for event in islice(events, MOST_EVENTS)
        ]
        target = None if row is None else self._targets.get((row, tag))
        return TagState(tag, target, tuple(shown), more=len(events) > MOST_EVENTS)


def _descriptor(row: Row[Any]) -> Descriptor:
    stored = manifest_rows.to_stored(row)
    return Descriptor(
        stored.media_type,
        stored.digest,
        stored.size,
        annotations=stored.annotations or None,
        artifact_type=stored.artifact_type,
    )


def _may_be_openvex(referrer: Descriptor) -> bool:
    annotations = referrer.annotations or {}
    names = media_types.PREDICATE_TYPE, media_types.BUNDLE_PREDICATE_TYPE
    announced = next((annotations[name] for name in names if name in annotations), None)
    if announced is None:
        return referrer.artifact_type == media_types.IN_TOTO
    return announced.startswith(media_types.OPENVEX)
