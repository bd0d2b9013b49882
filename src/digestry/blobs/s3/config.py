"""The configuration of an S3 store: which bucket, where, and how it is used."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown

MIB: Final = 1 << 20
SMALLEST_PART: Final = 5 * MIB
"""The smallest part of a multipart upload, except for the last, in bytes (S3, "Multipart upload limits")."""
MOST_PARTS: Final = 10_000

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_PREFIX: Final = re.compile(r"[A-Za-z0-9!_.*'()-]+(?:/[A-Za-z0-9!_.*'()-]+)*", re.ASCII)
_OBJECT: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_DEFAULT_REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True)
class S3Config:
    """The settings of an S3 store. Times are in seconds, sizes in bytes.

    ``endpoint`` is the service's URL, ``public_endpoint`` the one that clients are sent to. ``part_size`` is
    the size of every part of an upload, except for the last. ``memory`` is for the parts of all uploads of a
    process. ``linger`` is how long an object stays after its content was deleted, for readers. ``grace`` is
    the age from which an object without a row is removed. ``settle`` is the age from which content without a
    repository is removed: its push may be about to link it.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = "https://s3.us-east-1.amazonaws.com"
    public_endpoint: str = ""
    region: str = _DEFAULT_REGION
    path_style: bool = True
    part_size: int = 8 * MIB
    memory: int = 40 * MIB
    url_seconds: int = 600
    linger: float = 3600.0
    grace: float = 86_400.0
    settle: float = 600.0
    lease: float = 10.0
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    patience: float = 20.0
    ca_file: str = ""

    def __post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.bucket):
            raise InvalidConfiguration(f"{shown(self.bucket)} is not the name of an S3 bucket")
        if self.prefix and (not _PREFIX.fullmatch(self.prefix) or {".", ".."} & set(self.prefix.split("/"))):
            raise InvalidConfiguration(f"{shown(self.prefix)} cannot be the prefix of keys in a bucket")
        if self.part_size < SMALLEST_PART:
            raise InvalidConfiguration(f"a part of an upload has {SMALLEST_PART} bytes or more")
        for url in filter(None, (self.endpoint, self.public_endpoint)):
            check_endpoint(url)

    @property
    def slots(self) -> int:
        """How many parts a process may hold in memory at once."""
        return max(2, self.memory // self.part_size)

    @property
    def largest(self) -> int:
        """The size in bytes of the largest content that the store takes."""
        return self.part_size * MOST_PARTS

    @property
    def location(self) -> str:
        """The store's URL, for messages."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def objects_prefix(self) -> str:
        """The beginning of the keys of all objects with content."""
        return self.key("blobs/")

    def is_object_key(self, key: str) -> bool:
        """Return whether ``key`` is one of this store's content, and not of a store whose prefix begins with
        this one's."""
        prefix = self.objects_prefix
        return key.startswith(prefix) and _OBJECT.fullmatch(key, len(prefix)) is not None

    def new_object_key(self) -> str:
        """Return a key that no object has. It begins at random, so that a store can spread its keys."""
        return f"{self.objects_prefix}{os.urandom(16).hex()}"

    def key(self, name: str) -> str:
        """Return the key of an object of this store."""
        return f"{self.prefix}/{name}" if self.prefix else name


def parse_s3_url(
    url: str,
    environment: Mapping[str, str],
    *,
    endpoint: str | None = None,
    region: str | None = None,
    path_style: bool | None = None,
    largest: int = 0,
) -> S3Config:
    """Return the configuration for ``s3://BUCKET/PREFIX``.

    Settings that are not given come from the usual variables in ``environment``: ``AWS_ENDPOINT_URL_S3``,
    ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_DEFAULT_REGION``, ``AWS_CA_BUNDLE``. A service that is not
    Amazon's gets the bucket in the path unless ``path_style`` is False. Parts are so large that content of
    ``largest`` bytes has no more than 10,000. Raises :class:`InvalidConfiguration`.
    """
    parts = _parts(url)
    if parts.scheme != "s3" or parts.query or parts.fragment or "@" in parts.netloc or ":" in parts.netloc:
        raise InvalidConfiguration(
            f"{shown(url.rpartition('@')[2])} is not the URL of an S3 store: s3://BUCKET/PREFIX is required",
            hint="credentials come from the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    region = region or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    region = region or _DEFAULT_REGION
    endpoint = endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if path_style is None:
        path_style = bool(endpoint) or "." in parts.netloc
    whole = -(-largest // MOST_PARTS)
    return S3Config(
        bucket=parts.netloc,
        prefix=parts.path.strip("/"),
        endpoint=(endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/"),
        region=region,
        path_style=path_style,
        part_size=max(8 * MIB, -(-whole // MIB) * MIB),
        ca_file=environment.get("AWS_CA_BUNDLE", ""),
    )


def check_endpoint(url: str) -> None:
    """Raise :class:`InvalidConfiguration` unless ``url`` can be that of an S3 service."""
    parts = _parts(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or "@" in parts.netloc:
        raise InvalidConfiguration(
            f"{shown(url.rpartition('@')[2])} is not the endpoint of an S3 service: http://HOST:PORT or"
            " https://HOST is required"
        )


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidConfiguration(f"{shown(url.rpartition('@')[2])} is not a URL: {error}") from None
    return parts
