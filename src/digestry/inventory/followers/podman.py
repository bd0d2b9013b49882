"""Podman's own API as a follower asks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from digestry.inventory.engine_values import digest_of
from digestry.inventory.engines.client import Engine, Waiting
from digestry.inventory.followers.engine_api import NamedImage
from digestry.inventory.followers.engine_events import seconds_of
from digestry.inventory.formats.engine_documents import ImageRecord, read_image
from digestry.inventory.sources.podman import LIBPOD, PodmanAPI, PodmanSource
from digestry.model.json_values import as_object
from digestry.model.platform import Platform

_FILTERS: Final = json.dumps({"type": ["container", "image"]})


class LibpodAPI:
    """Podman's own API. See :class:`~digestry.inventory.followers.engine_api.EngineAPI`."""

    made_up = True

    def __init__(self, name: str, engine: Engine) -> None:
        self._podman = PodmanAPI(engine)
        self.source = PodmanSource(name, self._podman)
        self._engine = engine
        self.url = engine.url

    def describe(self) -> tuple[str, Platform | None]:
        """Return podman's host and platform."""
        return self.source.describe()

    @property
    def clock_ahead(self) -> float:
        """The seconds by which podman's clock is ahead of this machine's."""
        return self._engine.clock_ahead

    def events(self, since: int, wait: Waiting) -> Iterator[bytes | None]:
        """Yield the lines of the stream of events, from the time ``since`` on if it is not 0."""
        query = {"stream": "true", "filters": _FILTERS}
        if since:
            query["since"] = seconds_of(since)
        return self._engine.lines(f"{LIBPOD}/events", wait, **query)

    def image(self, identity: str) -> ImageRecord:
        """Return the record of an image by its ID."""
        return self._podman.image(identity)

    def named_image(self, name: str) -> NamedImage:
        """Return the image that a name means now; podman does not say since when."""
        shown = as_object(self._engine.get(f"{LIBPOD}/images/{quote(name, safe='')}/json"))
        return NamedImage(digest_of(shown.get("Id")), read_image(shown))
