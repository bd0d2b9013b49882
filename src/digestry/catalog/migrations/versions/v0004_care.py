"""Sightings, damaged content, the states of the registry's own jobs, and tags seen upstream."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import TEXT

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("manifests_by_digest", "manifests", ["digest"])
    op.drop_index("manifest_references_by_child", "manifest_references")
    op.create_index(
        "manifest_references_by_child", "manifest_references", ["repository_id", "child", "role", "parent"]
    )
    op.create_table(
        "sightings",
        sa.Column("digest", TEXT, primary_key=True),
        sa.Column("repository", TEXT, primary_key=True),
        sa.Column("place", TEXT, primary_key=True),
        sa.Column("containers", sa.BigInteger, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
    )
    op.create_index("sightings_by_time", "sightings", ["last_at"])
    op.create_table(
        "damaged",
        sa.Column("digest", TEXT, primary_key=True),
        sa.Column("problem", TEXT, nullable=False),
        sa.Column("found_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("state", TEXT, nullable=False),
    )
    op.create_table(
        "upstream_tags",
        sa.Column("repository", TEXT, primary_key=True),
        sa.Column("tag", TEXT, primary_key=True),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("checked_at", sa.BigInteger, nullable=False),
    )
