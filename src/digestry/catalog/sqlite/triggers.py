"""The triggers of a catalog: their texts, as SQLite keeps them.

A catalog that comes from elsewhere, as in a backup, may have these and no others.
"""

from __future__ import annotations

from typing import Final

_SHOWN: Final = "CASE WHEN {row}.deleted_at IS NULL THEN {row}.size ELSE 0 END"
_NEW: Final = _SHOWN.format(row="new")
_OLD: Final = _SHOWN.format(row="old")
_SIGHTING: Final = (
    "200 + 2 * length(CAST({row}.place || {row}.repository || {row}.digest || {row}.actor AS BLOB))"
)
_NEW_SIGHTING: Final = _SIGHTING.format(row="new")
_FORGOTTEN: Final = _SIGHTING.format(row="old")


_COSIGNED: Final = ("log_checkpoints", "UPDATE")
_SAME: Final = " AND ".join(
    f"new.{column} IS old.{column}"
    for column in (
        "number", "repository", "at", "tag", "event", "from_digest", "to_digest", "media_type", "size",
        "actor", "address", "client", "previous_hash", "hash", "not_before", "reason",
    )
)  # fmt: skip


def _append_only(action: str) -> str:
    return (
        f"CREATE TRIGGER journal_no_{action.lower()} BEFORE {action} ON journal "
        "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
    )


def _log_append_only(table: str, action: str) -> str:
    columns = " OF origin, size, root, note, signed_at" if (table, action) == _COSIGNED else ""
    return (
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action}{columns} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END"
    )


def _counting(name: str, event: str, row: str, change: str) -> str:
    return (
        f"CREATE TRIGGER usage_{name} AFTER {event}"  # noqa: S608 - all of it is written here
        f" BEGIN UPDATE usage SET {change} WHERE repository_id = {row}.repository_id; END"
    )


TRIGGERS: Final = frozenset(
    {
        (
            "CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal"
            f" WHEN NOT (old.sequence IS NULL AND new.sequence IS NOT NULL AND {_SAME})"
            " BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
        ),
        _append_only("DELETE"),
        *(
            _log_append_only(table, action)
            for table in ("log_entries", "log_nodes", "log_origins")
            for action in ("UPDATE", "DELETE")
        ),
        _log_append_only("log_checkpoints", "UPDATE"),
        (
            "CREATE TRIGGER log_checkpoints_no_delete BEFORE DELETE ON log_checkpoints"
            " WHEN NOT EXISTS (SELECT 1 FROM log_checkpoints AS later"
            " WHERE later.origin = old.origin AND later.size > old.size) "
            "BEGIN SELECT RAISE(ABORT, 'the log is append-only: its newest checkpoint stays'); END"
        ),
        (
            "CREATE TRIGGER usage_repository_added AFTER INSERT ON repositories"
            " BEGIN INSERT INTO usage (repository_id, bytes, tags) VALUES (new.id, 0, 0); END"
        ),
        _counting("link_added", "INSERT ON links", "new", "bytes = bytes + new.size"),
        _counting("link_removed", "DELETE ON links", "old", "bytes = bytes - old.size"),
        _counting("link_changed", "UPDATE OF size ON links", "new", "bytes = bytes + new.size - old.size"),
        _counting("manifest_added", "INSERT ON manifests", "new", f"bytes = bytes + {_NEW}"),
        _counting("manifest_removed", "DELETE ON manifests", "old", f"bytes = bytes - {_OLD}"),
        _counting(
            "manifest_changed",
            "UPDATE OF size, deleted_at ON manifests",
            "new",
            f"bytes = bytes + {_NEW} - {_OLD}",
        ),
        (
            "CREATE TRIGGER sighting_added AFTER INSERT ON sightings"  # noqa: S608 - all of it is written here
            f" BEGIN INSERT INTO sighting_usage (actor, bytes) VALUES (new.actor, {_NEW_SIGHTING})"
            " ON CONFLICT (actor) DO UPDATE SET bytes = bytes + excluded.bytes; END"
        ),
        (
            "CREATE TRIGGER sighting_removed AFTER DELETE ON sightings"  # noqa: S608 - all of it is written here
            f" BEGIN UPDATE sighting_usage SET bytes = bytes - ({_FORGOTTEN})"
            " WHERE actor = old.actor;"
            " DELETE FROM sighting_usage WHERE actor = old.actor AND bytes <= 0; END"
        ),
        _counting("tag_added", "INSERT ON tags", "new", "tags = tags + 1"),
        _counting("tag_removed", "DELETE ON tags", "old", "tags = tags - 1"),
    }
)
"""Those of the newest schema."""

FROZEN: Final = "this registry moves to other stores, and takes no changes here"
"""The error of a change that a trigger of :func:`freezing` refuses."""


def freezing(table: str) -> dict[str, str]:
    """Return the triggers that refuse all changes of ``table``, by their names."""
    return {
        f"frozen_{table}_{action.lower()}": (
            f"CREATE TRIGGER frozen_{table}_{action.lower()} BEFORE {action} ON {table}"
            f" BEGIN SELECT RAISE(ABORT, '{FROZEN}'); END"
        )
        for action in ("INSERT", "UPDATE", "DELETE")
    }


OLDER_TRIGGERS: Final = frozenset({_append_only("UPDATE"), _log_append_only("log_checkpoints", "DELETE")})
"""The triggers of older schemas that the newest one no longer has."""
