"""The tables. One schema for every database; times are microseconds since 1970, UTC.

Changes to it go through ``migrations/`` (Alembic); a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    Table,
    text,
)

from digestry.catalog import fleet_schema, object_schema, observation_schema, schema_metadata
from digestry.catalog.schema_metadata import IDENTITY, TEXT

metadata: Final = schema_metadata.metadata

FLEET_TABLES: Final = fleet_schema.TABLES
"""What agents reported, in the order in which rows refer to each other."""
OBSERVATION_TABLES: Final = observation_schema.TABLES
"""What was observed elsewhere, ages, and the transparency log."""
STORE_TABLES: Final = object_schema.TABLES
"""The tables of an S3 store of blobs."""

repositories = Table(
    "repositories",
    metadata,
    Column("id", IDENTITY, primary_key=True),
    Column("name", TEXT, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

# A repository's right to serve a blob. Content exists once; links make it visible.
links = Table(
    "links",
    metadata,
    Column("repository_id", IDENTITY, ForeignKey("repositories.id"), primary_key=True),
    Column("digest", TEXT, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("linked_at", BigInteger, nullable=False),
    Index("links_by_digest", "digest"),
)

# Manifests and indexes, for each repository. A deleted one keeps its row (deleted_at): it can no
# longer be pulled, but an audit still finds what a running container came from.
manifests = Table(
    "manifests",
    metadata,
    Column("repository_id", IDENTITY, ForeignKey("repositories.id"), primary_key=True),
    Column("digest", TEXT, primary_key=True),
    Column("media_type", TEXT, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("artifact_type", TEXT),
    Column("subject", TEXT),
    Column("config", TEXT),
    Column("annotations", TEXT, nullable=False),  # JSON
    Column("pushed_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Index("manifests_by_digest", "digest"),
    Index("manifests_by_subject", "repository_id", "subject"),
    Index("manifests_by_config", "repository_id", "config"),
    # Which repositories changed since a moment.
    Index("manifests_by_push", "pushed_at"),
    Index(
        "manifests_by_deletion",
        "deleted_at",
        sqlite_where=text("deleted_at IS NOT NULL"),
        postgresql_where=text("deleted_at IS NOT NULL"),
    ),
    # Which referrers any repository has for a digest, such as a layer's.
    Index(
        "manifests_by_subject_anywhere",
        "subject",
        sqlite_where=text("subject IS NOT NULL"),
        postgresql_where=text("subject IS NOT NULL"),
    ),
)

# What a manifest refers to: role is config, layer or manifest (a child of an index).
manifest_references = Table(
    "manifest_references",
    metadata,
    Column("repository_id", IDENTITY, ForeignKey("repositories.id"), primary_key=True),
    Column("parent", TEXT, primary_key=True),
    Column("child", TEXT, primary_key=True),
    Column("role", TEXT, primary_key=True),
    # All columns: SQLite's planner would else take the primary key, and walk a whole repository.
    Index("manifest_references_by_child", "repository_id", "child", "role", "parent"),
)

tags = Table(
    "tags",
    metadata,
    Column("repository_id", IDENTITY, ForeignKey("repositories.id"), primary_key=True),
    Column("name", TEXT, primary_key=True),
    Column("digest", TEXT, nullable=False),
    Column("moved_at", BigInteger, nullable=False),
    Index("tags_by_digest", "repository_id", "digest"),
)

# The size of each repository's content, kept by triggers (triggers.py): the bytes of its links and of its
# manifests that can be pulled, and its tags.
usage = Table(
    "usage",
    metadata,
    Column("repository_id", IDENTITY, ForeignKey("repositories.id"), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("tags", BigInteger, nullable=False),
)

# Append-only, by triggers; names its repository by name, since it outlives it. ``number`` counts a
# repository's entries from 1; those of the registry's one chain, before schema 0009, have the numbers up to
# 0. ``at`` rises along a repository's entries. ``sequence`` is the position in the registry, NULL until it
# is given. Of a move in another registry, ``not_before`` is when the tag was last seen unmoved; of an entry
# that is dated after the one before it because the clock was behind that, what the clock said. ``reason`` is
# that of an act that has one. Both are under the hash where an entry has one of them.
journal = Table(
    "journal",
    metadata,
    Column("repository", TEXT, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger),
    Column("at", BigInteger, nullable=False),
    Column("tag", TEXT, nullable=False),
    Column("event", TEXT, nullable=False),  # created, moved, deleted
    Column("from_digest", TEXT),
    Column("to_digest", TEXT),
    Column("media_type", TEXT, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("actor", TEXT, nullable=False),
    Column("address", TEXT, nullable=False),
    Column("client", TEXT, nullable=False),
    Column("previous_hash", TEXT, nullable=False),
    Column("hash", TEXT, nullable=False),
    Column("not_before", BigInteger),
    Column("reason", TEXT),
    Index("journal_by_sequence", "sequence", unique=True),
    Index("journal_by_time", "repository", "at"),
    Index("journal_by_tag", "repository", "tag", "at"),
    Index("journal_by_digest", "repository", "to_digest", "at"),
    Index("journal_by_left_digest", "repository", "from_digest", "tag"),
)

# ``digest`` is of the bytes 0 to ``offset``, if one PATCH wrote them all; it may be believed only while the
# machine has not restarted since (``boot``), for an upload's bytes are not fsynced. ``actor`` is whose share
# of all uploads it counts in; ``reserved`` is the size that it may reach on the disk, for quotas.
uploads = Table(
    "uploads",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("repository", TEXT, nullable=False),
    Column("algorithm", TEXT, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("digest", TEXT),
    Column("boot", TEXT, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("actor", TEXT, nullable=False, server_default="anonymous"),
    Column("reserved", BigInteger, nullable=False, server_default="0"),
    Index("uploads_by_age", "updated_at"),
    Index("uploads_by_actor", "actor"),
)

# Secrets that programs log in with, hashed. A name is used again once its token has ended.
robot_tokens = Table(
    "robot_tokens",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("secret_hash", TEXT, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    # Of an agent's token: the place that it may report for. It may do nothing else.
    Column("place", TEXT),
)

# Until when content is kept, even if nothing else holds it.
leases = Table(
    "leases",
    metadata,
    Column("digest", TEXT, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
    Index("leases_by_expiry", "expires_at"),
)

# Events to deliver to webhooks, most of them journal entries: deleted when accepted, and kept with
# ``dead_at`` when given up.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", IDENTITY, primary_key=True),
    Column("webhook", TEXT, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("queued_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("dead_at", BigInteger),
    Column("problem", TEXT, nullable=False),
    # The event itself, if it is not a journal entry's.
    Column("document", TEXT),
    Index("deliveries_by_time", "webhook", "dead_at", "due_at"),
)

# Which digest of a repository ran where, and when it was last seen there (rule 7 of docs/design.md).
# ``place`` is the audit's name for it: a host, a cluster's namespace.
sightings = Table(
    "sightings",
    metadata,
    Column("digest", TEXT, primary_key=True),
    Column("repository", TEXT, primary_key=True),
    Column("place", TEXT, primary_key=True),
    Column("containers", BigInteger, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("actor", TEXT, nullable=False),
    Index("sightings_by_time", "last_at"),
    Index("sightings_by_actor", "actor", "last_at"),
)

# How much room the sightings of each user take, kept by triggers (triggers.py).
sighting_usage = Table(
    "sighting_usage",
    metadata,
    Column("actor", TEXT, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

# Content whose bytes were found to be wrong, or gone: not served until it is pushed again.
damaged = Table(
    "damaged",
    metadata,
    Column("digest", TEXT, primary_key=True),
    Column("problem", TEXT, nullable=False),
    Column("found_at", BigInteger, nullable=False),
)

# How far the registry's own work came (collection, scrub): one row for each kind, ``state`` is JSON.
jobs = Table(
    "jobs",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("state", TEXT, nullable=False),
)

# The digest that a tag of another registry had when it was last requested.
upstream_tags = Table(
    "upstream_tags",
    metadata,
    Column("repository", TEXT, primary_key=True),
    Column("tag", TEXT, primary_key=True),
    Column("digest", TEXT, nullable=False),
    Column("checked_at", BigInteger, nullable=False),
)

# One row: which registry this is, whether the store of its blobs is known to have that ID too, and a number
# that rises, so that an older copy of the catalog can be recognised.
identity = Table(
    "identity",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("bound", Boolean, nullable=False),
    Column("generation", BigInteger, nullable=False),
)

# One row: the newest schema that the oldest digestry knows which may use this catalog.
schema_support = Table("schema_support", metadata, Column("oldest", TEXT, primary_key=True))

# Who is signed in to the pages. ``id_hash`` is the hash of the cookie's secret; ``credential`` is the
# fingerprint of what the user signed in with: a session ends when that changes.
web_sessions = Table(
    "web_sessions",
    metadata,
    Column("id_hash", TEXT, primary_key=True),
    Column("identity", TEXT, nullable=False),
    Column("credential", TEXT, nullable=False),
    Column("csrf", TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("web_sessions_by_expiry", "expires_at"),
)

# What advisories state, by vulnerability: one row for each of its names, so that a page finds the images.
advisory_statements = Table(
    "advisory_statements",
    metadata,
    Column("vulnerability", TEXT, primary_key=True),
    Column("repository", TEXT, primary_key=True),
    Column("subject", TEXT, primary_key=True),
    Column("advisory", TEXT, primary_key=True),
    Column("status", TEXT, nullable=False),
    Column("stated_at", BigInteger, nullable=False),
    Index("advisory_statements_by_advisory", "repository", "advisory"),
    Index("advisory_statements_by_subject", "subject"),
)

# Names that transactions lock where the subject of a decision, such as a quota, has no row of its own.
transaction_locks = Table("transaction_locks", metadata, Column("name", TEXT, primary_key=True))

# The tables below are the coordination's (coordination/postgresql/): what the nodes of one registry share. A
# registry on one host has them too, and uses files instead.

# Work that one node does at a time. ``fence`` rises each time that a lock is taken; ``expires_at`` is by the
# database's clock. The rows of the guards of content are always there.
locks = Table(
    "locks",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("holder", TEXT, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

# The holders of the guard of content: one row for each push between its bytes and its link.
shared_guards = Table(
    "shared_guards",
    metadata,
    Column("token", TEXT, primary_key=True),
    Column("name", TEXT, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("shared_guards_by_name", "name"),
)

# The keys that tokens are signed with, private parts included.
signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

# Networks that sent wrong passwords, or very many.
login_failures = Table(
    "login_failures",
    metadata,
    Column("source", TEXT, primary_key=True),
    Column("strikes", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("login_failures_by_expiry", "expires_at"),
)

# Upstreams that are left alone for a while, and why.
upstream_limits = Table(
    "upstream_limits",
    metadata,
    Column("host", TEXT, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
    Column("reason", TEXT, nullable=False),
)

# Short documents, by name.
notes = Table(
    "notes",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
