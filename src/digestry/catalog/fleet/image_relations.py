"""What the registry's own graph knows of images that agents reported: indexes, configs and layers.

Functions on a transaction. Deleted manifests count too: their images may still run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from sqlalchemy import Connection, bindparam, func, select, update

from digestry.catalog import dialect
from digestry.catalog.fleet.images import add_digests, claims_of, decode
from digestry.catalog.fleet_schema import fleet_image_digests, fleet_images
from digestry.catalog.schema import links, manifest_references, manifests, repositories
from digestry.model import media_types
from digestry.model.fleet import ImageReport
from digestry.model.platform import Platform

ChooseChild: TypeAlias = Callable[[str, Platform], str | None]
"""Returns which manifest of an index is a platform's; None if that is not known."""

_BATCH: Final = 100
_RELATED: Final = (
    update(fleet_images)
    .where(fleet_images.c.number == bindparam("image"))
    .values(home=bindparam("found_home"), kind=bindparam("found_kind"), related_at=bindparam("at"))
)


def no_child(index: str, platform: Platform) -> None:
    """Return that it is not known which manifest of an index is a platform's."""
    return


def relate_images(
    connection: Connection, numbers: Sequence[int], now: int, choose: ChooseChild = no_child
) -> int:
    """Look up images in the registry's graph, and record what it knows; return how many it knows.

    ``choose`` is called for indexes of which nothing else says which manifest runs.
    """
    known = 0
    for start in range(0, len(numbers), _BATCH):
        chosen = fleet_images.c.number.in_(numbers[start : start + _BATCH])
        rows = connection.execute(select(fleet_images).where(chosen).order_by(fleet_images.c.number)).all()
        reports = {row.number: decode(row.document) for row in rows}
        graph = _Graph(connection, {str(c.digest) for report in reports.values() for c in claims_of(report)})
        homes = _homes(connection, graph, [(row.number, row.host, row.repository) for row in rows], reports)
        found = {number: graph.around(report, choose) for number, report in reports.items()}
        _add_new(connection, found)
        changes = [
            {
                "image": row.number,
                "found_home": homes.get(row.number, row.home),
                "found_kind": found[row.number].get(row.digest, row.kind),
                "at": now,
            }
            for row in rows
        ]
        if changes:
            connection.execute(_RELATED, changes)
        known += sum(1 for digests in found.values() if digests)
    return known


def _add_new(connection: Connection, found: Mapping[int, Mapping[str, str]]) -> None:
    there: dict[int, dict[str, str]] = defaultdict(dict)
    rows = select(fleet_image_digests).where(fleet_image_digests.c.image.in_(sorted(found)))
    for row in connection.execute(rows):
        there[row.image][row.digest] = row.kind
    new = {
        number: {digest: kind for digest, kind in digests.items() if there[number].get(digest) != kind}
        for number, digests in found.items()
    }
    add_digests(connection, {number: digests for number, digests in new.items() if digests})


def _homes(
    connection: Connection,
    graph: _Graph,
    named: Iterable[tuple[int, str, str]],
    reports: Mapping[int, ImageReport],
) -> dict[int, str]:
    """Return which repositories of this registry have or had images by their own names.

    A mirrored repository may have its registry's host in its name.
    """
    pairs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, host, repository in named:
        if not repository:
            continue
        for digest in {str(claim.digest) for claim in claims_of(reports[number])}:
            for manifest in graph.manifests_of(digest):
                pairs[f"{host}/{repository}", manifest].append(number)
                pairs[repository, manifest].append(number)
    keys = dialect.of(connection).bulk_keys(sorted(pairs), str)
    query = (
        select(keys.first.label("name"), keys.second.label("digest"))
        .select_from(keys.table)
        .join(repositories, repositories.c.name == keys.first)
        .join(
            manifests,
            (manifests.c.repository_id == repositories.c.id) & (manifests.c.digest == keys.second),
        )
    )
    found: dict[int, str] = {}
    for row in connection.execute(query) if pairs else ():
        for number in pairs[row.name, row.digest]:
            # The shorter one is the registry's own.
            if number not in found or len(row.name) < len(found[number]):
                found[number] = row.name
    return found


@dataclass(frozen=True, slots=True)
class _Node:
    """A manifest or index, in any one of the repositories that have it."""

    repository: int
    digest: str
    kind: str
    config: str | None


