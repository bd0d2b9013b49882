"""The entries of a registry's log: what a leaf says about an entry of the journal, and how it is opened.

An entry is JSON. It has the fields that every reader of its repository's journal gets, and a commitment to
the rest: who, from where, with what, why, and the journal's hashes. A leaf of a repository that everybody may
read is the entry; any other leaf is a commitment to the entry, and says nothing else. docs/transparency.md
has the exact bytes.

A commitment is SHA-256 over a salt of 32 bytes and the bytes that are committed to. Both salts of a leaf come
from one secret that the registry keeps, so that it can give away one without the other.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

import msgspec

from digestry.errors import ContentError
from digestry.model.descriptor import decode_hook
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.json_types import prepared
from digestry.model.timestamps import rfc3339
from digestry.translog.tiles import LONGEST_ENTRY

FORMAT: Final = "digestry-entry/v1"
"""The ``format`` of an entry."""
SEALED: Final = "digestry-sealed/v1"
"""The ``format`` of a leaf that is only a commitment to an entry."""
SECRET_SIZE: Final = 16
SALT_SIZE: Final = 32

_REST: Final = b"rest"
_ENTRY: Final = b"entry"


class InvalidEntry(ContentError):
    """A leaf that is no entry of this format, or an opening that is not of its leaf."""


class Entry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An entry of the log, as a leaf in clear has it. ``rest`` is the commitment to the :class:`Rest`, in
    hexadecimal.

    ``actor`` is given only where the registry's mirror saw the move in another registry.
    """

    repository: str
    tag: str
    event: str
    at: datetime.datetime
    rest: str
    from_digest: Digest | None = None
    to_digest: Digest | None = None
    media_type: str = ""
    size: int = 0
    number: int | None = None
    not_before: datetime.datetime | None = None
    actor: str = ""
    format: str = ""


class Rest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The part of an entry for those who may audit its repository."""

    actor: str
    address: str
    client: str
    sequence: int
    previous_hash: str
    hash: str
    reason: str | None = None


class Sealed(msgspec.Struct, frozen=True, rename="camel"):
    """A leaf that is only a commitment to an entry, in hexadecimal."""

    format: str
    entry: str


class Opening(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The opening of the leaf ``index`` for a reader of its repository.

    ``entry`` are the bytes of the entry, as text. ``salt`` (hexadecimal) opens a sealed leaf; without it the
    leaf is the entry. ``rest`` and ``rest_salt`` are for those who may audit the repository.
    """

    index: int
    entry: str
    salt: str = ""
    rest: str = ""
    rest_salt: str = ""


class Openings(msgspec.Struct, frozen=True, rename="camel"):
    """``GET /v2/<name>/_digestry/log/openings``: the openings of a repository's leaves, by rising index."""

    repository: str
    openings: tuple[Opening, ...]


