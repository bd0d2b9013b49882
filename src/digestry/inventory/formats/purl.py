"""Package URLs of images (purl-spec, types ``oci`` and ``docker``), as bills of materials have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from digestry.errors import InvalidDigest, InvalidReference
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference

IMAGE_TYPES: Final = ("pkg:oci/", "pkg:docker/")

_URLS: Final = ("docker", "oci", "docker-image", "container")
_SYSTEM: Final = "linux"


@dataclass(frozen=True, slots=True)
class PurlImage:
    """An image as a bill of materials names it. ``registry_named`` is False if it names no registry."""

    reference: Reference
    digest: Digest | None
    platform: Platform | None = None
    registry_named: bool = True


def is_image(purl: str) -> bool:
    """Return whether a package URL is one of an image."""
    return purl.lower().startswith(IMAGE_TYPES)


def read_purl(purl: str) -> PurlImage:
    """Read ``pkg:oci/…`` or ``pkg:docker/…``. Raises :class:`InvalidReference`, :class:`InvalidDigest`."""
    body, _, _ = purl.partition("#")
    body, _, query = body.partition("?")
    kind, _, path = body.partition(":")[2].lstrip("/").partition("/")
    name, _, version = path.partition("@")
    name, version = unquote(name).strip("/"), unquote(version)
    qualifiers = {key.lower(): value for key, value in parse_qsl(query)}
    where = qualifiers.get("repository_url", "")
    where = where.partition("://")[2] if "://" in where else where
    where = where.rstrip("/")
    if where and (kind.lower() == "docker" or where.rpartition("/")[2] != name.rpartition("/")[2]):
        where = f"{where}/{name}"
    repository = Reference.parse(where or name).repository_only()
    digest = Digest.parse(version) if ":" in version else None
    tag = qualifiers.get("tag", "") or ("" if digest else version)
    named = Reference(repository.host, repository.repository, tag or None, digest)
    architecture = qualifiers.get("arch", "")
    system = qualifiers.get("os", "") or _SYSTEM
    return PurlImage(
        named,
        digest,
        Platform.parse(f"{system}/{architecture}") if architecture else None,
        # `pkg:oci` has no default registry; that of `pkg:docker` is Docker's own.
        registry_named=bool(where) or kind.lower() == "docker",
    )


def read_url(url: str) -> PurlImage | None:
    """Read ``docker://host/repository…`` and ``oci://…``; None for a URL of another kind."""
    if urlsplit(url).scheme.lower() not in _URLS:
        return None
    try:
        reference = Reference.parse(url.partition("://")[2] or url.partition(":")[2])
    except InvalidReference:
        return None
    return PurlImage(reference, reference.digest)


def read_hash(algorithm: str, content: str) -> Digest | None:
    """Return the digest of an algorithm's name (``SHA-256``) and hex; None for another algorithm."""
    try:
        return Digest.parse(f"{algorithm.lower().replace('-', '')}:{content.lower()}")
    except InvalidDigest:
        return None
