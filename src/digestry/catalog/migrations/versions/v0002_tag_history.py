"""Indices of the journal for the history of tags, and the delivery queue of the webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import IDENTITY, TEXT

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("journal_by_digest", "journal")
    op.create_index("journal_by_digest", "journal", ["repository", "to_digest", "sequence"])
    op.create_index("journal_by_left_digest", "journal", ["repository", "from_digest", "tag"])
    op.create_index("journal_by_time", "journal", ["at"])
    op.create_table(
        "deliveries",
        sa.Column("id", IDENTITY, primary_key=True),
        sa.Column("webhook", TEXT, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("queued_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("dead_at", sa.BigInteger),
        sa.Column("problem", TEXT, nullable=False),
    )
    op.create_index("deliveries_by_time", "deliveries", ["webhook", "dead_at", "due_at"])
