"""Apple's ``container``: containers of macOS, each in a virtual machine of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import msgspec

from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.declared_images import ObjectFormat, declared_image, state_and_remarks
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item, begins_with
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_object, as_text
from digestry.model.platform import Platform


class AppleContainer(ObjectFormat):
    """A container: ``container list --format json``, ``container inspect``.

    ``configuration.image.descriptor`` is what the name in ``reference`` was resolved to when the container
    was made: an index, or a manifest.
    """

    title: ClassVar[str] = "`container list --format json`"
    usable: ClassVar[str] = "containers with an image"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if not ("status" in fields and begins_with(fields.get("configuration"), "{")):
            return False
        try:
            configuration = msgspec.json.decode(fields["configuration"], type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return begins_with(configuration.get("image"), "{")

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        configuration = as_object(entry.get("configuration"))
        image, platform = as_object(configuration.get("image")), as_object(configuration.get("platform"))
        identity = as_text(configuration.get("id"))
        typed = as_text(image.get("reference"))
        digest = as_text(as_object(image.get("descriptor")).get("digest"))
        if not typed and not digest:
            raise InvalidConfiguration(f"the container {shown(identity)} names no image")
        state, remarks = state_and_remarks(as_text(entry.get("status")))
        if not self.shows(state):
            return
        yield self.row(
            place,
            declared_image(
                self._reading,
                typed,
                ("configuration.image.descriptor.digest", digest),
                state=state,
                remarks=remarks,
                platform=_platform(platform),
            ),
            name=identity,
            identity=identity,
        )


def _platform(said: JsonObject) -> Platform | None:
    names = [as_text(said.get(key)) for key in ("os", "architecture", "variant")]
    return Platform.parse("/".join(name for name in names if name)) if all(names[:2]) else None
