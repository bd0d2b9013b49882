"""The tables of the fleet: which agents report, and which container ran which image where, from when to when.

Times are microseconds since 1970, UTC, by the registry's clock: what an agent reports is corrected by the
difference between its clock and the registry's (docs/adr/0028).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Table, text

from digestry.catalog.schema_metadata import IDENTITY, TEXT, metadata

# Agents. ``id`` is the agent's own, made at its first start; ``sequence`` is the last entry of its that was
# accepted. ``clock_offset`` is how many microseconds its clock is ahead. An agent is silent if nothing was
# received for several of its ``interval`` (seconds), unless it said that it stops (``stopped_at``).
# ``hour_runs`` and ``hour_images`` are the rows that it caused in the hour ``hour`` since 1970.
fleet_agents = Table(
    "fleet_agents",
    metadata,
    Column("number", IDENTITY, primary_key=True),
    Column("id", TEXT, nullable=False, unique=True),
    Column("place", TEXT, nullable=False),
    Column("actor", TEXT, nullable=False),
    Column("version", TEXT, nullable=False),
    Column("interval", BigInteger, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("clock_offset", BigInteger, nullable=False),
    Column("stopped_at", BigInteger),
    Column("hour", BigInteger, nullable=False),
    Column("hour_runs", BigInteger, nullable=False),
    Column("hour_images", BigInteger, nullable=False),
    Column("silent_at", BigInteger),  # when its silence was reported, until it is heard again
    Index("fleet_agents_by_place", "place"),
    Index("fleet_agents_by_time", "last_at"),
)

# What an agent looks at, in one place: an engine, a cluster. Every open run of it is known to have run until
# ``confirmed_at``; so a report that nothing changed writes one row, however many containers run.
# ``running`` is how many of its runs have no end; each transaction that changes these changes it too.
# ``snapshot_at`` is the time of the latest whole snapshot: an older one, which came late, ends no run.
fleet_sources = Table(
    "fleet_sources",
    metadata,
    Column("number", IDENTITY, primary_key=True),
    Column("place", TEXT, nullable=False),
    Column("source", TEXT, nullable=False),
    Column("agent", BigInteger, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("confirmed_at", BigInteger, nullable=False),
    Column("running", BigInteger, nullable=False),
    Column("snapshot_at", BigInteger),
    Column("problem", TEXT, nullable=False),
    Column("problem_at", BigInteger),
    Index("fleet_sources_by_name", "place", "source", unique=True),
)

# Times of which an agent does not know what started and stopped.
fleet_gaps = Table(
    "fleet_gaps",
    metadata,
    Column("number", IDENTITY, primary_key=True),
    Column("source", BigInteger, ForeignKey("fleet_sources.number"), nullable=False),
    Column("from_at", BigInteger, nullable=False),
    Column("until_at", BigInteger, nullable=False),
    Column("reason", TEXT, nullable=False),
    Index("fleet_gaps_by_source", "source", "until_at"),
    Index("fleet_gaps_by_time", "until_at"),
)

# Images as engines describe them: ``document`` is a model.fleet.ImageReport, ``hash`` is of it. ``host`` and
# ``repository`` are of its reference; ``digest`` is the one that tells most, of ``kind``. ``home`` is the
# repository of this registry that has or had it, by that name; empty if none. It was looked up at
# ``related_at``. ``state`` and ``verdict`` (a model.fleet_answers.FleetVerdict) are the audit's judgement, at
# ``judged_at``.
fleet_images = Table(
    "fleet_images",
    metadata,
    Column("number", IDENTITY, primary_key=True),
    Column("hash", TEXT, nullable=False, unique=True),
    Column("document", TEXT, nullable=False),
    Column("reference", TEXT),
    Column("host", TEXT, nullable=False),
    Column("repository", TEXT, nullable=False),
    Column("digest", TEXT),
    Column("kind", TEXT, nullable=False),
    Column("home", TEXT, nullable=False),
    Column("related_at", BigInteger),
    Column("first_at", BigInteger, nullable=False),
    Column("state", TEXT, nullable=False),
    Column("verdict", TEXT),
    Column("judged_at", BigInteger),
    Index("fleet_images_by_state", "state"),
    Index("fleet_images_by_repository", "repository"),
    Index("fleet_images_by_home", "home"),
    Index("fleet_images_by_judgement", "judged_at"),
    Index("fleet_images_by_relation", "related_at"),
)

# Every digest that an image is known by: what engines said, and its index, manifest, config and layers as
# the registry's graph has them.
fleet_image_digests = Table(
    "fleet_image_digests",
    metadata,
    Column("digest", TEXT, primary_key=True),
    Column("image", BigInteger, ForeignKey("fleet_images.number"), primary_key=True),
    Column("kind", TEXT, nullable=False),
    Index("fleet_image_digests_by_image", "image"),
)

# What the verdict on an image says about each vulnerability.
fleet_image_vulnerabilities = Table(
    "fleet_image_vulnerabilities",
    metadata,
    Column("vulnerability", TEXT, primary_key=True),
    Column("image", BigInteger, ForeignKey("fleet_images.number"), primary_key=True),
    Column("status", TEXT, nullable=False),
    Index("fleet_image_vulnerabilities_by_image", "image"),
)

LONGER_THAN: Final = (1, 4, 16, 64, 256)
"""The classes of long runs, in days. A run that ran at a time ended within the longest of its class after it:
a question about a time reads few others."""

# Runs: a container from one start to its end. ``instance`` tells this start of the container from its others,
# in the engine's own words. ``ended_at`` is NULL while it runs; it ended after ``ended_after`` and at
# ``ended_at`` or before: the two are equal if the end was seen. ``longer_than`` is the largest of
# :data:`LONGER_THAN` days that it took more than; NULL while it runs, and for shorter ones. SQLite reads
# ``ended_at`` even where an index has only rows without it: those that whole questions are answered from have
# it as a column.
fleet_runs = Table(
    "fleet_runs",
    metadata,
    Column("number", IDENTITY, primary_key=True),
    Column("source", BigInteger, ForeignKey("fleet_sources.number"), nullable=False),
    Column("container", TEXT, nullable=False),
    Column("instance", TEXT, nullable=False),
    # No foreign key: it would need another index over all runs. Only images without runs are removed.
    Column("image", BigInteger, nullable=False),
    Column("agent", BigInteger, nullable=False),
    Column("name", TEXT, nullable=False),
    Column("namespace", TEXT, nullable=False),
    Column("node", TEXT, nullable=False),
    Column("workload", TEXT, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("ended_after", BigInteger),
    Column("longer_than", BigInteger),
    Index("fleet_runs_by_container", "source", "container", "instance", unique=True),
    Index(
        "fleet_runs_open",
        "source",
        "container",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index(
        "fleet_runs_running",
        "started_at",
        "ended_at",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index(
        "fleet_runs_running_by_image",
        "image",
        "started_at",
        "source",
        "ended_at",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index("fleet_runs_started", "started_at", "image"),
    Index(
        "fleet_runs_by_end",
        "image",
        "ended_at",
        "started_at",
        sqlite_where=text("ended_at IS NOT NULL"),
        postgresql_where=text("ended_at IS NOT NULL"),
    ),
    Index(
        "fleet_runs_ended",
        "ended_at",
        "started_at",
        "image",
        sqlite_where=text("ended_at IS NOT NULL"),
        postgresql_where=text("ended_at IS NOT NULL"),
    ),
    Index(
        "fleet_runs_long",
        "longer_than",
        "ended_at",
        "started_at",
        "image",
        sqlite_where=text("longer_than IS NOT NULL"),
        postgresql_where=text("longer_than IS NOT NULL"),
    ),
)

# How many runs of an image started and ended in the ``length`` microseconds from ``from_at`` on: a quarter of
# a day, or a day.
fleet_run_counts = Table(
    "fleet_run_counts",
    metadata,
    Column("length", BigInteger, primary_key=True, autoincrement=False),
    Column("from_at", BigInteger, primary_key=True, autoincrement=False),
    Column("image", BigInteger, primary_key=True, autoincrement=False),
    Column("started", BigInteger, nullable=False),
    Column("ended", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What the counts do not have yet, in quarters of a day. Each transaction that changes runs adds its rows, so
# that none waits for another one's count; the upkeep moves them into the counts.
fleet_run_changes = Table(
    "fleet_run_changes",
    metadata,
    Column("number", IDENTITY, primary_key=True),
    Column("from_at", BigInteger, nullable=False),
    Column("image", BigInteger, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("ended", BigInteger, nullable=False),
)

# Ends that were reported before their starts, by another agent of the same place.
fleet_early_ends = Table(
    "fleet_early_ends",
    metadata,
    Column("source", BigInteger, ForeignKey("fleet_sources.number"), primary_key=True),
    Column("container", TEXT, primary_key=True),
    Column("instance", TEXT, primary_key=True),
    Column("ended_at", BigInteger, nullable=False),
    Column("ended_after", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Index("fleet_early_ends_by_time", "received_at"),
)

# The runs that the parts of a snapshot named so far, for a snapshot of several reports.
fleet_snapshot_runs = Table(
    "fleet_snapshot_runs",
    metadata,
    Column("source", BigInteger, primary_key=True, autoincrement=False),
    Column("snapshot", TEXT, primary_key=True),
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("received_at", BigInteger, nullable=False),
    Index("fleet_snapshot_runs_by_time", "received_at"),
)

TABLES: Final = (
    fleet_agents,
    fleet_sources,
    fleet_gaps,
    fleet_images,
    fleet_image_digests,
    fleet_image_vulnerabilities,
    fleet_runs,
    fleet_run_counts,
    fleet_run_changes,
    fleet_early_ends,
    fleet_snapshot_runs,
)
"""All of them, in the order in which rows refer to each other."""