@dataclass(slots=True)
class _Graph:
    """The part of the graph around some digests: what they are, what lists them, and what they list."""

    connection: Connection
    digests: set[str]
    nodes: dict[str, _Node] = field(default_factory=dict)
    by_config: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    children: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    parents: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    layers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._read_nodes(self.digests)
        self._read_by_config(self.digests - self.nodes.keys())
        self._read_lists(list(self.nodes.values()))
        self._read_nodes({child for listed in self.children.values() for child in listed} - self.nodes.keys())
        images = [node for node in self.nodes.values() if node.kind == "manifest"]
        for parent, child in self._references(images, "child", "manifest"):
            self.parents[child].add(parent)
        for parent, child in self._references(images, "parent", "layer"):
            self.layers[parent].append(child)

    def manifests_of(self, digest: str) -> Iterator[str]:
        """Yield the manifests and indexes that ``digest`` is, or is the config of."""
        if digest in self.nodes:
            yield digest
        yield from self.by_config.get(digest, ())

    def around(self, report: ImageReport, choose: ChooseChild) -> dict[str, str]:
        """Return all digests of an image with their kinds, as far as the registry knows them."""
        claimed = {str(claim.digest) for claim in claims_of(report)}
        found: dict[str, str] = {}
        running = set()
        for digest in claimed:
            for manifest in self.manifests_of(digest):
                if self.nodes[manifest].kind == "index":
                    found[manifest] = "index"
                else:
                    running.add(manifest)
        for index in [digest for digest, kind in found.items() if kind == "index"]:
            if not running & set(self.children[index]):
                running |= self._running_child(index, claimed, report, choose)
        for manifest in running:
            node = self.nodes[manifest]
            found[manifest] = "manifest"
            found |= dict.fromkeys(self.parents[manifest], "index")
            found |= dict.fromkeys(self.layers[manifest], "layer")
            if node.config is not None:
                found[node.config] = "config"
        return found

    def _running_child(
        self, index: str, claimed: set[str], report: ImageReport, choose: ChooseChild
    ) -> set[str]:
        images = [
            child
            for child in self.children[index]
            if child in self.nodes and self.nodes[child].kind == "manifest"
        ]
        by_config = {child for child in images if self.nodes[child].config in claimed}
        if by_config or len(images) == 1:
            return by_config or set(images)
        if report.platform is None or report.platform_assumed:
            return set()
        chosen = choose(index, report.platform)
        return {chosen} & set(images) if chosen is not None else set()

    def _read_nodes(self, digests: Iterable[str]) -> None:
        keys = dialect.of(self.connection).bulk_keys([(digest, "") for digest in sorted(digests)], str)
        # Content is the same in each repository: any of them will do.
        query = (
            select(
                func.min(manifests.c.repository_id).label("repository"),
                manifests.c.digest,
                func.min(manifests.c.media_type).label("media_type"),
                func.min(manifests.c.config).label("config"),
            )
            .join_from(keys.table, manifests, manifests.c.digest == keys.first)
            .group_by(manifests.c.digest)
        )
        for row in self.connection.execute(query):
            kind = "index" if row.media_type in media_types.INDEXES else "manifest"
            self.nodes[row.digest] = _Node(row.repository, row.digest, kind, row.config)

    def _read_by_config(self, digests: Iterable[str]) -> None:
        """Read the manifests whose configs are among ``digests``, in the repositories that have those."""
        keys = dialect.of(self.connection).bulk_keys([(digest, "") for digest in sorted(digests)], str)
        query = (
            select(manifests.c.digest, manifests.c.config)
            .join_from(keys.table, links, links.c.digest == keys.first)
            .join(
                manifests,
                (manifests.c.repository_id == links.c.repository_id) & (manifests.c.config == links.c.digest),
            )
            .distinct()
        )
        for row in self.connection.execute(query):
            self.by_config[row.config].add(row.digest)
        self._read_nodes({digest for found in self.by_config.values() for digest in found})

    def _read_lists(self, nodes: Sequence[_Node]) -> None:
        indexes = [node for node in nodes if node.kind == "index"]
        for parent, child in self._references(indexes, "parent", "manifest"):
            self.children[parent].append(child)

    def _references(self, nodes: Sequence[_Node], column: str, role: str) -> list[tuple[str, str]]:
        if not nodes:
            return []
        keys = dialect.of(self.connection).bulk_keys(
            sorted({(node.repository, node.digest) for node in nodes}), int
        )
        here = (
            (manifest_references.c.repository_id == keys.first)
            & (manifest_references.c[column] == keys.second)
            & (manifest_references.c.role == role)
        )
        query = select(manifest_references.c.parent, manifest_references.c.child)
        rows = self.connection.execute(query.join_from(keys.table, manifest_references, here))
        return [(row.parent, row.child) for row in rows]


def oldest_relations(connection: Connection, before: int, limit: int) -> list[int]:
    """Return the images that were looked up last before that time, the oldest first."""
    query = (
        select(fleet_images.c.number)
        .where(fleet_images.c.related_at < before)
        .order_by(fleet_images.c.related_at)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())
