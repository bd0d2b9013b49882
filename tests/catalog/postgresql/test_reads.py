"""The reads of an event loop: how many statements they are, and what each sees."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.postgresql import batched_lookups, pipeline, reads
from digestry.catalog.postgresql.address import parse_address
from digestry.catalog.postgresql.batched_lookups import BatchedLookups
from digestry.catalog.postgresql.pipeline import server_statement
from digestry.catalog.postgresql.reads import PostgresqlReads
from digestry.model.digest import Digest
from tests.catalog.raw import Raw
from tests.catalog.support import pushed


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many look-ups each statement had that was sent."""
    found: list[int] = []
    rows = batched_lookups._Line.rows

    async def counted(line: Any, statement: Any, values: Any) -> Any:
        found.append(len(values[0]) if isinstance(values[0], list) else 1)
        return await rows(line, statement, values)

    monkeypatch.setattr(batched_lookups._Line, "rows", counted)
    return found


def test_those_that_wait_together_are_one_statement(
    backend: Backend, catalog: Catalog, sent: list[int]
) -> None:
    manifests = {name: pushed(catalog, name) for name in ("a", "b", "c")}

    async def ask() -> None:
        mine = backend.open_reads()
        names = [*manifests, "absent"] * 50
        for name, found in zip(
            names, await asyncio.gather(*(mine.manifest(n, "t") for n in names)), strict=True
        ):
            assert (found and found.digest) == (str(manifests[name].digest) if name in manifests else None)
        await mine.close()

    asyncio.run(ask())
    assert sent == [4]


def test_a_read_begins_after_it_was_asked_for(backend: Backend, catalog: Catalog, sent: list[int]) -> None:
    """Look-ups that come while others are answered are not answered with these: a push may lie between."""

    async def ask() -> None:
        mine = backend.open_reads()
        for _ in range(30):
            manifest = await asyncio.to_thread(pushed, catalog, "x")
            waiting = [asyncio.ensure_future(mine.manifest("x", "t")) for _ in range(3)]
            await asyncio.sleep(0)
            waiting += [asyncio.ensure_future(mine.manifest("x", "t")) for _ in range(3)]
            for found in await asyncio.gather(*waiting):
                assert found is not None
                assert found.digest == str(manifest.digest)
        await mine.close()

    asyncio.run(ask())
    assert len(sent) >= 30


def test_more_than_one_statement_takes(
    backend: Backend, catalog: Catalog, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched_lookups, "MOST", 10)
    manifest = pushed(catalog, "x", [f"t{number}" for number in range(35)])

    async def ask() -> None:
        mine = backend.open_reads()
        for found in await asyncio.gather(*(mine.manifest("x", f"t{number}") for number in range(35))):
            assert found is not None
            assert found.digest == str(manifest.digest)
        await mine.close()

    asyncio.run(ask())
    assert sorted(sent) == [5, 10, 10, 10]


def test_one_who_goes_away_leaves_the_others_alone(backend: Backend, catalog: Catalog) -> None:
    manifest = pushed(catalog, "x")

    async def ask() -> None:
        mine = backend.open_reads()
        first = asyncio.ensure_future(mine.manifest("x", "t"))
        second = asyncio.ensure_future(mine.manifest("x", "t"))
        await asyncio.sleep(0)
        first.cancel()
        found = await second
        assert found is not None
        assert found.digest == str(manifest.digest)
        await mine.close()

    asyncio.run(ask())


@pytest.mark.parametrize("name", ["a\0b", "\udcff", "\N{PILE OF POO}", "x" * 100_000, "{},\"'\\"])
def test_hostile_names_are_those_of_nothing(backend: Backend, catalog: Catalog, name: str) -> None:
    """And the look-ups beside them are answered."""
    manifest = pushed(catalog, "x")

    async def ask() -> None:
        mine = backend.open_reads()
        bad, good, blob, repository, page = await asyncio.gather(
            mine.manifest(name, name),
            mine.manifest("x", "t"),
            mine.blob("x", f"sha256:{name}"),
            mine.repository(name),
            mine.tags("x", after="", limit=5),
        )
        assert (bad, blob, repository, page) == (None, None, False, ["t"])
        assert good is not None
        assert good.digest == str(manifest.digest)
        await mine.close()

    asyncio.run(ask())


