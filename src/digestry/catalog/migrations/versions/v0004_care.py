"""Sightings, damaged content, what the registry's own jobs did, and tags seen upstream."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

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
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("repository", sa.Text, primary_key=True),
        sa.Column("place", sa.Text, primary_key=True),
        sa.Column("containers", sa.BigInteger, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
    )
    op.create_index("sightings_by_time", "sightings", ["last_at"])
    op.create_table(
        "damaged",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("found_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False),
    )
    op.create_table(
        "upstream_tags",
        sa.Column("repository", sa.Text, primary_key=True),
        sa.Column("tag", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("checked_at", sa.BigInteger, nullable=False),
    )
