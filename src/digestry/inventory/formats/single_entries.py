"""The base of formats whose entries each describe one container or image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Generic, TypeVar

import msgspec

from digestry.inventory.formats.engine_documents import ImageRecord
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import DeferredImage, Fields, Item, Reading, Row, RowImage
from digestry.model.digest import Digest
from digestry.model.json_types import prepared

T = TypeVar("T")


class EntryFormat(Generic[T]):
    """An entry is decoded as an ``entry``, which is ``T``, and is whole: nothing is left for the end."""

    entry: ClassVar[object]

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(prepared(self.entry))

    def read(self, raw: msgspec.Raw, fields: Fields, place: SourceLocation, index: int) -> Iterable[Item]:
        """See :meth:`~.rows.Format.read`."""
        return self.read_entry(self._decoder.decode(raw), fields, place)

    def read_entry(self, entry: T, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        """Return the rows, problems and notes of one entry. Raises :class:`DigestryError`."""
        raise NotImplementedError

    def finish(self) -> Iterable[Item]:
        """See :meth:`~.rows.Format.finish`."""
        return ()

    def row(
        self,
        place: SourceLocation,
        image: RowImage | DeferredImage,
        *,
        name: str,
        host: str = "",
        namespace: str = "",
        identity: str = "",
    ) -> Row:
        """Return a container of ``place``, whose own host counts if ``host`` is "".

        Hosts and namespaces repeat: each is one object.
        """
        text = self._reading.text
        return Row(text(host or place.host), text(namespace), name, identity, image)


class ImageListFormat(EntryFormat[T]):
    """The base of formats of images, whose records complete the containers elsewhere in the file."""

    usable: ClassVar[str] = "containers: images alone do not say what runs"

    def read_entry(self, entry: T, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        learnt = self.image_record(entry)
        if learnt is not None:
            self._reading.add_image(*learnt)
        return ()

    def image_record(self, image: T) -> tuple[Digest, ImageRecord] | None:
        """Return the ID of an image and its description, or None if the entry says nothing of it."""
        raise NotImplementedError
