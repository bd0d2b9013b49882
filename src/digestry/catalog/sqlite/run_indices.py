"""The comparison of the runs with the two indices that say which images ran.

SQLite's own check looks each row up in each index, which takes a minute for millions of runs. Sums over the
rows and over the entries of the indices differ if an entry is lost, doubled or changed.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

_SUMS: Final = (
    "SELECT count(*), coalesce(sum((number * 2654435761 + image * 40503 + coalesce(ended_at, 0))"
    " & 1073741823), 0) FROM fleet_runs "
)
_ROWS: Final = f"{_SUMS} NOT INDEXED"
_ENDED: Final = f"{_SUMS} INDEXED BY fleet_runs_by_end WHERE ended_at IS NOT NULL"
_RUNNING: Final = f"{_SUMS} INDEXED BY fleet_runs_running_by_image WHERE ended_at IS NULL"


def damage_of_runs(connection: Connection) -> str | None:
    """Return how the runs and the indices by image differ; None if they do not."""
    (rows, rows_sum), (ended, ended_sum), (running, running_sum) = (
        connection.exec_driver_sql(query).one() for query in (_ROWS, _ENDED, _RUNNING)
    )
    if rows != ended + running:
        return f"{rows} rows of fleet_runs, and {ended + running} in its indices by image"
    if rows_sum != ended_sum + running_sum:
        return "rows of fleet_runs differ from its indices by image"
    return None
