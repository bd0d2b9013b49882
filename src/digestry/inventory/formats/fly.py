"""Fly.io: machines, each of which runs one image or, lately, several containers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.declared_images import ObjectFormat, declared_image, state_and_remarks
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item, begins_with
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text


class FlyMachine(ObjectFormat):
    """A machine: ``fly machine list --json``, ``fly machine status --json``, and the same in Fly's API.

    ``image_ref`` is what the name in ``config.image`` was resolved to when the machine was made or updated.
    """

    title: ClassVar[str] = "`fly machine list --json`"
    usable: ClassVar[str] = "machines with an image"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return begins_with(fields.get("image_ref"), "{") and (
            "instance_id" in fields or begins_with(fields.get("config"), "{")
        )

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        config, resolved = as_object(entry.get("config")), as_object(entry.get("image_ref"))
        state, remarks = state_and_remarks(as_text(entry.get("state")))
        identity, name = as_text(entry.get("id")), as_text(entry.get("name"))
        containers = [as_object(one) for one in as_list(config.get("containers"))]
        typed = as_text(config.get("image")) or _named(resolved)
        if not typed and not containers:
            raise InvalidConfiguration(f"the machine {shown(name or identity)} names no image")
        if not self.shows(state, len(containers) or 1):
            return
        for container in containers or [{}]:
            image = as_text(container.get("image"))
            digests = () if image else (("image_ref.digest", as_text(resolved.get("digest"))),)
            own = as_text(container.get("name"))
            yield self.row(
                place,
                declared_image(self._reading, image or typed, *digests, state=state, remarks=remarks),
                host=identity,
                namespace=as_text(entry.get("region")),
                name=f"{name or identity}/{own}" if own else name or identity,
                identity=identity,
            )


def _named(resolved: JsonObject) -> str:
    """Return the name that ``image_ref`` has in parts: a registry, a repository and a tag."""
    registry, repository, tag = (as_text(resolved.get(key)) for key in ("registry", "repository", "tag"))
    if not repository:
        return ""
    named = f"{registry}/{repository}" if registry else repository
    return f"{named}:{tag}" if tag else named
