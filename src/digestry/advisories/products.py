"""Matching of a statement's product with an image: by digest, by package URL, by name.

Package URLs: purl-spec, types ``oci`` and ``docker``. Other types (``apk``, ``deb``, ``golang``) name a part
of an image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from digestry.advisories.statements import Product
from digestry.advisories.values import read_digest
from digestry.errors import InvalidReference
from digestry.model.digest import Digest
from digestry.model.reference import DOCKER_HUB, Reference

Match: TypeAlias = Literal["digest", "name", "inside", "package", "other", "unclear"]
"""``digest``: it is this image; ``name``: an image of its repository; ``inside``: a component that the
document lists for this image; ``package``: a package, wherever it is; ``other``: another product;
``unclear``: that is not known."""

_PURL: Final = re.compile(r"pkg:/*([a-z0-9.+-]+)/([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.ASCII | re.IGNORECASE)
_IMAGE_TYPES: Final = frozenset({"oci", "docker"})
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.ASCII | re.IGNORECASE)
_HASHES: Final = {"sha256": "sha256", "sha512": "sha512"}
_DIGEST: Final = re.compile(r"sha(?:256|512)[:-]", re.ASCII | re.IGNORECASE)
_HUB: Final = frozenset({"registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"})


@dataclass(frozen=True, slots=True)
class SubjectImage:
    """An image: its digests (its code, and all that holds it), and the names of its repository."""

    digests: frozenset[Digest]
    repositories: tuple[Reference, ...]

    def comparable(self, digest: Digest) -> bool:
        """Return whether one of the image's digests is of the algorithm of ``one``."""
        return any(own.algorithm == digest.algorithm for own in self.digests)


