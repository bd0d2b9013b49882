"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import IDENTITY, TEXT

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_POSTGRESQL = (
    (
        "CREATE FUNCTION journal_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$"
    ),
    *(
        f"CREATE TRIGGER journal_no_{action.lower()} BEFORE {action} ON journal"
        f" FOR EACH {level} EXECUTE FUNCTION journal_append_only()"
        for action, level in (("UPDATE", "ROW"), ("DELETE", "ROW"), ("TRUNCATE", "STATEMENT"))
    ),
)


def upgrade() -> None:
    op.create_table(
        "repositories",
        sa.Column("id", IDENTITY, primary_key=True),
        sa.Column("name", TEXT, nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "links",
        sa.Column("repository_id", IDENTITY, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("digest", TEXT, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("linked_at", sa.BigInteger, nullable=False),
    )
    op.create_index("links_by_digest", "links", ["digest"])
    op.create_table(
        "manifests",
        sa.Column("repository_id", IDENTITY, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("digest", TEXT, primary_key=True),
        sa.Column("media_type", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("artifact_type", TEXT),
        sa.Column("subject", TEXT),
        sa.Column("config", TEXT),
        sa.Column("annotations", TEXT, nullable=False),
        sa.Column("pushed_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
    )
    op.create_index("manifests_by_subject", "manifests", ["repository_id", "subject"])
    op.create_index("manifests_by_config", "manifests", ["repository_id", "config"])
    op.create_table(
        "manifest_references",
        sa.Column("repository_id", IDENTITY, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("parent", TEXT, primary_key=True),
        sa.Column("child", TEXT, primary_key=True),
        sa.Column("role", TEXT, primary_key=True),
    )
    op.create_index("manifest_references_by_child", "manifest_references", ["repository_id", "child"])
    op.create_table(
        "tags",
        sa.Column("repository_id", IDENTITY, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("moved_at", sa.BigInteger, nullable=False),
    )
    op.create_index("tags_by_digest", "tags", ["repository_id", "digest"])
    op.create_table(
        "journal",
        sa.Column("sequence", IDENTITY, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("repository", TEXT, nullable=False),
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
    )
    op.create_index("journal_by_tag", "journal", ["repository", "tag", "sequence"])
    op.create_index("journal_by_repository", "journal", ["repository", "sequence"])
    op.create_index("journal_by_digest", "journal", ["to_digest"])
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER journal_no_{action.lower()} BEFORE {action} ON journal "
                "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
            )
    else:
        for statement in _POSTGRESQL:
            op.execute(statement)
    op.create_table(
        "uploads",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("digest", TEXT),
        sa.Column("boot", TEXT, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_index("uploads_by_age", "uploads", ["updated_at"])
    op.create_table(
        "leases",
        sa.Column("digest", TEXT, primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("leases_by_expiry", "leases", ["expires_at"])
