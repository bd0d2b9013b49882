"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "repositories",
        sa.Column("id", identity, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "links",
        sa.Column("repository_id", identity, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("linked_at", sa.BigInteger, nullable=False),
    )
    op.create_index("links_by_digest", "links", ["digest"])
    op.create_table(
        "manifests",
        sa.Column("repository_id", identity, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("artifact_type", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("config", sa.Text),
        sa.Column("annotations", sa.Text, nullable=False),
        sa.Column("pushed_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
    )
    op.create_index("manifests_by_subject", "manifests", ["repository_id", "subject"])
    op.create_index("manifests_by_config", "manifests", ["repository_id", "config"])
    op.create_table(
        "manifest_references",
        sa.Column("repository_id", identity, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("parent", sa.Text, primary_key=True),
        sa.Column("child", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
    )
    op.create_index("manifest_references_by_child", "manifest_references", ["repository_id", "child"])
    op.create_table(
        "tags",
        sa.Column("repository_id", identity, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("moved_at", sa.BigInteger, nullable=False),
    )
    op.create_index("tags_by_digest", "tags", ["repository_id", "digest"])
    op.create_table(
        "journal",
        sa.Column("sequence", identity, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("from_digest", sa.Text),
        sa.Column("to_digest", sa.Text),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
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
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("algorithm", sa.Text, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_index("uploads_by_age", "uploads", ["updated_at"])
    op.create_table(
        "leases",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("leases_by_expiry", "leases", ["expires_at"])
