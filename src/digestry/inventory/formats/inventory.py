"""An inventory file: one object, or one line of CSV, for each container.

The keys and headings are ``host namespace name id reference digest image_id platform``, with ``image`` for
``reference`` too, ``state``, and the other names in :mod:`~.columns`. Other keys that may hold an image's
identity are reported as not read.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from typing import ClassVar, Final

import msgspec

from digestry.errors import DigestryError, InvalidDigest, InvalidReference
from digestry.inventory.engine_values import repository_of
from digestry.inventory.formats.columns import (
    IDENTIFYING,
    Plan,
    Values,
    is_empty,
    is_state,
    names_image,
    plan,
    reads,
)
from digestry.inventory.formats.container_states import State
from digestry.inventory.formats.declared_images import state_and_remarks
from digestry.inventory.formats.digest_columns import plain, unread
from digestry.inventory.formats.image_ids import NO_HOST, NO_REGISTRY, read_image_id
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item, Reading, Row, RowImage
from digestry.inventory.observation import Abbreviation, Claim, ImageFacts, Unseen, abbreviation
from digestry.model.digest import Digest, shown
from digestry.model.json_types import prepared
from digestry.model.json_values import JsonObject
from digestry.model.platform import Platform
from digestry.model.reference import Reference

KEYS: Final = ("host", "namespace", "name", "id", "reference", "image", "digest", "image_id", "platform")

_TRANSPORTS: Final = ("docker://", "oci://", "docker-image://", "https://", "http://")
"""As skopeo, Nomad's podman and cri-tools write a name, helm, BuildKit, and who copies it from a browser."""

_NOTHING: Final = "it has none of reference, digest, image_id"
UNREAD: Final = "could hold what runs, and is not read"
RENAME: Final = "call it digest or image_id if it is what runs; leave it out if it is not"


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
        self._decoder = msgspec.json.Decoder(prepared(_Entry))
        self._any = msgspec.json.Decoder(JsonObject)
        self._images: dict[Hashable, RowImage] = {}
        self._plans: dict[tuple[str, ...], Plan] = {}

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return not fields.keys().isdisjoint(KEYS) or any(map(names_image, fields))

    def read(self, raw: msgspec.Raw, fields: Fields, place: SourceLocation, index: int) -> Iterable[Item]:
        if not fields.keys() <= _PLAIN:
            return self._odd(raw, place, index)
        container = self._decoder.decode(raw)
        image = self.image(
            container.reference or container.image or "",
            (("digest", container.digest or ""), ("image_id", container.image_id or "")),
            container.platform or "",
        )
        text = self._reading.text
        return (
            Row(
                text(container.host or place.host),
                text(container.namespace or ""),
                container.name or "",
                container.id or "",
                image,
            ),
        )

    def _odd(self, raw: msgspec.Raw, place: SourceLocation, index: int) -> Iterator[Item]:
        """Yield the container of an entry with other keys than the documented ones."""
        entry = self._any.decode(raw)
        keys = tuple(entry)
        by = self._plans.get(keys)
        if by is None:
            by = self._plans[keys] = plan(keys)
        rest = {key: value for key, value in entry.items() if key not in by.read or _has_objects(value)}
        yield from self.not_read(unread(rest), place.where(index))
        cells = [_state(value) if is_state(key) else _text(value) for key, value in entry.items()]
        values = by.values(cells)
        if not values.state:
            values = values._replace(state=next(_inner_states(rest), ""))
        try:
            yield from self.row(values, place.host)
        except DigestryError as error:
            # Not raised: the unread keys were reported just now.
            found = f" in {', '.join(map(shown, entry))}" if error.message == _NOTHING else ""
            where = f"{self._reading.where}, {place.where(index)}"
            yield Unseen(self._reading.source, f"{where}: {error.message}{found}", error.hint)

    def row(self, values: Values, host: str = "") -> tuple[Row, ...]:
        """Return the container of ``values``, none if it does not run. Raises :class:`DigestryError`."""
        state, remarks = state_and_remarks(values.state) if values.state else _RUNS
        image = self.image(
            values.reference, values.identities, values.platform, remarks, waits=state == "waits"
        )
        if state == "ended" and self._reading.left_out(runs=False):
            return ()
        text = self._reading.text
        return (Row(text(values.host or host), text(values.namespace), values.name, values.id, image),)

    def not_read(self, paths: Iterable[str], where: str) -> Iterator[Item]:
        """Yield a problem for each of ``paths`` that was not named before."""
        for path in dict.fromkeys(paths):
            if self._reading.first("unread", path):
                message = f"{self._reading.where}, {where}: {shown(path)} {UNREAD}"
                yield Unseen(self._reading.source, message, RENAME)

    def finish(self) -> Iterable[Item]:
        return ()

    def image(
        self,
        reference: str,
        identities: tuple[tuple[str, str], ...],
        platform: str,
        remarks: tuple[str, ...] = (),
        *,
        waits: bool = False,
    ) -> RowImage:
        """Return the image of a container; "" is an unknown value.

        ``identities`` are the names of keys and their values. Raises :class:`DigestryError`.
        """
        key = (reference, identities, platform, remarks, waits)
        image = self._images.get(key)
        if image is None:
            image = self._images[key] = self._image(reference, identities, platform, remarks, waits)
        return image

    def _image(
        self,
        reference: str,
        identities: tuple[tuple[str, str], ...],
        platform: str,
        notes: tuple[str, ...],
        waits: bool,
    ) -> RowImage:
        if not (reference or any(not is_empty(text) for _, text in identities)):
            raise InvalidReference(_NOTHING)
        where = self._reading.where
        remarks = list(notes)
        reference = _without_transport(reference.strip())
        repository: Reference | None = None
        unpublished = False
        own = repository_of(reference)
        found = _Found(where, None if own is None or own.host == NO_HOST else own)
        pinned: list[Claim] = []
        if _is_id(reference):
            # As `docker inspect` has it: of a container that was started by its image's ID.
            identities, reference = (*identities, ("image_id", reference)), ""
        elif reference:
            try:
                parsed = Reference.parse(reference)
                unpublished = parsed.host == NO_HOST
                repository = None if unpublished else parsed.repository_only()
                if unpublished:
                    remarks.append(f"{reference}: {NO_REGISTRY}")
                if parsed.digest is not None:
                    pinned.append(_claim(parsed.digest, repository, f"the reference in {where}"))
            except InvalidReference as error:
                remarks.append(error.message)
        for key, text in identities:
            found.add(key, text)
        # The recorded digests of the container come before the one in its name.
        claims = () if waits else tuple(dict.fromkeys((*found.digests, *pinned, *found.image_ids)))
        facts = ImageFacts(
            reference=reference or None,
            claims=claims,
            image_id=found.image_id,
            platform=Platform.parse(platform) if platform else None,
            abbreviations=() if waits else tuple(found.abbreviations),
            registry_named=not unpublished or any(claim.repository is not None for claim in claims),
        )
        return RowImage(
            facts,
            tuple(dict.fromkeys((*remarks, *found.remarks))),
            waiting="starting" if waits else "",
        )


