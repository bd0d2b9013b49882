"""The content that a catalog lists as visible, page by page in the order of the digests' text."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Select, Table, func, select, union_all

from digestry.catalog import dialect
from digestry.catalog.database import Database
from digestry.catalog.object_schema import blob_objects
from digestry.catalog.schema import links, manifests
from digestry.catalog.snapshot import Held
from digestry.model.digest import Digest

PAGE: Final = 500


def listed_pages(database: Database) -> Iterator[list[Held]]:
    """Yield all content that a link, or a manifest that can be pulled, makes visible, in pages.

    Each page is a transaction of its own: content that is pushed meanwhile may be missing.
    """
    after = ""
    while True:
        with database.read() as connection:
            rows = [connection.execute(_page(table, after)).all() for table in (links, manifests)]
        merged = heapq.merge(*rows, key=itemgetter(0))
        page = [
            (digest, max(size for _, size in same))
            for digest, same in itertools.groupby(merged, key=itemgetter(0))
        ][:PAGE]
        if page:
            yield [Held(Digest.parse(digest), size) for digest, size in page]
        if len(page) < PAGE:
            return
        after = page[-1][0]


def _page(table: Table, after: str) -> Select[Any]:
    query = select(table.c.digest, func.max(table.c.size)).where(table.c.digest > after)
    if table is manifests:
        query = query.where(table.c.deleted_at.is_(None))
    return query.group_by(table.c.digest).order_by(table.c.digest).limit(PAGE)


def listed_bytes(database: Database) -> int:
    """Return how many bytes all visible content has."""
    shown = select(manifests.c.digest, manifests.c.size).where(manifests.c.deleted_at.is_(None))
    every = union_all(select(links.c.digest, links.c.size), shown).subquery()
    sizes = select(func.max(every.c.size).label("size")).group_by(every.c.digest).subquery()
    with database.read() as connection:
        dialect.of(connection).lift_limits(connection)
        return int(connection.execute(select(func.coalesce(func.sum(sizes.c.size), 0))).scalar_one())


def stored_sizes(database: Database, digests: Sequence[Digest]) -> dict[Digest, int]:
    """Return the sizes in bytes of those of ``digests`` for which the catalog has an object of a store."""
    wanted = [str(digest) for digest in digests]
    query = select(blob_objects.c.digest, blob_objects.c.size).where(blob_objects.c.digest.in_(wanted))
    with database.read() as connection:
        return {Digest.parse(row.digest): row.size for row in connection.execute(query)}
