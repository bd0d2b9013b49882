"""The ID of the catalog's registry, which its blob store has as well."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import TEXT

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "identity",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("bound", sa.Boolean, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(table, [{"id": uuid.uuid4().hex, "bound": False, "generation": 0}])
