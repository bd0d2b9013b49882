"""The tables of an S3 store of blobs: objects, incoming content, and objects to remove."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Table

from digestry.catalog.schema_metadata import IDENTITY, TEXT, metadata

# Which object of an S3 store holds which content: the objects are never renamed or copied.
blob_objects = Table(
    "blob_objects",
    metadata,
    Column("digest", TEXT, primary_key=True),
    Column("key", TEXT, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", TEXT, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Index("blob_objects_by_key", "key"),
)

# Objects whose bytes are not what their digests say, oldest first by ``id``.
quarantined_objects = Table(
    "quarantined_objects",
    metadata,
    Column("id", IDENTITY, primary_key=True),
    Column("name", TEXT, nullable=False, unique=True),
    Column("digest", TEXT, nullable=False),
    Column("key", TEXT, nullable=False),
    Column("size", BigInteger, nullable=False),
    Index("quarantined_objects_by_digest", "digest"),
    Index("quarantined_objects_by_key", "key"),
)

# Incoming content of an S3 store: its only writer until ``expires_at``, and the object, or the multipart
# upload, that it goes into. ``whole``: the parts are an object already.
blob_ingests = Table(
    "blob_ingests",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("key", TEXT, nullable=False),
    Column("upload_id", TEXT, nullable=False),
    Column("whole", Boolean, nullable=False),
    Column("holder", TEXT, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("written_at", BigInteger, nullable=False),
    Index("blob_ingests_by_key", "key"),
)

# The parts that an S3 store has of that content.
blob_ingest_parts = Table(
    "blob_ingest_parts",
    metadata,
    Column("name", TEXT, ForeignKey("blob_ingests.name"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", TEXT, nullable=False),
    Column("crc32", TEXT, nullable=False),
)

# Objects with its last bytes, which do not make a part yet, from byte ``start`` on.
blob_ingest_fragments = Table(
    "blob_ingest_fragments",
    metadata,
    Column("name", TEXT, ForeignKey("blob_ingests.name"), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("key", TEXT, nullable=False),
    Index("blob_ingest_fragments_by_key", "key"),
)

# Objects of an S3 store that no row refers to, to be removed when they are due.
object_removals = Table(
    "object_removals",
    metadata,
    Column("key", TEXT, primary_key=True),
    Column("upload_id", TEXT, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Index("object_removals_by_time", "due_at"),
)

TABLES: Final = (
    blob_objects,
    quarantined_objects,
    blob_ingests,
    blob_ingest_parts,
    blob_ingest_fragments,
    object_removals,
)
"""All of them, in the order in which rows refer to each other."""
