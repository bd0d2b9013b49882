"""Robot tokens, and the user of each upload."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import TEXT

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "robot_tokens",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("secret_hash", TEXT, nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
    )
    op.add_column("uploads", sa.Column("actor", TEXT, nullable=False, server_default="anonymous"))
    op.create_index("uploads_by_actor", "uploads", ["actor"])
