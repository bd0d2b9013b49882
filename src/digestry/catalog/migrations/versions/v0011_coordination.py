"""The state that the nodes of one registry share: locks, keys, and the states of logins and mirrors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import TEXT

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_GUARDS = 256


def upgrade() -> None:
    locks = op.create_table(
        "locks",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    # A process that shares a guard locks its row, which has to exist.
    op.bulk_insert(
        locks,
        [
            {"name": f"guard/{number:02x}", "holder": "", "fence": 0, "expires_at": 0}
            for number in range(_GUARDS)
        ],
    )
    op.create_table(
        "shared_guards",
        sa.Column("token", TEXT, primary_key=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("shared_guards_by_name", "shared_guards", ["name"])
    op.create_table(
        "signing_keys",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "login_failures",
        sa.Column("source", TEXT, primary_key=True),
        sa.Column("strikes", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("login_failures_by_expiry", "login_failures", ["expires_at"])
    op.create_table(
        "upstream_limits",
        sa.Column("host", TEXT, primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
    )
    op.create_table(
        "notes",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
