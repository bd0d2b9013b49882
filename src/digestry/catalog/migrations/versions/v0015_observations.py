"""What was observed in other registries; ages let through; the transparency log; what a move is known by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import IDENTITY, TEXT

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
oldest = "0015"  # an older one would find an entry with the new columns broken

_KEPT = (
    "number", "repository", "at", "tag", "event", "from_digest", "to_digest", "media_type", "size", "actor",
    "address", "client", "previous_hash", "hash", "not_before", "reason",
)  # fmt: skip
_SAME = " AND ".join(f"new.{name} IS old.{name}" for name in _KEPT)

_NO_UPDATE = ("log_entries", "log_nodes", "log_origins")
_NO_DELETE = (*_NO_UPDATE, "log_checkpoints")
_SIGNED = ("origin", "size", "root", "note", "signed_at")
_SQLITE_LOG = (
    *(
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END"
        for action, tables in (("UPDATE", _NO_UPDATE), ("DELETE", _NO_DELETE))
        for table in tables
    ),
    (
        f"CREATE TRIGGER log_checkpoints_no_update BEFORE UPDATE OF {', '.join(_SIGNED)} ON log_checkpoints "
        "BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END"
    ),
)
_POSTGRESQL_LOG = (
    (
        "CREATE FUNCTION log_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the log is append-only'; END $$"
    ),
    *(
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table}"
        f" FOR EACH {level} EXECUTE FUNCTION log_append_only()"
        for action, level, tables in (
            ("UPDATE", "ROW", _NO_UPDATE),
            ("DELETE", "ROW", _NO_DELETE),
            ("TRUNCATE", "STATEMENT", _NO_DELETE),
        )
        for table in tables
    ),
    (
        f"CREATE TRIGGER log_checkpoints_no_update BEFORE UPDATE OF {', '.join(_SIGNED)} ON log_checkpoints"
        " FOR EACH ROW EXECUTE FUNCTION log_append_only()"
    ),
)

_QUARTER = 86_400_000_000 // 4
_LONGER_THAN = """
    UPDATE fleet_runs SET longer_than = CASE
        WHEN ended_at - started_at > 22118400000000 THEN 256
        WHEN ended_at - started_at > 5529600000000 THEN 64
        WHEN ended_at - started_at > 1382400000000 THEN 16
        WHEN ended_at - started_at > 345600000000 THEN 4
        ELSE 1 END
    WHERE ended_at - started_at > 86400000000
"""
_FIRST = sa.text("""
    SELECT min(at) FROM (
        SELECT min(started_at) AS at FROM fleet_runs WHERE started_at >= :after
        UNION ALL SELECT min(ended_at) FROM fleet_runs WHERE ended_at >= :after
    ) AS times
""")
_COUNT_QUARTER = sa.text("""
    INSERT INTO fleet_run_counts (length, from_at, image, started, ended)
    SELECT CAST(:length AS BIGINT), CAST(:begin AS BIGINT), image, sum(started), sum(ended) FROM (
        SELECT image, count(*) AS started, 0 AS ended FROM fleet_runs
            WHERE started_at >= :begin AND started_at < :after GROUP BY image
        UNION ALL SELECT image, 0, count(*) FROM fleet_runs
            WHERE ended_at >= :begin AND ended_at < :after GROUP BY image
    ) AS times GROUP BY image
""")
_COUNT_DAYS = sa.text("""
    INSERT INTO fleet_run_counts (length, from_at, image, started, ended)
    SELECT CAST(:length AS BIGINT), from_at / CAST(:length AS BIGINT) * CAST(:length AS BIGINT), image,
        sum(started), sum(ended)
    FROM fleet_run_counts GROUP BY 2, image