def test_each_look_up_is_made_by_index(backend: Backend, catalog: Catalog, raw: Raw) -> None:
    """Also before the tables were ever analysed, and for many at once."""
    pushed(catalog, "x")
    questions = [value for value in vars(reads).values() if isinstance(value, batched_lookups.Question)]
    assert len(questions) >= 6
    for question in questions:
        text = re.sub(
            r"\$[12]::text\[\]",
            "ARRAY(SELECT 'k' || i FROM generate_series(1, 300) AS i)",
            question.statement.text.decode(),
        )
        plan = "\n".join(row[0] for row in raw.query(f"EXPLAIN {text}"))
        for table in ("tags", "manifests", "links"):
            assert f"Seq Scan on {table}" not in plan, plan


def test_pages_and_look_ups_take_turns(backend: Backend, catalog: Catalog) -> None:
    """There are more of both than connections, and some go away."""
    manifest = pushed(catalog, "x")

    async def ask() -> None:
        mine = backend.open_reads()
        pages = [asyncio.ensure_future(mine.tags("x", after="", limit=5)) for _ in range(40)]
        found = [asyncio.ensure_future(mine.manifest("x", "t")) for _ in range(40)]
        await asyncio.sleep(0)
        for gone in pages[5::7]:
            gone.cancel()
        for page in await asyncio.gather(*pages, return_exceptions=True):
            assert page == ["t"] or isinstance(page, asyncio.CancelledError)
        for one in await asyncio.gather(*found):
            assert one is not None
            assert one.digest == str(manifest.digest)
        assert await mine.tags("x", after="t", limit=5) == []
        await mine.close()

    asyncio.run(ask())


def test_what_is_closed_answers_no_more(backend: Backend, catalog: Catalog) -> None:
    from digestry.errors import StorageBusy

    async def ask() -> None:
        mine = backend.open_reads()
        assert isinstance(mine, PostgresqlReads)
        assert await mine.blob("x", str(Digest.of(b""))) is None
        waiting = asyncio.ensure_future(mine.manifest("x", "t"))
        await asyncio.sleep(0)
        await mine.close()
        with pytest.raises(StorageBusy):
            await waiting
        with pytest.raises(StorageBusy, match="this process ends"):
            await mine.manifest("x", "t")

    asyncio.run(ask())


def test_a_question_is_planned_once(catalog: Catalog, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for each number of keys anew: the server decides that when it has planned it five times."""
    monkeypatch.setattr(pipeline, "PLAN_SECONDS", 3600)
    pushed(catalog, "x")
    plans = server_statement(
        "SELECT sum(generic_plans)::bigint, sum(custom_plans)::bigint FROM pg_prepared_statements"
        " WHERE statement LIKE '%JOIN tags t%' AND statement NOT LIKE '%pg_prepared%'"
    )

    async def ask() -> tuple[int, ...] | None:
        lookups = BatchedLookups(parse_address(url), connections=1)
        for number in range(1, 30):
            keys = [("x", f"t{key}" if key else "t") for key in range(number)]
            found = await asyncio.gather(*(lookups.ask(reads._TAG, key) for key in keys))
            assert [row is not None for row in found] == [True] + [False] * (number - 1)
        counted = await lookups.one(plans, ())
        await lookups.close()
        return counted

    assert asyncio.run(ask()) == (24, 5)


def test_statements_that_the_server_does_not_have_any_more_are_prepared_again(
    catalog: Catalog, url: str
) -> None:
    """As behind a pooler, which gives each transaction another connection of the server's."""
    pushed(catalog, "x")

    async def ask() -> None:
        lookups = BatchedLookups(parse_address(url), connections=1)
        for _ in range(3):
            assert await lookups.ask(reads._TAG, ("x", "t")) is not None
            await lookups.one(server_statement("DEALLOCATE ALL"), ())
        await lookups.close()

    asyncio.run(ask())


@pytest.mark.long
def test_a_table_that_was_changed_is_read_as_it_is(catalog: Catalog, url: str, raw: Raw) -> None:
    manifest = pushed(catalog, "x")

    async def ask() -> None:
        lookups = BatchedLookups(parse_address(url), connections=1)
        for kind in ("varchar", "text"):
            raw.edit(f"ALTER TABLE manifests ALTER media_type TYPE {kind}")
            row = await lookups.ask(reads._TAG, ("x", "t"))
            assert row == (str(manifest.digest), manifest.media_type, manifest.size)
        await lookups.close()

    asyncio.run(ask())
