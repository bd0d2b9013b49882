"""Old checkpoints of the log may be removed; indices find which repositories changed since a moment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
oldest = "0015"

# The newest checkpoint of a log is never removed.
_LATER = (
    "EXISTS (SELECT 1 FROM log_checkpoints AS later"
    " WHERE later.origin = old.origin AND later.size > old.size)"
)
_SQLITE = (
    "DROP TRIGGER log_checkpoints_no_delete",
    (
        f"CREATE TRIGGER log_checkpoints_no_delete BEFORE DELETE ON log_checkpoints WHEN NOT {_LATER} "
        "BEGIN SELECT RAISE(ABORT, 'the log is append-only: its newest checkpoint stays'); END"
    ),
)
_POSTGRESQL = (
    (
        "CREATE FUNCTION log_newest_checkpoint_stays() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN IF {_LATER} THEN RETURN old; END IF;"
        " RAISE EXCEPTION 'the log is append-only: its newest checkpoint stays'; END $$"
    ),
    "DROP TRIGGER log_checkpoints_no_delete ON log_checkpoints",
    (
        "CREATE TRIGGER log_checkpoints_no_delete BEFORE DELETE ON log_checkpoints"
        " FOR EACH ROW EXECUTE FUNCTION log_newest_checkpoint_stays()"
    ),
)


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE if sqlite else _POSTGRESQL:
        op.execute(statement)
    op.create_index("manifests_by_push", "manifests", ["pushed_at"])
    deleted = sa.text("deleted_at IS NOT NULL")
    op.create_index(
        "manifests_by_deletion",
        "manifests",
        ["deleted_at"],
        sqlite_where=deleted,
        postgresql_where=deleted,
    )
