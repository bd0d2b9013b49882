"""Digests, names and platforms as container engines write them."""

from __future__ import annotations

import datetime
from typing import Final

from digestry.errors import DigestryError, InvalidDigest, InvalidReference
from digestry.inventory.observation import DigestKind
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.json_values import as_text
from digestry.model.platform import Platform
from digestry.model.reference import Reference
from digestry.model.timestamps import parse_rfc3339

FIRST_START: Final = "first"
"""The instance of a container's first start, and of containers that are started once."""


def digest_of(value: object) -> Digest | None:
    """Return a digest, which engines write with or without ``sha256:`` before it; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        return Digest.parse(value if ":" in value else f"sha256:{value}")
    except InvalidDigest:
        return None


def time_of(value: object) -> datetime.datetime | None:
    """Return a time of an engine's; None for one that is missing, invalid, or the year 1 of Go's zero."""
    try:
        found = parse_rfc3339(as_text(value)).first
    except ValueError:
        return None
    return found if found.year > 1 else None


def platform_of(architecture: object, system: object, variant: object = None) -> Platform | None:
    """Return the platform that an engine names in Go's or uname's words, or None if it names none."""
    parts = [as_text(system), as_text(architecture), as_text(variant)]
    if not parts[0] or not parts[1]:
        return None
    try:
        return Platform.parse("/".join(part for part in parts if part))
    except DigestryError:
        return None


def repository_digest(text: object) -> tuple[Reference, Digest] | None:
    """Return the two parts of ``repository@digest``, as engines write it; None for anything else.

    ``<none>@sha256:…`` of untagged images and ``sha256:…``, which is no repository of that name,
    are None too.
    """
    if not isinstance(text, str) or "@" not in text:
        return None
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return None
    if reference.digest is None or text.startswith(("sha256:", "sha512:")):
        return None
    return reference.repository_only(), reference.digest


def has_registry(name: str) -> bool:
    """Return whether an image's name begins with a registry's host, so that none was added to it."""
    host, slash, _ = name.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")


def kind_of_media_type(media_type: str) -> DigestKind:
    """Return the kind of content that a descriptor with ``media_type`` names."""
    if media_type in media_types.INDEXES:
        return "index"
    return "manifest" if media_type in media_types.IMAGE_MANIFESTS else "unknown"


def repository_of(reference: str | None) -> Reference | None:
    """Return the repository of an image's name, or None if it is not a reference."""
    named = reference_of(reference)
    return None if named is None else named.repository_only()


def reference_of(reference: str | None) -> Reference | None:
    """Return an image's name as a reference, or None if it is not one."""
    if not reference:
        return None
    try:
        return Reference.parse(reference)
    except InvalidReference:
        return None
