"""``backup.json``: the description of a backup. It is written last; a backup without it is incomplete.

::

    backup.json                    this
    catalog-<16 digits>.db         the snapshot of the catalog, named after the first digits of its hash
    oci-layout, blobs/             all that the snapshot makes visible
    keys/                          the keys with which the registry signs its tokens
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from digestry.coordination import key_files
from digestry.errors import ContentError, NotFound
from digestry.fsio import NotRegular, open_regular, storage_error, storage_errors
from digestry.model.digest import shown
from digestry.model.json_types import prepared

FILE: Final = "backup.json"
VERSION: Final = 1
LARGEST: Final = 64 << 20
"""Bytes that a description has at most."""
LARGEST_KEY: Final = 64 << 10

CATALOG: Final = re.compile(r"catalog-[0-9a-f]{16}\.db", re.ASCII)
KEY: Final = re.compile(rf"{key_files.DIRECTORY}/[A-Za-z0-9][A-Za-z0-9_-]{{0,127}}\.json", re.ASCII)


def key_path(key_id: str) -> str:
    """Return the path that a key has in a backup."""
    return f"{key_files.DIRECTORY}/{key_id}{key_files.SUFFIX}"


def key_id(path: str) -> str:
    """Return the ID of the key that has ``path`` in a backup."""
    return path.removeprefix(f"{key_files.DIRECTORY}/").removesuffix(key_files.SUFFIX)


class Part(msgspec.Struct, frozen=True):
    """A file of a backup: its path in the backup, its size in bytes, and its hash."""

    path: str
    size: int
    sha256: str

    @classmethod
    def of(cls, path: str, content: bytes) -> Part:
        return cls(path, len(content), hashlib.sha256(content).hexdigest())


class JournalEnd(msgspec.Struct, frozen=True):
    """The end of the journal: the number of valid entries, the last hash, and why no later one is valid."""

    entries: int
    last_hash: str
    broken: str | None = None


class Missing(msgspec.Struct, frozen=True):
    """Content that the backup should have but lacks: the repositories that need it, and why it is missing."""

    digest: str
    size: int
    problem: str
    held_by: list[str]


class Description(msgspec.Struct, frozen=True):
    """The content of ``backup.json``. ``size`` (``bytes`` in JSON) is the sum of all blobs."""

    version: int
    digestry: str
    taken_at: datetime.datetime
    schema: str
    catalog: Part
    journal: JournalEnd
    blobs: int
    size: int = msgspec.field(name="bytes")
    keys: list[Part]
    missing: list[Missing]

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class NewerBackup(ContentError):
    """A newer digestry made the backup, in a format that this one does not know."""


class _Version(msgspec.Struct):
    version: int


def decode(content: bytes, where: str) -> Description:
    """Decode a description. Raises :class:`ContentError`."""
    try:
        found = msgspec.json.decode(content, type=prepared(_Version)).version
        if found > VERSION:
            raise NewerBackup(
                f"{where} was made by a newer digestry (version {found} of backups)",
                hint="use that one for it, or one newer still",
            )
        description = msgspec.json.decode(content, type=prepared(Description))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContentError(f"{where} does not describe a backup: {error}") from error
    paths = [part.path for part in description.keys]
    if not CATALOG.fullmatch(description.catalog.path) or len(set(paths)) < len(paths):
        raise ContentError(f"{where} names files that no backup has")
    for path in paths:
        if not KEY.fullmatch(path):
            raise ContentError(f"{where} names {shown(path)}, which no backup has")
    return description


def read(directory: Path) -> Description:
    """Read the description of the backup in ``directory``.

    Raises :class:`NotFound` if there is none, or it is not finished, :class:`ContentError`.
    """
    try:
        content = read_small(directory / FILE, LARGEST)
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no complete backup in {directory}: it has no {FILE}",
            hint="digestry backup, once more, completes one that was broken off",
        ) from error
    return decode(content, str(directory / FILE))


def open_part(path: Path) -> int:
    """Open a file of a backup, which must be a regular file and not a link, and return its descriptor.

    Raises OSError, ContentError.
    """
    try:
        return open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except NotRegular as error:
        raise ContentError(f"{path} is not a file") from error


def read_small(path: Path, limit: int) -> bytes:
    """Read a whole file. Raises FileNotFoundError, ContentError above ``limit`` bytes, StorageError."""
    try:
        with os.fdopen(open_part(path), "rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error("read", path, error) from error
    if len(content) > limit:
        raise ContentError(f"{path} is larger than {limit} bytes")
    return content


def hash_file(path: Path) -> tuple[int, str]:
    """Return the size in bytes and the hash of a file of any length."""
    with storage_errors("read", path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def compare_keys(found: Iterable[Part], described: Iterable[Part], where: str) -> None:
    """Raise :class:`ContentError` unless both are the same."""
    if sorted(found, key=lambda part: part.path) != sorted(described, key=lambda part: part.path):
        raise ContentError(f"the keys in {where} are not those that it was made with")