_PLAIN: Final = frozenset(KEYS)
_RUNS: Final[tuple[State, tuple[str, ...]]] = ("runs", ())
_DEEPEST: Final = 4
_OTHER_TIME: Final = re.compile(r"last(?!status)|previous|desired|old|health")
_ID: Final = re.compile(r"(?:sha256:)?[0-9a-f]{64}", re.ASCII)


class _Found:
    """The claims from the identities of one entry. ``own`` is the repository of its image's name."""

    def __init__(self, where: str, own: Reference | None) -> None:
        self._where = where
        self._own = own
        self.digests: list[Claim] = []
        self.image_ids: list[Claim] = []
        self.image_id: Digest | None = None
        self.abbreviations: list[Abbreviation] = []
        self.remarks: list[str] = []

    def add(self, key: str, text: str) -> None:
        """Add the identity in ``text``, the value of ``key``. Raises :class:`DigestryError`."""
        if is_empty(text):
            return
        read_from = f"{key} in {self._where}"
        is_id = IDENTIFYING[key] == "image-id" if key in IDENTIFYING else reads(key) == "image-id"
        short = abbreviation(text, read_from, "image-id" if is_id else "inventory")
        if short is not None:
            self.abbreviations.append(short)
        elif not is_id:
            self.digests.append(_digest_claim(text, self._own, read_from))
        elif "@" in text or "://" in text:
            read = read_image_id(text, runtime="", own=self._own, field=read_from)
            self.digests += read.claims
            self.image_id = self.image_id or read.image_id
            self.remarks += read.remarks
        else:
            digest = Digest.parse(text if ":" in text else f"sha256:{text}")
            self.image_id = self.image_id or digest
            self.image_ids.append(Claim(digest, "unknown", None, read_from, "image-id", obtained=False))


def _text(value: object) -> str:
    """Return a value as a cell of a table has it; of a list, its texts with spaces between."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return " ".join(text for text in map(_text, value) if text)
    return ""


def _has_objects(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_has_objects, value)))


def _state(value: object) -> str:
    """Return the word for a state.

    Programs write it alone, as an object's key, or in one of its values.
    """
    if not isinstance(value, dict):
        return _text(value)
    for key in ("terminated", "waiting", "running"):
        if isinstance(value.get(key), dict):
            return key
    words = (_text(inner) for key, inner in value.items() if is_state(key))
    return next((word for word in words if word), "")


def _inner_states(value: object, depth: int = 0) -> Iterator[str]:
    """Yield the words for states deeper in an entry, without those of the past or the future."""
    if not isinstance(value, dict) or depth > _DEEPEST:
        return
    for key, inner in value.items():
        if _OTHER_TIME.match(plain(key)):
            continue
        if is_state(key) and (word := _state(inner)):
            yield word
        yield from _inner_states(inner, depth + 1)


def _without_transport(reference: str) -> str:
    """Return an image's name without the word for a registry before it that other programs write."""
    return next((reference[len(word) :] for word in _TRANSPORTS if reference.startswith(word)), reference)


def _is_id(reference: str) -> bool:
    return _ID.fullmatch(reference) is not None


def _claim(digest: Digest, repository: Reference | None, read_from: str) -> Claim:
    obtained = repository is None or repository.host != NO_HOST
    return Claim(
        digest, "unknown", repository if obtained else None, read_from, "inventory", obtained=obtained
    )


def _digest_claim(text: str, own: Reference | None, read_from: str) -> Claim:
    """Read ``sha256:…``, its hex digits alone, or ``repository@sha256:…``."""
    if "@" in text:
        reference = Reference.parse(text.rpartition("://")[2])
        if reference.digest is None:
            raise InvalidDigest(f"{shown(text)} has no digest")
        return _claim(reference.digest, reference.repository_only(), read_from)
    return _claim(Digest.parse(text if ":" in text else f"sha256:{text}"), own, read_from)
