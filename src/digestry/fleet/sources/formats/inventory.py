"""An inventory: what somebody else wrote down, an object or a line of CSV a container.

The keys and headings are ``host namespace name id reference digest image_id platform``, with
``image`` for ``reference`` too.
"""

from __future__ import annotations

import csv
from collections.abc import Hashable, Iterable, Iterator
from typing import ClassVar, Final

import msgspec

from digestry.errors import DigestryError, InvalidDigest, InvalidReference
from digestry.fleet.sighting import Claim, Problem, abbreviation
from digestry.fleet.sources.formats.documents import Input
from digestry.fleet.sources.formats.places import Place
from digestry.fleet.sources.formats.rows import Fields, Image, Made, Reading, Row
from digestry.model.digest import Digest, shown
from digestry.model.platform import Platform
from digestry.model.reference import Reference

KEYS: Final = ("host", "namespace", "name", "id", "reference", "image", "digest", "image_id", "platform")

_IDENTIFYING: Final = frozenset({"reference", "image", "digest", "image_id"})
_NOTHING: Final = "it has none of reference, digest, image_id"


class _Entry(msgspec.Struct):
    host: str | None = None
    namespace: str | None = None
    name: str | None = None
    id: str | None = None
    reference: str | None = None
    image: str | None = None
    digest: str | None = None
    image_id: str | None = None
    platform: str | None = None


class Inventory:
    title: ClassVar[str] = "an inventory"
    usable: ClassVar[str] = "containers with a reference, a digest or an image_id"

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._decoder = msgspec.json.Decoder(_Entry)
        self._images: dict[Hashable, Image] = {}

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return not fields.keys().isdisjoint(KEYS)

    def read(self, raw: msgspec.Raw, fields: Fields, place: Place, index: int) -> Iterable[Made]:
        one = self._decoder.decode(raw)
        image = self.image(
            one.reference or one.image or "", one.digest or "", one.image_id or "", one.platform or ""
        )
        text = self._reading.text
        return (
            Row(text(one.host or place.host), text(one.namespace or ""), one.name or "", one.id or "", image),
        )

    def finish(self) -> Iterable[Made]:
        return ()

    def image(self, reference: str, digest: str, image_id: str, platform: str) -> Image:
        """The image of a container, "" for what is not known. Raises :class:`DigestryError`."""
        key = (reference, digest, image_id, platform)
        image = self._images.get(key)
        if image is None:
            image = self._images[key] = self._image(*key)
        return image

    def _image(self, reference: str, digest: str, image_id: str, platform: str) -> Image:
        if not (reference or digest or image_id):
            raise InvalidReference(_NOTHING)
        where = self._reading.where
        remarks: list[str] = []
        repository: Reference | None = None
        claims: list[Claim] = []
        if reference:
            try:
                parsed = Reference.parse(reference)
                repository = parsed.repository_only()
                if parsed.digest is not None:
                    claims.append(_claim(parsed.digest, repository, f"the reference in {where}"))
            except InvalidReference as error:
                remarks.append(error.message)
        given = (
            abbreviation(digest, f"digest in {where}", "inventory"),
            abbreviation(image_id, f"image_id in {where}", "image-id"),
        )
        if digest and given[0] is None:
            claims.insert(0, _digest_claim(digest, repository, where))
        identity: Digest | None = None
        if image_id and given[1] is None:
            identity = Digest.parse(image_id if ":" in image_id else f"sha256:{image_id}")
            claims.append(
                Claim(identity, "unknown", None, f"image_id in {where}", "image-id", obtained=False)
            )
        return Image(
            reference=reference or None,
            claims=tuple(dict.fromkeys(claims)),
            image_id=identity,
            platform=Platform.parse(platform) if platform else None,
            remarks=tuple(remarks),
            abbreviations=tuple(one for one in given if one is not None),
        )


def _claim(digest: Digest, repository: Reference | None, read_from: str) -> Claim:
    return Claim(digest, "unknown", repository, read_from, "inventory", obtained=True)


def _digest_claim(text: str, repository: Reference | None, where: str) -> Claim:
    """Reads ``sha256:…``, or ``repository@sha256:…`` as ``docker images --digests`` users write it."""
    if "@" in text:
        reference = Reference.parse(text.removeprefix("docker-pullable://"))
        if reference.digest is None:
            raise InvalidDigest(f"{shown(text)} has no digest")
        return _claim(reference.digest, reference.repository_only(), f"digest in {where}")
    return _claim(Digest.parse(text), repository, f"digest in {where}")


# -- CSV ----------------------------------------------------------------------------------------


def read_csv(source: Input, first: str, inventory: Inventory, reading: Reading) -> Iterator[Row | Problem]:
    """The rows of an inventory whose line of headings is ``first``, read one line at a time.

    Raises ``UnicodeDecodeError``, of the line that is ``source.number``, and what reading raises.
    """
    here = f"{reading.where}, line {source.number}"
    try:
        headings = [cell.strip().lower() for cell in next(csv.reader([first], strict=True))]
    except csv.Error as error:
        yield Problem(reading.source, f"{here}: neither JSON nor CSV: {error}")
        return
    if _IDENTIFYING.isdisjoint(headings):
        yield Problem(
            reading.source,
            f"{here}: the headings have none of reference, digest, image_id",
            f"the first line names the columns: {', '.join(KEYS)}",
        )
        return
    order = [_last(headings, key) for key in KEYS]
    rows = csv.reader(_decoded(source), strict=True)
    while True:
        begins = source.number + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            # What follows a broken quote cannot be told apart from what is inside it.
            yield Problem(
                reading.source,
                f"{reading.where}, line {begins}: not CSV: {error}; nothing from here on was read",
            )
            return
        if len(cells) != len(headings):
            if any(cell.strip() for cell in cells):
                yield Problem(
                    reading.source,
                    f"{reading.where}, line {begins}: {len(cells)} fields where the headings have"
                    f" {len(headings)}",
                )
            continue
        cells.append("")  # for the headings that are not there
        host, namespace, name, identity, reference, image, digest, image_id, platform = [
            cells[position].strip() for position in order
        ]
        try:
            made = inventory.image(reference or image, digest, image_id, platform)
            yield Row(reading.text(host), reading.text(namespace), name, identity, made)
        except DigestryError as error:
            if any(cell.strip() for cell in cells):
                yield Problem(reading.source, f"{reading.where}, line {begins}: {error.message}", error.hint)


def _last(headings: list[str], key: str) -> int:
    """The position of a column, the last of several; that of the cell behind all if there is none."""
    return max((at for at, heading in enumerate(headings) if heading == key), default=-1)


def _decoded(source: Input) -> Iterator[str]:
    while line := source.line():
        yield line.decode()