@dataclass(frozen=True, slots=True)
class OpenedEntry:
    """An entry whose opening matches its leaf; ``rest`` is None for a reader who does not get it.

    ``content`` are the entry's bytes.
    """

    index: int
    entry: Entry
    content: bytes
    rest: Rest | None


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf as the registry makes it: its own bytes (``content``), and those that it commits to."""

    content: bytes
    entry: bytes
    rest: bytes
    secret: bytes

    @property
    def is_sealed(self) -> bool:
        """Whether the leaf is only a commitment."""
        return self.content != self.entry

    def opening(self, index: int, *, audits: bool) -> Opening:
        """Return the opening for a reader who may, or may not, audit the repository."""
        return Opening(
            index,
            self.entry.decode(),
            salt=salt_of(self.secret, _ENTRY).hex() if self.is_sealed else "",
            rest=self.rest.decode() if audits else "",
            rest_salt=salt_of(self.secret, _REST).hex() if audits else "",
        )


def make_leaf(event: TagEvent, secret: bytes, *, sealed: bool) -> Leaf:
    """Return the leaf of a journal entry, which has its position. The same values make the same bytes.

    One that is too long for a bundle is sealed in any case.
    """
    rest = _encode(
        {
            "actor": event.actor,
            "address": event.address,
            "client": event.client,
            "sequence": event.sequence,
            "previousHash": event.previous_hash,
            "hash": event.hash,
            "reason": event.reason,
        }
    )
    entry = _encode(
        {
            "format": FORMAT,
            "repository": event.repository,
            "tag": event.tag,
            "event": event.event,
            "fromDigest": None if event.from_digest is None else str(event.from_digest),
            "toDigest": None if event.to_digest is None else str(event.to_digest),
            "mediaType": event.media_type,
            "size": event.size,
            "at": rfc3339(event.at),
            "notBefore": None if event.not_before is None else rfc3339(event.not_before),
            "number": event.number,
            "actor": event.actor if event.observed_in else None,
            "rest": commitment(salt_of(secret, _REST), rest).hex(),
        }
    )
    content = entry
    if sealed or len(entry) > LONGEST_ENTRY:
        content = _encode({"format": SEALED, "entry": commitment(salt_of(secret, _ENTRY), entry).hex()})
    return Leaf(content, entry, rest, secret)


def parse_leaf(content: bytes) -> Entry | Sealed:
    """Return what a leaf says. Raises :class:`InvalidEntry`, also for an unknown format."""
    try:
        kind = msgspec.json.decode(content, type=prepared(_Kind)).format
        if kind == SEALED:
            return msgspec.json.decode(content, type=prepared(Sealed))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEntry(f"the leaf is not an entry of a registry's log: {error}") from error
    if kind != FORMAT:
        raise InvalidEntry(f"the leaf has the format {kind[:60]!r}, which this digestry does not know")
    return _entry(content)


def open_leaf(leaf: bytes, opening: Opening) -> OpenedEntry:
    """Return the entry of a leaf (its bytes) that an opening shows. Raises :class:`InvalidEntry` if it is not
    of that leaf."""
    found = parse_leaf(leaf)
    content = opening.entry.encode()
    if isinstance(found, Sealed):
        _check(found.entry, opening.salt, content, f"the opening of leaf {opening.index}")
        entry = _entry(content)
    elif content != leaf:
        raise InvalidEntry(f"the entry of leaf {opening.index} is another one in the log")
    else:
        entry = found
    if not opening.rest:
        return OpenedEntry(opening.index, entry, content, None)
    _check(entry.rest, opening.rest_salt, opening.rest.encode(), f"the rest of entry {opening.index}")
    try:
        rest = msgspec.json.decode(opening.rest, type=prepared(Rest))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidEntry(f"the rest of entry {opening.index} is not as it should be: {error}") from error
    return OpenedEntry(opening.index, entry, content, rest)


def commitment(salt: bytes, content: bytes) -> bytes:
    """Return the commitment to ``content``. ``salt`` has :data:`SALT_SIZE` bytes."""
    return hashlib.sha256(salt + content).digest()


def salt_of(secret: bytes, purpose: bytes) -> bytes:
    """Return one of the salts of a leaf, from its secret."""
    return hmac.digest(secret, purpose, hashlib.sha256)


class _Kind(msgspec.Struct, frozen=True):
    format: str


def _encode(fields: dict[str, object]) -> bytes:
    """Return the JSON of the fields that are there, in their order."""
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})


def _entry(content: bytes) -> Entry:
    try:
        return msgspec.json.decode(content, type=prepared(Entry), dec_hook=decode_hook)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEntry(f"the entry is not one of a registry's log: {error}") from error


def _check(stated: str, salt: str, content: bytes, what: str) -> None:
    try:
        key = bytes.fromhex(salt)
    except ValueError as error:
        raise InvalidEntry(f"{what} has a salt that is not hexadecimal") from error
    if len(key) != SALT_SIZE or not hmac.compare_digest(commitment(key, content).hex(), stated):
        raise InvalidEntry(f"{what} is not what the log committed to")
