"""Bills of materials (SBOMs) that list images: CycloneDX 1.4 to 1.6, SPDX 2 and SPDX 3, in JSON.

A list says that an image belongs to something, and not that it runs: every row says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

import msgspec

from digestry.errors import DigestryError, InvalidConfiguration
from digestry.inventory.engine_values import has_registry, reference_of
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.purl import PurlImage, is_image, read_hash, read_purl, read_url
from digestry.inventory.formats.rows import Fields, Item, Reading, Row, RowImage
from digestry.inventory.observation import Claim, ImageFacts
from digestry.model.digest import Digest, shown
from digestry.model.json_types import prepared

LISTED_HOST: Final = "listed, not running"

_CONTAINER: Final = "container"
_IMAGES: Final = "images: what is of type container, or has a package URL pkg:oci/… or pkg:docker/…"
_DEEPEST: Final = 16


class _Found(msgspec.Struct):
    """One image of a list, as the list describes it."""

    identity: str
    name: str
    version: str
    purls: tuple[str, ...]
    urls: tuple[str, ...]
    hashes: tuple[Digest, ...]
    of_repository: tuple[str, ...] = ()


def _row(found: _Found, reading: Reading, place: SourceLocation, what: str) -> Row:
    named = _named(found)
    remarks = [f"{what} lists it, which does not show that it runs anywhere"]
    claims: list[Claim] = []
    for url in named:
        if url.digest is not None:
            repository = url.reference.repository_only() if url.registry_named else None
            claims.append(Claim(url.digest, "unknown", repository, what, "inventory", obtained=True))
    # It is not known what was hashed: a manifest, a config, or an archive that is in no registry.
    claims += [
        Claim(digest, "unknown", None, f"a hash in {what}", "inventory", obtained=False)
        for digest in found.hashes
    ]
    first = named[0] if named else None
    reference = None
    if first is not None:
        reference = str(first.reference)
    else:
        remarks.append(f"no registry can be asked for its name: {shown(found.name)}")
    facts = ImageFacts(
        reference,
        tuple(dict.fromkeys(claims)),
        platform=next((url.platform for url in named if url.platform), None),
        registry_named=any(url.registry_named for url in named),
    )
    image = RowImage(facts, tuple(remarks), runs=False)
    return Row(
        reading.text(place.host or LISTED_HOST), "", found.name or found.identity, found.identity, image
    )


def _named(found: _Found) -> list[PurlImage]:
    """Return the image by each of its names, the most exact first. Raises for a bad package URL."""
    named = [read_purl(purl) for purl in found.purls]
    named += [url for url in map(read_url, found.urls) if url is not None]
    for text in found.of_repository:
        reference = reference_of(text)
        if reference is not None:
            named.append(PurlImage(reference, reference.digest, registry_named=has_registry(text)))
    by_name = reference_of(found.name)
    if by_name is not None:
        digest = by_name.digest or _digest(found.version)
        if by_name.tag is None and digest is None and found.version:
            by_name = reference_of(f"{found.name}:{found.version}") or by_name
        known = {url.reference.repository_only() for url in named}
        if not known or by_name.repository_only() in known:
            named.append(PurlImage(by_name, digest, registry_named=has_registry(found.name)))
    return named


def _digest(text: str) -> Digest | None:
    return read_hash(*text.split(":", 1)) if ":" in text else None


def _hashes(pairs: Iterable[tuple[str, str]]) -> tuple[Digest, ...]:
    """Return the digests among pairs of an algorithm's name and a hash."""
    return tuple(digest for pair in pairs if (digest := read_hash(*pair)) is not None)


