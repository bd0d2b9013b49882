"""Docker's engine, and whatever else speaks its API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import quote

from digestry.client.options import is_loopback
from digestry.errors import DigestryError, RemoteNotFound
from digestry.inventory.engine_values import platform_of, reference_of
from digestry.inventory.engines.client import Engine
from digestry.inventory.formats.engine_images import image_id_of, own_detail, shown_image
from digestry.inventory.observation import ContainerObservation, Observation, Unseen, now
from digestry.model.json_values import JsonObject, as_list, as_object, as_text
from digestry.model.platform import Platform

_COMPOSE_PROJECT: Final = "com.docker.compose.project"


class DockerSource:
    """The containers of one engine: those that run, or, with ``include_stopped``, all.

    ``made_up`` is True for an engine that pairs names and digests itself.
    """

    def __init__(
        self, name: str, engine: Engine, *, include_stopped: bool = False, made_up: bool = False
    ) -> None:
        self._name = name
        self._engine = engine
        self._made_up = made_up
        self._include_stopped = include_stopped

    @property
    def name(self) -> str:
        return self._name

    def observe(self) -> Iterator[Observation]:
        with contextlib.closing(self._engine):
            yield from self._observe()

    def _observe(self) -> Iterator[Observation]:
        try:
            listed = self._list()
        except DigestryError as error:
            yield Unseen(self._name, error.message, error.hint)
            return
        if not isinstance(listed, list):
            yield Unseen(self._name, f"{self._engine.url}: the list of containers is not a list")
            return
        host, platform, remark = self._describe()
        if remark is not None:
            yield remark

        def one(entry: object) -> Observation | None:
            return self._container(as_object(entry), host, platform)

        with ThreadPoolExecutor(self._engine.parallel, "docker") as pool:
            gone = []
            for entry, found in zip(listed, pool.map(one, listed), strict=True):
                if found is None:
                    gone.append(as_object(entry))
                else:
                    yield found
        if gone:
            yield from self._not_shown(gone, host, platform)

    def _list(self) -> object:
        return self._engine.get("/containers/json", **({"all": "true"} if self._include_stopped else {}))

    def _not_shown(
        self, entries: list[JsonObject], host: str, platform: Platform | None
    ) -> Iterator[Observation]:
        """Those of ``entries`` that are still listed, though the engine says that they are not there."""
        try:
            listed = {as_text(as_object(entry).get("Id")) for entry in as_list(self._list())}
        except DigestryError as error:
            yield Unseen(self._name, error.message, error.hint)
            return
        for entry in entries:
            if as_text(entry.get("Id")) in listed:
                found = self._container(entry, host, platform, is_shown=False)
                if found is not None:
                    yield found

    def _describe(self) -> tuple[str, Platform | None, Unseen | None]:
        try:
            info = as_object(self._engine.get("/info"))
        except DigestryError as error:
            # Rows without a host's name are still rows.
            return self._engine.url, None, Unseen(self._name, f"the host's name: {error.message}")
        platform = platform_of(info.get("Architecture"), info.get("OSType"))
        return as_text(info.get("Name")) or self._engine.url, platform, None

    def _container(
        self, entry: JsonObject, host: str, platform: Platform | None, *, is_shown: bool = True
    ) -> Observation | None:
        identity = as_text(entry.get("Id"))
        if not identity:
            return Unseen(self._name, f"{self._engine.url}: the list has a container without an ID")
        names = [as_text(name).removeprefix("/") for name in as_list(entry.get("Names"))]
        namespace = as_text(as_object(entry.get("Labels")).get(_COMPOSE_PROJECT))
        remarks: list[str] = []
        detail: JsonObject = {}
        image: JsonObject = {}
        try:
            detail = as_object(self._engine.get(f"/containers/{quote(identity, safe='')}/json"))
        except RemoteNotFound:
            if is_shown:
                return None  # it ended between the list and now, or so it seems
            remarks.append("the engine lists this container, and says that it is not there")
        except DigestryError as error:
            remarks.append(f"the engine does not show this container: {error.message}")
        detail = own_detail(identity, detail, remarks)
        image_id = image_id_of(detail, entry, remarks)
        if image_id is None:
            remarks.append("the engine gives no image ID for this container")
        else:
            try:
                image = as_object(self._engine.get(f"/images/{image_id}/json"))
            except RemoteNotFound:
                remarks.append("the engine no longer has the image that this container runs")
            except DigestryError as error:
                remarks.append(f"the engine does not show this container's image: {error.message}")
        # The list's own `Image` is a bare ID as soon as the name means another image.
        typed = as_text(as_object(detail.get("Config")).get("Image")) or as_text(entry.get("Image"))
        own = platform_of(image.get("Architecture"), image.get("Os"), image.get("Variant"))
        named = reference_of(typed)
        if self._engine.is_remote and named is not None and is_loopback(named.host):
            remarks.append(f"{named.host} is a registry on {host} itself; what was asked is the one here")
        facts = shown_image(
            typed=typed,
            image_id=image_id,
            detail=detail,
            image=image,
            platform=own or platform,
            remarks=remarks,
            made_up=self._made_up,
            platform_assumed=own is not None and not _same_machine(own, platform),
        )
        return ContainerObservation(
            source=self._name,
            host=host,
            namespace=namespace,
            name=next((name for name in names if name), "") or as_text(detail.get("Name")).removeprefix("/"),
            id=identity,
            image=facts,
            seen_at=now(),
            remarks=tuple(remarks),
        )


def _same_machine(one: Platform, other: Platform | None) -> bool:
    return other is not None and (one.os, one.architecture) == (other.os, other.architecture)
