"""The hashes of journal entries: what each one covers (docs/http-api.md has the exact bytes).

Since schema 0009 each repository has a chain of its own. The entries before that are in one chain of the
whole registry, whose last hash is where the chain of each repository begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

GENESIS: Final = "0" * 64
"""The value in place of the hash before the first entry of a registry."""

# Named here, and not read off the table: a column that a later schema adds is not under old hashes.
HASHED: Final = (
    "repository",
    "number",
    "at",
    "tag",
    "event",
    "from_digest",
    "to_digest",
    "media_type",
    "size",
    "actor",
    "address",
    "client",
    "previous_hash",
)
"""The columns under the hash of an entry."""

HASHED_IF_GIVEN: Final = ("not_before", "reason")
"""The columns that are under the hash too, after those of :data:`HASHED`, where an entry has one of them."""

HASHED_BEFORE: Final = ("sequence", "at", "repository", *HASHED[3:])
"""The columns under the hash of an entry in the registry's one chain, before schema 0009."""


def hash_of(fields: Sequence[object]) -> str:
    """Return the hash of an entry whose fields these are, in the order of :data:`HASHED`, or of
    :data:`HASHED_BEFORE`."""
    return hashlib.sha256(hashed_bytes(fields)).hexdigest()


def hashed_bytes(fields: Sequence[object]) -> bytes:
    """Return the bytes under the hash of an entry with these fields."""
    # A JSON array: unambiguous for any fields, and easy to compute elsewhere.
    return msgspec.json.encode(fields)


def hashed_fields(fields: Sequence[object], further: Sequence[object]) -> tuple[object, ...]:
    """Return all that is under the hash of an entry: its fields in the order of :data:`HASHED`, and those of
    :data:`HASHED_IF_GIVEN` if it has one of them."""
    # Entries without them keep the hashes that they had before there were such columns.
    return tuple(fields) if all(value is None for value in further) else (*fields, *further)


def registry_hash(before: str, entry: str) -> str:
    """Return the hash over all entries up to one whose hash is ``entry``, from that over those before it.

    It covers the registry's order of entries, and so the end of each repository's chain.
    """
    return hashlib.sha256(f"{before}{entry}".encode()).hexdigest()
