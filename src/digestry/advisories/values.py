"""Values of advisories (times, versions, statuses, digests), read from any form in which they are written."""

from __future__ import annotations

import datetime
import re
from typing import Final

import msgspec

from digestry.advisories.statements import SEVERITIES, STATUSES, Status
from digestry.errors import InvalidDigest
from digestry.model.digest import Digest
from digestry.model.json_values import as_text

_SAME_SEVERITY: Final = {
    "moderate": "medium",
    "important": "high",
    "minimal": "negligible",
    "none": "negligible",
}
_LEAP: Final = re.compile(r"(T[0-9]{2}:[0-9]{2}|\s[0-9]{2}:[0-9]{2}):60")


def read_digest(value: str) -> Digest | None:
    """Return ``value`` as a digest; None if it is none."""
    try:
        return Digest.parse(value)
    except InvalidDigest:
        return None


def is_image_purl(name: str) -> bool:
    """Return whether a name is the package URL of an image (purl-spec, types ``oci`` and ``docker``)."""
    return name.lower().startswith(("pkg:oci/", "pkg:docker/"))


def read_version(value: object, default: int = 1) -> int:
    """Return a version that is a number, or a number in a string; else ``default``."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def read_revision(value: str) -> tuple[int, ...]:
    """Return the numbers of a semantic version, without what follows ``-`` or ``+``; empty if it is none."""
    parts = re.split(r"[-+]", value, maxsplit=1)[0].split(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        return ()
    return tuple(map(int, parts))


def read_status(value: object) -> Status | None:
    """Return one of :data:`STATUSES`, written in any case; None for anything else."""
    word = as_text(value).strip().lower().replace("-", "_").replace(" ", "_")
    return next((known for known in STATUSES if known == word), None)


def read_severity(word: str) -> str:
    """Return one of :data:`SEVERITIES`; empty for a word that is none of a severity."""
    lower = word.strip().lower()
    lower = _SAME_SEVERITY.get(lower, lower)
    return lower if lower in SEVERITIES else ""


def as_key(value: object) -> str:
    """Return any JSON value as a string that is equal for equal values."""
    return value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()


def read_time(value: str) -> datetime.datetime:
    """Return the time that RFC 3339 names; one without a zone is in UTC. Raises ``ValueError``.

    ``T`` and ``Z`` may be small letters, and a minute may have a leap second (RFC 3339, 5.6), which counts as
    the one before it.
    """
    read = datetime.datetime.fromisoformat(_LEAP.sub(r"\1:59", value.strip().upper()))
    if read.tzinfo is None:
        return read.replace(tzinfo=datetime.UTC)
    try:
        return read.astimezone(datetime.UTC)
    except OverflowError as error:
        raise ValueError(value) from error
