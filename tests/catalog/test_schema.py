"""The schema: what the migrations make in each database, from each version on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.schema import metadata
from digestry.catalog.schema_version import newest_schema
from digestry.errors import StorageError
from tests.catalog.support import pushed

VERSIONS = [f"{number:04}" for number in range(1, int(newest_schema()))]
TRIGGERS = {
    "journal_no_update",
    "journal_no_delete",
    *(
        f"{table}_no_{action}"
        for table in ("log_entries", "log_nodes", "log_origins", "log_checkpoints")
        for action in ("update", "delete")
    ),
    "sighting_added",
    "sighting_removed",
    "usage_link_added",
    "usage_link_changed",
    "usage_link_removed",
    "usage_manifest_added",
    "usage_manifest_changed",
    "usage_manifest_removed",
    "usage_repository_added",
    "usage_tag_added",
    "usage_tag_removed",
}


@pytest.fixture
def engine(url: str | None, tmp_path: Any) -> Iterator[Engine]:
    """An engine that knows nothing of the catalog."""
    address = f"sqlite:///{tmp_path / 'catalog.db'}" if url is None else url.replace(":", "+psycopg:", 1)
    made = create_engine(address)
    yield made
    made.dispose()


def migrate_to(connection: Connection, version: str) -> None:
    config = Config()
    config.set_main_option("script_location", "digestry.catalog:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, version)


@pytest.mark.long
def test_migrations_make_exactly_the_schema(catalog: Catalog, engine: Engine) -> None:
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    assert set(inspect(engine).get_table_names()) - set(metadata.tables) == {"alembic_version"}


@pytest.mark.long
def test_migrations_make_the_same_tables_as_the_schema_alone(backend: Backend, engine: Engine) -> None:
    """What Alembic does not compare: primary keys, their order, collations, and every index."""
    asked = ("get_columns", "get_pk_constraint", "get_foreign_keys", "get_indexes", "get_unique_constraints")
    with engine.begin() as connection:
        metadata.create_all(connection)
        plain = _described(connection, asked)
        metadata.drop_all(connection)
    made = backend.open_catalog()
    made.migrate()
    made.close()
    with engine.connect() as connection:
        assert _described(connection, asked) == plain


def _described(connection: Connection, asked: tuple[str, ...]) -> dict[tuple[str, str], Any]:
    inspector = inspect(connection)
    found = {}
    for table in metadata.tables:
        for ask in asked:
            answer = getattr(inspector, ask)(table)
            if ask == "get_pk_constraint":
                answer.pop("name")
            if isinstance(answer, list):
                answer = sorted(map(_comparable, answer))
            found[table, ask] = _comparable(answer)
    return found


def _comparable(answer: Any) -> str:
    if isinstance(answer, dict):
        kind = answer.get("type")
        collation = getattr(kind, "collation", None)
        options = {name: str(value) for name, value in answer.get("dialect_options", {}).items()}
        answer = {**answer, "dialect_options": options}
        return repr({**answer, "type": f"{kind!r} {collation}"} if kind is not None else answer)
    return repr(answer)


def test_each_trigger_is_there(catalog: Catalog, engine: Engine) -> None:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            found = connection.execute(text("SELECT name FROM sqlite_schema WHERE type = 'trigger'"))
            assert set(found.scalars()) == TRIGGERS
        else:
            found = connection.execute(text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"))
            assert set(found.scalars()) == TRIGGERS | {
                f"{table}_no_truncate"
                for table in ("journal", "log_entries", "log_nodes", "log_origins", "log_checkpoints")
            }


@pytest.mark.only_on("postgresql", reason="SQLite compares bytes by itself")
def test_each_text_is_ordered_by_its_bytes(catalog: Catalog, engine: Engine) -> None:
    query = (
        "SELECT table_name, column_name, collation_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND data_type = 'text'"
    )
    with engine.connect() as connection:
        rows = connection.execute(text(query)).all()
        assert {row.collation_name for row in rows} == {"C"}
        assert {(row.table_name, row.column_name) for row in rows} == {
            (table.name, column.name)
            for table in metadata.tables.values()
            for column in table.columns
            if isinstance(column.type, sa.Text)
        }
        # The database itself orders otherwise.
        words = connection.execute(text("SELECT unnest(ARRAY['b', 'B', 'a-1', '_', 'ab']) AS w ORDER BY w"))
        assert list(words.scalars()) != sorted(["b", "B", "a-1", "_", "ab"])


def test_migrating_again_changes_nothing(catalog: Catalog) -> None:
    manifest = pushed(catalog, "x")
    catalog.migrate()
    assert catalog.manifest("x", manifest.digest) is not None


@pytest.mark.long
def test_nodes_that_start_together_migrate_once(backend: Backend) -> None:
    from tests.catalog.test_races import at_once

    nodes = [backend.open_catalog() for _ in range(1 if "sqlite" in repr(backend.catalog_store) else 4)]
    at_once(*(node.migrate for node in nodes))
    pushed(nodes[0], "x")
    assert nodes[-1].identity.get() == nodes[0].identity.get()
    for node in nodes:
        node.close()


def test_a_database_with_another_programs_tables_is_refused(
    backend: Backend, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digestry.catalog.postgresql.database._FIRST_TABLES_SECONDS", 0.0)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE links (id INTEGER)"))
    node = backend.open_catalog()
    with pytest.raises(StorageError, match="links"):
        node.migrate()
    node.close()
    assert inspect(engine).get_table_names() == ["links"]


def test_a_catalog_of_a_later_version_is_refused(catalog: Catalog, backend: Backend, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("UPDATE schema_support SET oldest = '9998'"))
    with pytest.raises(StorageError) as caught:
        catalog.migrate()
    assert "newer digestry" in caught.value.hint
    other = backend.open_catalog()
    with pytest.raises(StorageError, match="has schema 9999"):
        other.has_repository("x")
    other.close()


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_each_earlier_version_is_brought_up_to_date(backend: Backend, engine: Engine, version: str) -> None:
    """With rows of that time: a repository that holds a blob, a tag that moved, what ran somewhere."""
    with engine.begin() as connection:
        migrate_to(connection, version)
        _fill(connection)
    catalog = backend.open_catalog()
    catalog.migrate()
    assert catalog.verify_journal() is None
    assert [row.name for row in catalog.tags("x")] == ["t"]
    assert [event.event for event in catalog.journal("x", limit=10)] == ["moved", "created"]
    with engine.begin() as connection:
        assert connection.execute(text("SELECT bytes, tags FROM usage")).all() == [(7 + 100, 1)]
        if version >= "0004":
            cost = 200 + 2 * len("hostx" + "sha256:" + "2" * 64 + "auditor")
            assert connection.execute(text("SELECT actor, bytes FROM sighting_usage")).all() == [
                ("auditor", cost)
            ]
    pushed(catalog, "x")
    assert len(catalog.journal("x", limit=10)) == 3
    assert catalog.verify_journal() is None
    catalog.close()


def _fill(connection: Connection) -> None:
    """Write rows in whatever schema the database has."""
    from digestry.catalog.journal_hashes import GENESIS, HASHED, HASHED_BEFORE, hash_of

    first, second, blob = (f"sha256:{digit * 64}" for digit in "123")
    tables = sa.MetaData()
    tables.reflect(connection)

    def add(table: str, **values: Any) -> None:
        known = tables.tables.get(table)
        if known is not None:
            connection.execute(known.insert().values(values))

    add("repositories", id=1, name="x", created_at=1)
    add("links", repository_id=1, digest=blob, size=7, linked_at=1)
    add("manifests", repository_id=1, digest=second, media_type="m", size=100, annotations="{}", pushed_at=2)
    add("tags", repository_id=1, name="t", digest=second, moved_at=2)
    numbered = "number" in tables.tables["journal"].c
    previous = GENESIS
    for number, (before, after) in enumerate(((None, first), (first, second)), start=1):
        entry: dict[str, Any] = {
            "sequence": number,
            "at": number,
            "repository": "x",
            "tag": "t",
            "event": "created" if before is None else "moved",
            "from_digest": before,
            "to_digest": after,
            "media_type": "m",
            "size": 100,
            "actor": "a",
            "address": "",
            "client": "",
            "previous_hash": previous,
        }
        if numbered:
            entry["number"] = number
        previous = hash_of([entry[name] for name in (HASHED if numbered else HASHED_BEFORE)])
        add("journal", **entry, hash=previous)
    add(
        "sightings",
        digest=second,
        repository="x",
        place="host",
        containers=1,
        first_at=1,
        last_at=1,
        actor="auditor",
    )