class _List:
    """The base of the three kinds of lists."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def _rows(self, found: Iterable[_Found], place: SourceLocation, what: str) -> Iterator[Item]:
        empty = True
        for item in found:
            empty = False
            try:
                yield _row(item, self._reading, place, what)
            except DigestryError as error:
                yield self._reading.problem(
                    f"{what}: {shown(item.identity or item.name)}: {error.message}", error.hint
                )
        if empty:
            raise InvalidConfiguration(f"{what} lists no image", hint=f"expected {_IMAGES}")

    def finish(self) -> Iterable[Item]:
        return ()


# -- CycloneDX ----------------------------------------------------------------------------------


class _Hash(msgspec.Struct):
    alg: str = ""
    content: str = ""


class _Link(msgspec.Struct):
    url: str = ""


class _Property(msgspec.Struct):
    name: str = ""
    value: str = ""


class _Component(msgspec.Struct, rename={"reference": "bom-ref", "links": "externalReferences"}):
    type: str = ""
    name: str = ""
    group: str = ""
    version: str = ""
    purl: str = ""
    reference: str = ""
    hashes: list[_Hash] | None = None
    links: list[_Link] | None = None
    properties: list[_Property] | None = None
    components: list[_Component] | None = None


class _About(msgspec.Struct):
    component: _Component | None = None


class _Materials(msgspec.Struct):
    metadata: _About | None = None
    components: list[_Component] | None = None


class CycloneDX(_List):
    title: ClassVar[str] = "a CycloneDX bill of materials"
    usable: ClassVar[str] = _IMAGES

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "bomFormat" in fields

    def read(self, raw: msgspec.Raw, fields: Fields, place: SourceLocation, index: int) -> Iterable[Item]:
        bill = msgspec.json.decode(raw, type=prepared(_Materials))
        components = list(bill.components or ())
        if bill.metadata is not None and bill.metadata.component is not None:
            components.insert(0, bill.metadata.component)
        return self._rows(self._found(components, 0), place, f"the CycloneDX of {self._reading.where}")

    def _found(self, components: Iterable[_Component], depth: int) -> Iterator[_Found]:
        for component in components:
            if component.type == _CONTAINER or is_image(component.purl):
                yield _Found(
                    identity=component.reference or component.purl,
                    name=f"{component.group}/{component.name}" if component.group else component.name,
                    version=component.version,
                    purls=(component.purl,) if is_image(component.purl) else (),
                    urls=tuple(link.url for link in component.links or ()),
                    hashes=_hashes((entry.alg, entry.content) for entry in component.hashes or ()),
                    # As a widely used scanner puts them.
                    of_repository=tuple(
                        entry.value
                        for entry in component.properties or ()
                        if entry.name.rpartition(":")[2] in {"RepoDigest", "RepoTag"}
                    ),
                )
            if component.components and depth < _DEEPEST:
                yield from self._found(component.components, depth + 1)


# -- SPDX 2 -------------------------------------------------------------------------------------


class _Checksum(msgspec.Struct):
    algorithm: str = ""
    value: str = msgspec.field(default="", name="checksumValue")


class _External(msgspec.Struct):
    type: str = msgspec.field(default="", name="referenceType")
    locator: str = msgspec.field(default="", name="referenceLocator")


class _Package(msgspec.Struct):
    name: str = ""
    identity: str = msgspec.field(default="", name="SPDXID")
    version: str = msgspec.field(default="", name="versionInfo")
    purpose: str = msgspec.field(default="", name="primaryPackagePurpose")
    location: str = msgspec.field(default="", name="downloadLocation")
    checksums: list[_Checksum] | None = None
    external: list[_External] | None = msgspec.field(default=None, name="externalRefs")


class _Packages(msgspec.Struct):
    packages: list[_Package] | None = None


class SPDX2(_List):
    title: ClassVar[str] = "an SPDX 2 bill of materials"
    usable: ClassVar[str] = _IMAGES

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "spdxVersion" in fields

    def read(self, raw: msgspec.Raw, fields: Fields, place: SourceLocation, index: int) -> Iterable[Item]:
        packages = msgspec.json.decode(raw, type=prepared(_Packages)).packages or []
        return self._rows(self._found(packages), place, f"the SPDX of {self._reading.where}")

    def _found(self, packages: Iterable[_Package]) -> Iterator[_Found]:
        for package in packages:
            purls = tuple(ref.locator for ref in package.external or () if is_image(ref.locator))
            if purls or package.purpose.lower() == _CONTAINER:
                yield _Found(
                    identity=package.identity,
                    name=package.name,
                    version=package.version,
                    purls=purls,
                    urls=(package.location,),
                    hashes=_hashes((entry.algorithm, entry.value) for entry in package.checksums or ()),
                )


# -- SPDX 3 -------------------------------------------------------------------------------------


class _Identifier(msgspec.Struct):
    identifier: str = ""


class _Verified(msgspec.Struct):
    algorithm: str = ""
    value: str = msgspec.field(default="", name="hashValue")


class _Element(msgspec.Struct):
    type: str = ""
    name: str = ""
    identity: str = msgspec.field(default="", name="spdxId")
    version: str = msgspec.field(default="", name="software_packageVersion")
    url: str = msgspec.field(default="", name="software_packageUrl")
    location: str = msgspec.field(default="", name="software_downloadLocation")
    purpose: str = msgspec.field(default="", name="software_primaryPurpose")
    external: list[_Identifier] | None = msgspec.field(default=None, name="externalIdentifier")
    verified: list[_Verified] | None = msgspec.field(default=None, name="verifiedUsing")


class _Graph(msgspec.Struct):
    elements: list[msgspec.Raw] = msgspec.field(name="@graph")


class SPDX3(_List):
    title: ClassVar[str] = "an SPDX 3 bill of materials"
    usable: ClassVar[str] = _IMAGES

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "@graph" in fields and "@context" in fields

    def read(self, raw: msgspec.Raw, fields: Fields, place: SourceLocation, index: int) -> Iterable[Item]:
        elements = msgspec.json.decode(raw, type=prepared(_Graph)).elements
        return self._rows(self._found(elements), place, f"the SPDX of {self._reading.where}")

    def _found(self, elements: Iterable[msgspec.Raw]) -> Iterator[_Found]:
        for raw in elements:
            try:
                element = msgspec.json.decode(raw, type=prepared(_Element))
            except msgspec.ValidationError:
                continue  # an element of another class, whose fields have other types
            if element.type != "software_Package":
                continue
            purls = tuple(
                dict.fromkeys(
                    text
                    for text in (element.url, *(entry.identifier for entry in element.external or ()))
                    if is_image(text)
                )
            )
            if purls or element.purpose == _CONTAINER:
                yield _Found(
                    identity=element.identity,
                    name=element.name,
                    version=element.version,
                    purls=purls,
                    urls=(element.location,),
                    hashes=_hashes((entry.algorithm, entry.value) for entry in element.verified or ()),
                )
