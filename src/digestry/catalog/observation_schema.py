"""The tables of what was observed in other registries, of ages, and of the transparency log.

Times are microseconds since 1970, UTC.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, Table

from digestry.catalog.schema_metadata import IDENTITY, TEXT, metadata

# What is to be observed beside what the configuration says: added by ``digestry observe add``. ``repository``
# is a name with its registry's host; ``tags`` are patterns (JSON); ``interval`` is in microseconds.
observation_rules = Table(
    "observation_rules",
    metadata,
    Column("number", IDENTITY, primary_key=True),
    Column("repository", TEXT, nullable=False, unique=True),
    Column("tags", TEXT, nullable=False),
    Column("interval", BigInteger, nullable=False),
    Column("keep", Boolean, nullable=False),
    Column("keep_for", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("actor", TEXT, nullable=False),
)

# What is observed and when it is due. ``tag`` is empty for a repository's list of tags. ``etag`` is the
# validator of the last answer; ``failures`` counts the failed requests since that.
observation_schedule = Table(
    "observation_schedule",
    metadata,
    Column("repository", TEXT, primary_key=True),
    Column("tag", TEXT, primary_key=True),
    Column("interval", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("etag", TEXT, nullable=False),
    Index("observation_schedule_by_time", "repository", "due_at"),
)

# What the observations of a tag found, in spans: ``outcome`` is seen (``digest``), absent or failed
# (``reason``). A span is a row: further observations of the same outcome that come in time
# (observation_rows.py says when that is) move its ``last_at`` on. Between two spans nothing is known. ``tag``
# is empty for a repository's list of tags; ``interval`` is that of the last observation, in microseconds.
observations = Table(
    "observations",
    metadata,
    Column("number", IDENTITY, primary_key=True),
    Column("repository", TEXT, nullable=False),
    Column("tag", TEXT, nullable=False),
    Column("outcome", TEXT, nullable=False),
    Column("digest", TEXT),
    Column("reason", TEXT, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("interval", BigInteger, nullable=False),
    Index("observations_by_tag", "repository", "tag", "number"),
    Index("observations_by_time", "last_at"),
)

# The moves of observed tags: entries of the journal, by their number in the repository. ``document`` is what
# is known of a move (JSON). ``pending``: 3, or 2 of a tag that is new, until its images were looked at; 1
# until the content is here that is to be kept; and 0. ``kept``: it is here. ``attempts`` counts what failed,
# and ``due_at`` is when it is tried again.
observed_moves = Table(
    "observed_moves",
    metadata,
    Column("repository", TEXT, primary_key=True),
    Column("entry", BigInteger, primary_key=True, autoincrement=False),
    Column("tag", TEXT, nullable=False),
    Column("event", TEXT, nullable=False),
    Column("from_digest", TEXT),
    Column("to_digest", TEXT),
    Column("at", BigInteger, nullable=False),
    Column("not_before", BigInteger),
    Column("document", TEXT, nullable=False),
    Column("pending", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("kept", Boolean, nullable=False),
    Index("observed_moves_by_time", "at"),
    Index("observed_moves_by_tag", "repository", "tag", "at"),
    Index("observed_moves_by_due", "pending", "due_at", "repository"),
    Index("observed_moves_by_digest", "repository", "to_digest", "at"),
    Index("observed_moves_by_left_digest", "repository", "from_digest", "at"),
)

# The local repositories whose observed images are kept: for ``duration`` (microseconds) after a tag left
# them, or without an end.
kept_observations = Table(
    "kept_observations",
    metadata,
    Column("repository", TEXT, primary_key=True),
    Column("duration", BigInteger),
)

# Who let a digest through that is younger than its tag's minimum age, and why. ``tag`` and ``digest`` are
# empty for any. It holds until ``ends_at``, or until it was taken back (``ended_at``).
age_overrides = Table(
    "age_overrides",
    metadata,
    Column("number", IDENTITY, primary_key=True),
    Column("repository", TEXT, nullable=False),
    Column("tag", TEXT, nullable=False),
    Column("digest", TEXT, nullable=False),
    Column("reason", TEXT, nullable=False),
    Column("actor", TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger),
    Column("ended_at", BigInteger),
    # The manifest of the advisory that makes it, and what that is attached to; empty for a person's.
    Column("advisory", TEXT, nullable=False),
    Column("advised", TEXT, nullable=False),
    Index("age_overrides_by_repository", "repository", "tag"),
)

# The leaves of the transparency log: one for each entry of the journal, at the same position (``sequence``,
# from 1; the log counts from 0). ``secret`` is what the salts of its commitments come from; ``sealed`` says
# whether the leaf is only a commitment.
log_entries = Table(
    "log_entries",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("sealed", Boolean, nullable=False),
)

# The hashes of the log's whole subtrees of 256 leaves, 65,536 and so on: level 1, 2 and so on of its tiles.
log_nodes = Table(
    "log_nodes",
    metadata,
    Column("level", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

# The names under which the log was signed; the last one is in force. A new name begins a new log for who
# verifies it, with the same leaves.
log_origins = Table(
    "log_origins",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("origin", TEXT, nullable=False, unique=True),
    Column("began_at", BigInteger, nullable=False),
    Column("reason", TEXT, nullable=False),
)

# The checkpoints that were signed: at most one for each size of a log. ``cosignatures`` are the lines of
# witnesses.
log_checkpoints = Table(
    "log_checkpoints",
    metadata,
    Column("origin", TEXT, primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", TEXT, nullable=False),
    Column("signed_at", BigInteger, nullable=False),
    Column("cosignatures", TEXT, nullable=False),
)

# The registry's keys for logs, of the type ``algorithm`` (signed-note): those that sign its own log, whose
# ``name`` is the origin, and the one with which it is a witness of others. One that is rotated out signs
# until ``retired_at``.
log_keys = Table(
    "log_keys",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("public", LargeBinary, primary_key=True),
    Column("algorithm", BigInteger, nullable=False),
    Column("private", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
)

# What this registry has seen of other logs, as their witness.
witnessed_logs = Table(
    "witnessed_logs",
    metadata,
    Column("origin", TEXT, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("checkpoint", TEXT, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

TABLES: Final = (
    observation_rules,
    observation_schedule,
    observations,
    observed_moves,
    kept_observations,
    age_overrides,
    log_entries,
    log_nodes,
    log_origins,
    log_checkpoints,
    log_keys,
    witnessed_logs,
)
"""All of them, in the order in which rows refer to each other."""
