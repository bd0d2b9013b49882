"""A hash chain a repository in the journal, and positions that may be given later.

The entries that are there keep their positions and their one chain, whose last hash is what the first new
entry of each repository follows. They have the numbers up to 0: a repository's new ones begin at 1.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import TEXT

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_KEPT = (
    "repository", "at", "tag", "event", "from_digest", "to_digest", "media_type", "size", "actor", "address",
    "client", "previous_hash", "hash",
)  # fmt: skip
_SAME = " AND ".join(f"new.{name} IS old.{name}" for name in ("number", *_KEPT))
# Both triggers and the other guard were removed with the table that they were of.
_POSTGRESQL = (
    (
        "CREATE FUNCTION journal_position_alone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF old.sequence IS NULL AND new.sequence IS NOT NULL"
        f" AND ({', '.join(f'new.{name}' for name in ('number', *_KEPT))})"
        f" IS NOT DISTINCT FROM ({', '.join(f'old.{name}' for name in ('number', *_KEPT))})"
        " THEN RETURN new; END IF;"
        " RAISE EXCEPTION 'the journal is append-only'; END $$"
    ),
    (
        "CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal"
        " FOR EACH ROW EXECUTE FUNCTION journal_position_alone()"
    ),
    *(
        f"CREATE TRIGGER journal_no_{action.lower()} BEFORE {action} ON journal"
        f" FOR EACH {level} EXECUTE FUNCTION journal_append_only()"
        for action, level in (("DELETE", "ROW"), ("TRUNCATE", "STATEMENT"))
    ),
)


def upgrade() -> None:
    op.create_table(
        "journal_new",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("event", TEXT, nullable=False),
        sa.Column("from_digest", TEXT),
        sa.Column("to_digest", TEXT),
        sa.Column("media_type", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("address", TEXT, nullable=False),
        sa.Column("client", TEXT, nullable=False),
        sa.Column("previous_hash", TEXT, nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("repository", "number"),
    )
    kept = ", ".join(_KEPT)
    op.execute(
        f"INSERT INTO journal_new (sequence, number, {kept})"  # noqa: S608 - all of it is written here
        f" SELECT sequence, sequence - (SELECT max(sequence) FROM journal), {kept} FROM journal"
        " ORDER BY sequence"
    )
    op.drop_table("journal")  # and its triggers and indices
    op.rename_table("journal_new", "journal")
    op.create_index("journal_by_sequence", "journal", ["sequence"], unique=True)
    op.create_index("journal_by_time", "journal", ["repository", "at"])
    op.create_index("journal_by_tag", "journal", ["repository", "tag", "at"])
    op.create_index("journal_by_digest", "journal", ["repository", "to_digest", "at"])
    op.create_index("journal_by_left_digest", "journal", ["repository", "from_digest", "tag"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal"
            f" WHEN NOT (old.sequence IS NULL AND new.sequence IS NOT NULL AND {_SAME})"
            " BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
        )
        op.execute(
            "CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal "
            "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
        )
    else:
        for statement in _POSTGRESQL:
            op.execute(statement)
