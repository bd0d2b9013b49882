"""The objects of an S3 store: which one holds which content, incoming content, and objects to remove."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import IDENTITY, TEXT

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "blob_objects",
        sa.Column("digest", TEXT, primary_key=True),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("etag", TEXT, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
    )
    op.create_index("blob_objects_by_key", "blob_objects", ["key"])
    op.create_table(
        "quarantined_objects",
        sa.Column("id", IDENTITY, primary_key=True),
        sa.Column("name", TEXT, nullable=False, unique=True),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
    )
    op.create_index("quarantined_objects_by_digest", "quarantined_objects", ["digest"])
    op.create_index("quarantined_objects_by_key", "quarantined_objects", ["key"])
    op.create_table(
        "blob_ingests",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("upload_id", TEXT, nullable=False),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("written_at", sa.BigInteger, nullable=False),
    )
    op.create_index("blob_ingests_by_key", "blob_ingests", ["key"])
    op.create_table(
        "blob_ingest_parts",
        sa.Column("name", TEXT, sa.ForeignKey("blob_ingests.name"), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("etag", TEXT, nullable=False),
        sa.Column("crc32", TEXT, nullable=False),
    )
    op.create_table(
        "blob_ingest_fragments",
        sa.Column("name", TEXT, sa.ForeignKey("blob_ingests.name"), primary_key=True),
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("key", TEXT, nullable=False),
    )
    op.create_index("blob_ingest_fragments_by_key", "blob_ingest_fragments", ["key"])
    op.create_table(
        "object_removals",
        sa.Column("key", TEXT, primary_key=True),
        sa.Column("upload_id", TEXT, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
    )
    op.create_index("object_removals_by_time", "object_removals", ["due_at"])
