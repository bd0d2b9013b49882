"""Keys and columns that may hold a digest, in any spelling."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Literal, TypeAlias

Role: TypeAlias = Literal["digest", "image-id", "unread", ""]
"""The value of a key: a digest, a runtime's image ID, or one that may be either and is not read. ``""`` is a
key without an identity."""

_NOT_ALPHANUMERIC: Final = re.compile(r"[^a-z0-9]+")
_OWNER: Final = (
    r"(?:the|my|container|containers|running|current|actual|image|img|manifest|repo|repository|registry|index|list|"
    r"resolved|pulled|docker|oci|live|deployed|started|status|runtime|kube|kubelet|cri|k8s|local|is|of)*"
)
_DIGEST: Final = re.compile(rf"{_OWNER}(?:digest|sha256|sha|checksum)s?(?:sha256)?")
_IMAGE_ID: Final = re.compile(rf"{_OWNER}(?:image|img)(?:id|ids|ref|refs|identifier|hash|uid)|configdigest")
_SUSPECT: Final = re.compile(r"digest|sha256|sha$|imageid|imageref|imagehash|imgid|imageuid")
_SOURCE: Final = re.compile(r"git|commit|vcs|source|revision")
"""Of the source code, and not of an image."""
_IN_VALUE: Final = re.compile(r"sha256:[0-9a-f]{12,64}|(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", re.ASCII)
# Hex digits alone are those of a container, a sandbox, a volume more often than of an image.
_NO_IMAGE: Final = re.compile(
    r".*(?:container|sandbox|pod|task|runtime|network|volume|mount|endpoint|session|request|trace|etag|label"
    r"|command|args?|env|path|config|template|spec|revision|name|id|uid|arn).*"
)
_DEEPEST: Final = 6


@lru_cache(4096)
def plain(key: str) -> str:
    """Return ``key`` in small letters and digits alone: ``Image ID`` and ``image_id`` become the same."""
    return _NOT_ALPHANUMERIC.sub("", key.lower())


@lru_cache(4096)
def role_of(key: str) -> Role:
    """Return the identity that a key or a heading may hold, by its name."""
    name = plain(key)
    if _IMAGE_ID.fullmatch(name):
        return "image-id"
    if _DIGEST.fullmatch(name):
        return "digest"
    return "unread" if _SUSPECT.search(name) and not _SOURCE.search(name) else ""


def holds_digest(key: str, text: str) -> bool:
    """Return whether ``text``, the value of ``key``, has something in it that may be an image's digest."""
    if _IN_VALUE.search(text) is None:
        return False
    return "sha256:" in text or _NO_IMAGE.fullmatch(plain(key)) is None


def unread(value: object, path: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the paths in ``value`` that may name the image of a container.

    ``value`` is decoded JSON that no format reads. Each path is that of a non-empty key with such a name, or
    of a text with a digest in it.
    """
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}" if path else str(key)
            if inner and role_of(str(key)) and not isinstance(inner, bool | int | float):
                yield where
            else:
                yield from unread(inner, where, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from unread(inner, path, depth + 1)
    elif isinstance(value, str) and holds_digest(path.rpartition(".")[2], value):
        yield path
