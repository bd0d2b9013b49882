"""The number of sightings that each user has reported, kept by triggers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import TEXT

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_BYTES = "200 + 2 * length(CAST({row}.place || {row}.repository || {row}.digest || {row}.actor AS BLOB))"
_OCTETS = "200 + 2 * octet_length({row}.place || {row}.repository || {row}.digest || {row}.actor)"
_NEW = _BYTES.format(row="new")
_OLD = _BYTES.format(row="old")
_POSTGRESQL = (
    (
        "CREATE FUNCTION sighting_added() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"  # noqa: S608 - as below
        f" INSERT INTO sighting_usage (actor, bytes) VALUES (new.actor, {_OCTETS.format(row='new')})"
        " ON CONFLICT (actor) DO UPDATE SET bytes = sighting_usage.bytes + excluded.bytes;"
        " RETURN new; END $$"
    ),
    "CREATE TRIGGER sighting_added AFTER INSERT ON sightings FOR EACH ROW EXECUTE FUNCTION sighting_added()",
    (
        "CREATE FUNCTION sighting_removed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"  # noqa: S608 - as below
        f" UPDATE sighting_usage SET bytes = bytes - ({_OCTETS.format(row='old')}) WHERE actor = old.actor;"
        " DELETE FROM sighting_usage WHERE actor = old.actor AND bytes <= 0;"
        " RETURN old; END $$"
    ),
    (
        "CREATE TRIGGER sighting_removed AFTER DELETE ON sightings"
        " FOR EACH ROW EXECUTE FUNCTION sighting_removed()"
    ),
)


def upgrade() -> None:
    op.create_table(
        "sighting_usage",
        sa.Column("actor", TEXT, primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    op.create_index("sightings_by_actor", "sightings", ["actor", "last_at"])
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    size = (_BYTES if on_sqlite else _OCTETS).format(row="sightings")
    op.execute(
        "INSERT INTO sighting_usage (actor, bytes)"  # noqa: S608 - all of it is written here
        f" SELECT actor, sum({size}) FROM sightings GROUP BY actor"
    )
    if on_sqlite:
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
    else:
        for statement in _POSTGRESQL:
            op.execute(statement)
