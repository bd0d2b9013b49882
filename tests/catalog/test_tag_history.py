"""The catalog's memory: plans that stay fast, spans at their edges, and proof against changed bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.backend import open_backend
from digestry.catalog.catalog import Catalog
from digestry.errors import NotFound
from tests.catalog.support import ORIGIN, Clock, image, put


def test_spans_at_their_edges(catalog: Catalog, clock: Clock) -> None:
    first, second = image(catalog, "x"), image(catalog, "x")
    times = []
    for manifest in (first, second, None, first):
        clock.now += 10
        times.append(clock.now)
        if manifest is None:
            catalog.delete_tag("x", "t", origin=ORIGIN)
        else:
            put(catalog, "x", manifest, "t")

    def at(moment: int) -> Any:
        span = catalog.tag_history.tag_at("x", "t", moment)
        return None if span is None else span.digest

    found = [at(time + delta) for time in times for delta in (-1, 0, 1)]
    a, b = first.digest, second.digest
    assert found == [None, a, a, a, b, b, b, None, None, None, a, a]
    assert catalog.tag_history.tag_at("x", "u", times[0]) is None
    assert catalog.tag_history.tag_at("y", "t", times[0]) is None


def test_tags_at_a_time_go_on_past_those_that_were_not_there(catalog: Catalog, clock: Clock) -> None:
    """More names without a tag than are looked at together, and pages of every size."""
    manifest = image(catalog, "x")
    early = [f"{number:04}" for number in range(0, 700, 7)]
    put(catalog, "x", manifest, *early)
    clock.now += 10_000_000
    before = clock.now
    clock.now += 10
    put(catalog, "x", manifest, *(f"{number:04}" for number in range(700)))

    def paged(at: int, limit: int) -> Iterator[str]:
        after = ""
        while page := catalog.tag_history.tags_at("x", at, after=after, limit=limit):
            assert len(page) <= limit
            yield from (span.tag for span in page)
            after = page[-1].tag

    for limit in (3, 100, 1000):
        assert list(paged(before, limit)) == early
    assert len(list(paged(clock.now + 10_000, 150))) == 700
    assert list(paged(1, 10)) == []


# -- proof ----------------------------------------------------------------------------------------


def test_reading_makes_nothing(tmp_path: Path) -> None:
    store = open_backend(tmp_path).catalog_store
    for look in (store.verify_journal, store.check_schema, store.require):
        with pytest.raises(NotFound, match="there is no registry"):
            look()
    assert list(tmp_path.iterdir()) == []