@dataclass(frozen=True, slots=True)
class ProductMatch:
    """How a product matches. ``tag`` and ``architecture`` are those that it names beside the repository,
    ``others`` the digests that it names and that are not known to be the image's."""

    match: Match
    tag: str = ""
    architecture: str = ""
    others: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class ProductIdentity:
    """The digests and images in a product's names: ``digests`` of any kind, and ``images``, repositories with
    their tag or digest, if any. Of these, a package URL without a version means ``whole`` repositories."""

    digests: tuple[Digest, ...]
    images: tuple[Reference, ...]
    whole: tuple[Reference, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether an image is named by its digest, or by a tag."""
        return bool(self.digests) or any(image.tag for image in self.images)


def identify_product(product: Product, *, default_host: str = DOCKER_HUB) -> ProductIdentity:
    """Return the digests and images in the names and hashes of ``product``. Names without a registry are of
    ``default_host``."""
    digests: dict[Digest, None] = {}
    images: dict[Reference, None] = {}
    whole: dict[Reference, None] = {}
    for name in product.names:
        for digest, image in _identified(name.strip(), default_host):
            if digest is not None:
                digests.setdefault(digest)
            if image is not None:
                images.setdefault(image)
                if name.strip().lower().startswith("pkg:") and digest is None and image.tag is None:
                    whole.setdefault(image)
    if any(is_package(name) for name in product.names) and not images:
        return ProductIdentity((), ())  # the hash is its file's
    for algorithm, encoded in product.hashes:
        known = _HASHES.get(algorithm.lower().replace("-", "").replace("_", ""))
        found = None if known is None else read_digest(f"{known}:{encoded.lower()}")
        if found is not None:
            digests.setdefault(found)
    return ProductIdentity(tuple(digests), tuple(images), tuple(whole))


def is_package(name: str) -> bool:
    """Return whether a product's name is the package URL of a package, and not of an image."""
    read = _PURL.fullmatch(name.strip())
    return read is not None and read[1].lower() not in _IMAGE_TYPES


def _identified(name: str, default_host: str) -> Iterator[tuple[Digest | None, Reference | None]]:
    """Yield the digest, and the image, that a product's name is."""
    if name.lower().startswith("pkg:"):
        yield from _identified_purl(name, default_host)
        return
    if name.lower().startswith(("cpe:", "urn:")) or not name:
        return
    scheme = _SCHEME.match(name)
    bare = name[scheme.end() :] if scheme else name
    if _DIGEST.match(bare):
        yield read_digest(bare.lower().replace("-", ":", 1)), None
        return
    try:
        read = Reference.parse(_without_alias(bare.rstrip("/")), default_host=default_host)
    except InvalidReference:
        return
    yield read.digest, read


def _identified_purl(text: str, default_host: str) -> Iterator[tuple[Digest | None, Reference | None]]:
    purl = _read_purl(text)
    if purl is None or purl.kind not in _IMAGE_TYPES:
        return
    digest = next((read_digest(said.lower().replace("-", ":", 1)) for said in purl.digests), None)
    image = None
    for where in purl.repositories:
        try:
            image = Reference.parse(_without_alias(where), default_host=default_host)
            if purl.tag and image.tag is None:
                image = image.with_tag(purl.tag)
        except InvalidReference:
            continue
        yield digest, image
    if image is None:
        yield digest, None


def match_product(product: Product, about: SubjectImage) -> ProductMatch:
    """Return whether ``product`` is the image ``about``. A digest decides before any name does."""
    if product.inside:
        return ProductMatch("inside")
    found = [_named(name, about) for name in product.names] + _hashed(product, about)
    digests = [result for result in found if result.match == "digest" or result.others]
    if digests:
        if any(result.match == "digest" for result in digests):
            return ProductMatch("digest")
        if any(result.match == "package" for result in found):
            return ProductMatch("package")  # the hash is its file's
        return ProductMatch("other", others=tuple(other for result in digests for other in result.others))
    order: tuple[Match, ...] = ("name", "package", "other", "unclear")
    return next(
        (result for match in order for result in found if result.match == match),
        ProductMatch("unclear"),
    )


def _hashed(product: Product, about: SubjectImage) -> list[ProductMatch]:
    found = []
    for algorithm, encoded in product.hashes:
        known = _HASHES.get(algorithm.lower().replace("-", "").replace("_", ""))
        digest = None if known is None else read_digest(f"{known}:{encoded.lower()}")
        found.append(ProductMatch("unclear") if digest is None else _digest(digest, about))
    return found


def _digest(digest: Digest, about: SubjectImage) -> ProductMatch:
    if digest in about.digests:
        return ProductMatch("digest")
    return ProductMatch("other", others=(digest,)) if about.comparable(digest) else ProductMatch("unclear")


def _named(name: str, about: SubjectImage) -> ProductMatch:
    name = name.strip()
    lower = name.lower()
    if lower.startswith("pkg:"):
        return _purl(name, about)
    if lower.startswith(("cpe:", "urn:")) or not name:
        return ProductMatch("unclear")
    scheme = _SCHEME.match(name)
    bare = name[scheme.end() :] if scheme else name
    if _DIGEST.match(bare):
        digest = read_digest(bare.lower().replace("-", ":", 1))
        return ProductMatch("unclear") if digest is None else _digest(digest, about)
    try:
        read = Reference.parse(bare.rstrip("/"))
    except InvalidReference:
        return ProductMatch("unclear")
    if read.digest is not None:
        return _digest(read.digest, about)
    matches = _same(bare, about) if scheme is None or "/" in bare else False
    if matches:
        return ProductMatch("name", tag=read.tag or "")
    # A web page may be about anything; another image's name is about that image.
    web = scheme is not None and scheme[1].lower() in {"http", "https"}
    return ProductMatch("unclear" if web else "other")


def _same(name: str, about: SubjectImage) -> bool:
    """Return whether an image name without tag is one of the repository's, or, if it has no registry, its
    end."""
    try:
        read = Reference.parse(_without_alias(name.rstrip("/").lower()))
    except InvalidReference:
        return False
    if read.repository_only() in about.repositories:
        return True
    if read.host != DOCKER_HUB or name.lower().startswith(f"{DOCKER_HUB}/"):
        return False
    path = read.repository.removeprefix("library/")
    return any(f"/{own.repository}".endswith(f"/{path}") for own in about.repositories)


def _without_alias(name: str) -> str:
    host, slash, rest = name.partition("/")
    if slash and host.lower() in _HUB:
        return f"{DOCKER_HUB}/{rest.removeprefix('r/').removeprefix('_/')}"
    return name


@dataclass(frozen=True, slots=True)
class _Purl:
    """A package URL: its type, digests, tag and processor, and the repositories that it may name."""

    kind: str
    digests: tuple[str, ...]
    tag: str
    architecture: str
    repositories: tuple[str, ...]


def _read_purl(text: str) -> _Purl | None:
    read = _PURL.fullmatch(text)
    if read is None:
        return None
    path, at, version = read[2].rpartition("@")
    if not at:
        path, version = read[2], ""
    path, version = unquote(path).strip("/"), unquote(version)
    qualifiers = dict(_pair(part) for part in (read[3] or "").split("&") if part)
    digests = tuple(value for value in (version, qualifiers.get("digest", "")) if _DIGEST.match(value))
    where = _SCHEME.sub("", qualifiers.get("repository_url", ""), count=1).strip("/")
    names = (where, f"{where}/{path}") if where else (path,)
    tag = qualifiers.get("tag", "") if version in digests else version or qualifiers.get("tag", "")
    return _Purl(read[1].lower(), digests, tag, qualifiers.get("arch", ""), names if path else ())


def _purl(text: str, about: SubjectImage) -> ProductMatch:
    purl = _read_purl(text)
    if purl is None:
        return ProductMatch("unclear")
    if purl.kind not in _IMAGE_TYPES:
        return ProductMatch("package")
    if purl.digests:
        digest = read_digest(purl.digests[0].lower().replace("-", ":", 1))
        return ProductMatch("unclear") if digest is None else _digest(digest, about)
    if not purl.repositories:
        return ProductMatch("unclear")
    matches = any(_same(name, about) for name in purl.repositories)
    return ProductMatch("name", purl.tag, purl.architecture) if matches else ProductMatch("other")


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.lower(), unquote(value)
