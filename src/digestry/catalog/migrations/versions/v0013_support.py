"""Which older versions of digestry may use the schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import TEXT

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table("schema_support", sa.Column("oldest", TEXT, primary_key=True))
    op.bulk_insert(table, [{"oldest": "0013"}])
