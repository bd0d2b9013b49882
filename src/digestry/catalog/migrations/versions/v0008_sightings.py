"""How much each user has told of what runs where, kept by triggers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_BYTES = "200 + 2 * length(CAST({row}.place || {row}.repository || {row}.digest || {row}.actor AS BLOB))"
_NEW = _BYTES.format(row="new")
_OLD = _BYTES.format(row="old")


def upgrade() -> None:
    op.create_table(
        "sighting_usage",
        sa.Column("actor", sa.Text, primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    op.create_index("sightings_by_actor", "sightings", ["actor", "last_at"])
    op.execute(
        "INSERT INTO sighting_usage (actor, bytes)"  # noqa: S608 - all of it is written here
        f" SELECT actor, sum({_BYTES.format(row='sightings')}) FROM sightings GROUP BY actor"
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER sighting_added AFTER INSERT ON sightings"  # noqa: S608 - as above
            f" BEGIN INSERT INTO sighting_usage (actor, bytes) VALUES (new.actor, {_NEW})"
            " ON CONFLICT (actor) DO UPDATE SET bytes = bytes + excluded.bytes; END"
        )
        op.execute(
            "CREATE TRIGGER sighting_removed AFTER DELETE ON sightings"  # noqa: S608 - as above
            f" BEGIN UPDATE sighting_usage SET bytes = bytes - ({_OLD}) WHERE actor = old.actor;"
            " DELETE FROM sighting_usage WHERE actor = old.actor AND bytes <= 0; END"
        )