""")


def upgrade() -> None:
    op.add_column("journal", sa.Column("not_before", sa.BigInteger))
    op.add_column("journal", sa.Column("reason", TEXT))
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER journal_no_update")
        op.execute(
            "CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal"
            f" WHEN NOT (old.sequence IS NULL AND new.sequence IS NOT NULL AND {_SAME})"
            " BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
        )
    else:
        op.execute(
            "CREATE OR REPLACE FUNCTION journal_position_alone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF old.sequence IS NULL AND new.sequence IS NOT NULL"
            f" AND ({', '.join(f'new.{name}' for name in _KEPT)})"
            f" IS NOT DISTINCT FROM ({', '.join(f'old.{name}' for name in _KEPT)})"
            " THEN RETURN new; END IF;"
            " RAISE EXCEPTION 'the journal is append-only'; END $$"
        )
    _create_observations()
    _create_log()
    _create_run_counts()


def _create_run_counts() -> None:
    op.add_column("fleet_runs", sa.Column("longer_than", sa.BigInteger))
    op.execute(_LONGER_THAN)
    long = sa.text("longer_than IS NOT NULL")
    columns = ["longer_than", "ended_at", "started_at", "image"]
    op.create_index("fleet_runs_long", "fleet_runs", columns, sqlite_where=long, postgresql_where=long)
    op.create_table(
        "fleet_run_counts",
        sa.Column("length", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("from_at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("image", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "fleet_run_changes",
        sa.Column("number", IDENTITY, primary_key=True),
        sa.Column("from_at", sa.BigInteger, nullable=False),
        sa.Column("image", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.BigInteger, nullable=False),
    )
    count_runs(op.get_bind())


def count_runs(connection: sa.Connection) -> None:
    """Count the runs that are there in ``fleet_run_counts``, which is empty."""
    # Quarter by quarter of a day: to sort all runs at once would take disk space, and much longer.
    after = 0
    while (first := connection.execute(_FIRST, {"after": after}).scalar()) is not None:
        begin = first - first % _QUARTER
        after = begin + _QUARTER
        connection.execute(_COUNT_QUARTER, {"length": _QUARTER, "begin": begin, "after": after})
    connection.execute(_COUNT_DAYS, {"length": 4 * _QUARTER})


def _create_observations() -> None:
    op.create_table(
        "observation_rules",
        sa.Column("number", IDENTITY, primary_key=True),
        sa.Column("repository", TEXT, nullable=False, unique=True),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("interval", sa.BigInteger, nullable=False),
        sa.Column("keep", sa.Boolean, nullable=False),
        sa.Column("keep_for", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
    )
    op.create_table(
        "observation_schedule",
        sa.Column("repository", TEXT, primary_key=True),
        sa.Column("tag", TEXT, primary_key=True),
        sa.Column("interval", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("etag", TEXT, nullable=False),
    )
    op.create_index("observation_schedule_by_time", "observation_schedule", ["repository", "due_at"])
    op.create_table(
        "observations",
        sa.Column("number", IDENTITY, primary_key=True),
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("digest", TEXT),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("interval", sa.BigInteger, nullable=False),
    )
    op.create_index("observations_by_tag", "observations", ["repository", "tag", "number"])
    op.create_index("observations_by_time", "observations", ["last_at"])
    op.create_table(
        "observed_moves",
        sa.Column("repository", TEXT, primary_key=True),
        sa.Column("entry", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("event", TEXT, nullable=False),
        sa.Column("from_digest", TEXT),
        sa.Column("to_digest", TEXT),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("not_before", sa.BigInteger),
        sa.Column("document", TEXT, nullable=False),
        sa.Column("pending", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("kept", sa.Boolean, nullable=False),
    )
    op.create_index("observed_moves_by_time", "observed_moves", ["at"])
    op.create_index("observed_moves_by_tag", "observed_moves", ["repository", "tag", "at"])
    op.create_index("observed_moves_by_due", "observed_moves", ["pending", "due_at", "repository"])
    op.create_index("observed_moves_by_digest", "observed_moves", ["repository", "to_digest", "at"])
    op.create_index("observed_moves_by_left_digest", "observed_moves", ["repository", "from_digest", "at"])
    op.create_table(
        "kept_observations",
        sa.Column("repository", TEXT, primary_key=True),
        sa.Column("duration", sa.BigInteger),
    )
    op.create_table(
        "age_overrides",
        sa.Column("number", IDENTITY, primary_key=True),
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("ends_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("advisory", TEXT, nullable=False),
        sa.Column("advised", TEXT, nullable=False),
    )
    op.create_index("age_overrides_by_repository", "age_overrides", ["repository", "tag"])


def _create_log() -> None:
    op.create_table(
        "log_entries",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.Boolean, nullable=False),
    )
    op.create_table(
        "log_nodes",
        sa.Column("level", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "log_origins",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("origin", TEXT, nullable=False, unique=True),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
    )
    op.create_table(
        "log_checkpoints",
        sa.Column("origin", TEXT, primary_key=True),
        sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.Column("signed_at", sa.BigInteger, nullable=False),
        sa.Column("cosignatures", TEXT, nullable=False),
    )
    op.create_table(
        "log_keys",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("public", sa.LargeBinary, primary_key=True),
        sa.Column("algorithm", sa.BigInteger, nullable=False),
        sa.Column("private", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("retired_at", sa.BigInteger),
    )
    op.create_table(
        "witnessed_logs",
        sa.Column("origin", TEXT, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("checkpoint", TEXT, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE_LOG if sqlite else _POSTGRESQL_LOG:
        op.execute(statement)
