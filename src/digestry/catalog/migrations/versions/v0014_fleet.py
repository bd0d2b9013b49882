"""What agents report runs; statements by vulnerability; who is signed in to the pages; agents' tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from digestry.catalog.migrations.column_types import IDENTITY, TEXT

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
oldest = "0013"


def upgrade() -> None:
    op.add_column("robot_tokens", sa.Column("place", TEXT))
    op.add_column("deliveries", sa.Column("document", TEXT))
    subjects = sa.text("subject IS NOT NULL")
    op.create_index(
        "manifests_by_subject_anywhere",
        "manifests",
        ["subject"],
        sqlite_where=subjects,
        postgresql_where=subjects,
    )
    _create_agents()
    _create_images()
    _create_runs()
    op.create_table(
        "web_sessions",
        sa.Column("id_hash", TEXT, primary_key=True),
        sa.Column("identity", TEXT, nullable=False),
        sa.Column("credential", TEXT, nullable=False),
        sa.Column("csrf", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("web_sessions_by_expiry", "web_sessions", ["expires_at"])
    op.create_table(
        "advisory_statements",
        sa.Column("vulnerability", TEXT, primary_key=True),
        sa.Column("repository", TEXT, primary_key=True),
        sa.Column("subject", TEXT, primary_key=True),
        sa.Column("advisory", TEXT, primary_key=True),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("stated_at", sa.BigInteger, nullable=False),
    )
    op.create_index("advisory_statements_by_advisory", "advisory_statements", ["repository", "advisory"])
    op.create_index("advisory_statements_by_subject", "advisory_statements", ["subject"])


def _create_agents() -> None:
    op.create_table(
        "fleet_agents",
        sa.Column("number", IDENTITY, primary_key=True),
        sa.Column("id", TEXT, nullable=False, unique=True),
        sa.Column("place", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("interval", sa.BigInteger, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("clock_offset", sa.BigInteger, nullable=False),
        sa.Column("stopped_at", sa.BigInteger),
        sa.Column("hour", sa.BigInteger, nullable=False),
        sa.Column("hour_runs", sa.BigInteger, nullable=False),
        sa.Column("hour_images", sa.BigInteger, nullable=False),
        sa.Column("silent_at", sa.BigInteger),
    )
    op.create_index("fleet_agents_by_place", "fleet_agents", ["place"])
    op.create_index("fleet_agents_by_time", "fleet_agents", ["last_at"])
    op.create_table(
        "fleet_sources",
        sa.Column("number", IDENTITY, primary_key=True),
        sa.Column("place", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("agent", sa.BigInteger, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("confirmed_at", sa.BigInteger, nullable=False),
        sa.Column("running", sa.BigInteger, nullable=False),
        sa.Column("snapshot_at", sa.BigInteger),
        sa.Column("problem", TEXT, nullable=False),
        sa.Column("problem_at", sa.BigInteger),
    )
    op.create_index("fleet_sources_by_name", "fleet_sources", ["place", "source"], unique=True)
    op.create_table(
        "fleet_gaps",
        sa.Column("number", IDENTITY, primary_key=True),
        sa.Column("source", sa.BigInteger, sa.ForeignKey("fleet_sources.number"), nullable=False),
        sa.Column("from_at", sa.BigInteger, nullable=False),
        sa.Column("until_at", sa.BigInteger, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
    )
    op.create_index("fleet_gaps_by_source", "fleet_gaps", ["source", "until_at"])
    op.create_index("fleet_gaps_by_time", "fleet_gaps", ["until_at"])


def _create_images() -> None:
    op.create_table(
        "fleet_images",
        sa.Column("number", IDENTITY, primary_key=True),
        sa.Column("hash", TEXT, nullable=False, unique=True),
        sa.Column("document", TEXT, nullable=False),
        sa.Column("reference", TEXT),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("home", TEXT, nullable=False),
        sa.Column("related_at", sa.BigInteger),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("verdict", TEXT),
        sa.Column("judged_at", sa.BigInteger),
    )
    op.create_index("fleet_images_by_state", "fleet_images", ["state"])
    op.create_index("fleet_images_by_repository", "fleet_images", ["repository"])
    op.create_index("fleet_images_by_home", "fleet_images", ["home"])
    op.create_index("fleet_images_by_judgement", "fleet_images", ["judged_at"])
    op.create_index("fleet_images_by_relation", "fleet_images", ["related_at"])
    op.create_table(
        "fleet_image_digests",
        sa.Column("digest", TEXT, primary_key=True),
        sa.Column("image", sa.BigInteger, sa.ForeignKey("fleet_images.number"), primary_key=True),
        sa.Column("kind", TEXT, nullable=False),
    )
    op.create_index("fleet_image_digests_by_image", "fleet_image_digests", ["image"])
    op.create_table(
        "fleet_image_vulnerabilities",
        sa.Column("vulnerability", TEXT, primary_key=True),
        sa.Column("image", sa.BigInteger, sa.ForeignKey("fleet_images.number"), primary_key=True),
        sa.Column("status", TEXT, nullable=False),
    )
    op.create_index("fleet_image_vulnerabilities_by_image", "fleet_image_vulnerabilities", ["image"])


def _create_runs() -> None:
    op.create_table(
        "fleet_runs",
        sa.Column("number", IDENTITY, primary_key=True),
        sa.Column("source", sa.BigInteger, sa.ForeignKey("fleet_sources.number"), nullable=False),
        sa.Column("container", TEXT, nullable=False),
        sa.Column("instance", TEXT, nullable=False),
        sa.Column("image", sa.BigInteger, nullable=False),
        sa.Column("agent", sa.BigInteger, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("workload", TEXT, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("ended_after", sa.BigInteger),
    )
    op.create_index("fleet_runs_by_container", "fleet_runs", ["source", "container", "instance"], unique=True)
    runs = sa.text("ended_at IS NULL")
    for name, columns in (
        ("fleet_runs_open", ["source", "container"]),
        ("fleet_runs_running", ["started_at", "ended_at"]),
        ("fleet_runs_running_by_image", ["image", "started_at", "source", "ended_at"]),
    ):
        op.create_index(name, "fleet_runs", columns, sqlite_where=runs, postgresql_where=runs)
    op.create_index("fleet_runs_started", "fleet_runs", ["started_at", "image"])
    ended = sa.text("ended_at IS NOT NULL")
    for name, columns in (
        ("fleet_runs_by_end", ["image", "ended_at", "started_at"]),
        ("fleet_runs_ended", ["ended_at", "started_at", "image"]),
    ):
        op.create_index(name, "fleet_runs", columns, sqlite_where=ended, postgresql_where=ended)
    op.create_table(
        "fleet_early_ends",
        sa.Column("source", sa.BigInteger, sa.ForeignKey("fleet_sources.number"), primary_key=True),
        sa.Column("container", TEXT, primary_key=True),
        sa.Column("instance", TEXT, primary_key=True),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("ended_after", sa.BigInteger, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
    )
    op.create_index("fleet_early_ends_by_time", "fleet_early_ends", ["received_at"])
    op.create_table(
        "fleet_snapshot_runs",
        sa.Column("source", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("snapshot", TEXT, primary_key=True),
        sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
    )
    op.create_index("fleet_snapshot_runs_by_time", "fleet_snapshot_runs", ["received_at"])
