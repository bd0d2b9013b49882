"""How much each repository holds, kept by triggers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import IDENTITY

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SHOWN = "CASE WHEN {row}.deleted_at IS NULL THEN {row}.size ELSE 0 END"
_TRIGGERS = (
    ("link_added", "INSERT ON links", "new", "bytes = bytes + new.size"),
    ("link_removed", "DELETE ON links", "old", "bytes = bytes - old.size"),
    ("link_changed", "UPDATE OF size ON links", "new", "bytes = bytes + new.size - old.size"),
    ("manifest_added", "INSERT ON manifests", "new", f"bytes = bytes + {_SHOWN.format(row='new')}"),
    ("manifest_removed", "DELETE ON manifests", "old", f"bytes = bytes - {_SHOWN.format(row='old')}"),
    (
        "manifest_changed",
        "UPDATE OF size, deleted_at ON manifests",
        "new",
        f"bytes = bytes + {_SHOWN.format(row='new')} - {_SHOWN.format(row='old')}",
    ),
    ("tag_added", "INSERT ON tags", "new", "tags = tags + 1"),
    ("tag_removed", "DELETE ON tags", "old", "tags = tags - 1"),
)


def _postgresql(name: str, event: str, body: str, result: str) -> tuple[str, str]:
    return (
        (
            f"CREATE FUNCTION usage_{name}() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN {body}; RETURN {result}; END $$"
        ),
        f"CREATE TRIGGER usage_{name} AFTER {event} FOR EACH ROW EXECUTE FUNCTION usage_{name}()",
    )


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column(
            "repository_id",
            IDENTITY,
            sa.ForeignKey("repositories.id"),
            primary_key=True,
        ),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("tags", sa.BigInteger, nullable=False),
    )
    op.execute(
        "INSERT INTO usage (repository_id, bytes, tags) SELECT id,"
        " (SELECT coalesce(sum(size), 0) FROM links WHERE repository_id = repositories.id)"
        " + (SELECT coalesce(sum(size), 0) FROM manifests"
        " WHERE repository_id = repositories.id AND deleted_at IS NULL),"
        " (SELECT count(*) FROM tags WHERE repository_id = repositories.id)"
        " FROM repositories"
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER usage_repository_added AFTER INSERT ON repositories"
            " BEGIN INSERT INTO usage (repository_id, bytes, tags) VALUES (new.id, 0, 0); END"
        )
        for name, event, row, change in _TRIGGERS:
            op.execute(
                f"CREATE TRIGGER usage_{name} AFTER {event}"  # noqa: S608 - all of it is written here
                f" BEGIN UPDATE usage SET {change} WHERE repository_id = {row}.repository_id; END"
            )
    else:
        added = "INSERT INTO usage (repository_id, bytes, tags) VALUES (new.id, 0, 0)"
        statements = [*_postgresql("repository_added", "INSERT ON repositories", added, "new")]
        for name, event, row, change in _TRIGGERS:
            counted = f"UPDATE usage SET {change} WHERE repository_id = {row}.repository_id"  # noqa: S608
            statements += _postgresql(name, event, counted, row)
        for statement in statements:
            op.execute(statement)
