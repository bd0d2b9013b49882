"""Podman's own API as a follower asks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote

from digestry.inventory.engine_values import digest_of
from digestry.inventory.engines.client import Engine, Waiting
from digestry.inventory.followers.engine import NANOSECONDS, NamedImage
from digestry.inventory.formats.engine_documents import ImageRecord, ListedContainer, read_image
from digestry.inventory.observation import Observation
from digestry.inventory.sources.podman import LIBPOD, PodmanAPI, PodmanSource
from digestry.model.json_values import as_object
from digestry.model.platform import Platform

_FILTERS: Final = json.dumps({"type": ["container", "image"]})


class LibpodAPI:
    """Podman's own API. See :class:`~digestry.inventory.followers.engine.EngineAPI`."""

    made_up = True

    def __init__(self, name: str, engine: Engine) -> None:
        self._podman = PodmanAPI(engine)
        self._source = PodmanSource(name, self._podman)
        self._engine = engine
        self.url = engine.url

    def describe(self) -> tuple[str, Platform | None]:
        """Return podman's host and platform."""
        return self._source.describe()

    def events(self, since: int, wait: Waiting) -> Iterator[bytes | None]:
        """Yield the lines of the stream of events, from the time ``since`` on if it is not 0."""
        query = {"stream": "true", "filters": _FILTERS}
        if since:
            query["since"] = f"{since // NANOSECONDS}.{since % NANOSECONDS:09d}"
        return self._engine.lines(f"{LIBPOD}/events", wait, **query)

    def containers(self, *, include_stopped: bool) -> list[ListedContainer]:
        """Return podman's list of containers."""
        return self._source.containers(include_stopped=include_stopped)

    def container(
        self,
        entry: ListedContainer,
        host: str,
        platform: Platform | None,
        images: Callable[[str], ImageRecord],
        *,
        still_listed: bool,
    ) -> Observation | None:
        """Return one container; None if it is gone."""
        return self._source.container(entry, host, platform, images, still_listed=still_listed)

    def image(self, identity: str) -> ImageRecord:
        """Return the record of an image by its ID."""
        return self._podman.image(identity)

    def named_image(self, name: str) -> NamedImage:
        """Return the image that a name means now; podman does not say since when."""
        shown = as_object(self._engine.get(f"{LIBPOD}/images/{quote(name, safe='')}/json"))
        return NamedImage(digest_of(shown.get("Id")), read_image(shown))
