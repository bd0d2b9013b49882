"""Docker's API as a follower asks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from digestry.inventory.engine_values import digest_of, time_of
from digestry.inventory.engines.client import Engine, Waiting
from digestry.inventory.followers.engine_api import NamedImage
from digestry.inventory.followers.engine_events import seconds_of
from digestry.inventory.formats.engine_documents import ImageRecord, read_image
from digestry.inventory.sources.docker import DockerSource
from digestry.model.json_values import as_object
from digestry.model.platform import Platform

# Others, such as those of health checks, would wake whoever follows for nothing.
_FILTERS: Final = json.dumps(
    {
        "type": ["container", "image"],
        "event": ["create", "start", "die", "destroy", "tag", "untag", "pull", "delete", "load", "import"],
    }
)


class DockerAPI:
    """The engine of ``source``. See :class:`~digestry.inventory.followers.engine_api.EngineAPI`."""

    def __init__(self, source: DockerSource, engine: Engine, *, made_up: bool = False) -> None:
        self.source = source
        self.made_up = made_up
        self._engine = engine
        self.url = engine.url

    def describe(self) -> tuple[str, Platform | None]:
        """Return the engine's host and platform."""
        host, platform, _ = self.source.describe()
        return host, platform

    @property
    def clock_ahead(self) -> float:
        """The seconds by which the engine's clock is ahead of this machine's."""
        return self._engine.clock_ahead

    def events(self, since: int, wait: Waiting) -> Iterator[bytes | None]:
        """Yield the lines of the stream of events, from the time ``since`` on if it is not 0."""
        query = {"filters": _FILTERS}
        if since:
            query["since"] = seconds_of(since)
        return self._engine.lines("/events", wait, **query)

    def image(self, identity: str) -> ImageRecord:
        """Return the record of an image by its ID."""
        return self.source.image(identity)

    def named_image(self, name: str) -> NamedImage:
        """Return the image that a name means now."""
        shown = as_object(self._engine.get(f"/images/{quote(name, safe=':/@')}/json"))
        tagged = as_object(shown.get("Metadata")).get("LastTagTime")
        return NamedImage(digest_of(shown.get("Id")), read_image(shown), time_of(tagged))
