"""The source ``docker``: Docker's engine, and others with its API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote

from digestry.client.options import is_loopback
from digestry.errors import DigestryError, ProtocolViolation, RemoteNotFound
from digestry.inventory.engine_values import platform_of, reference_of
from digestry.inventory.engines.client import Engine
from digestry.inventory.formats.engine_documents import (
    NO_IMAGE,
    ImageRecord,
    ListedContainer,
    read_image,
    read_inspected_container,
    read_listed_container,
)
from digestry.inventory.formats.engine_images import image_id_of, own_detail, shown_image
from digestry.inventory.observation import ContainerObservation, Observation, Unseen, now
from digestry.inventory.sources.engine_answers import observe_listed, show_container, show_image
from digestry.inventory.sources.engine_source import EngineSource
from digestry.model.json_values import as_object, as_text
from digestry.model.platform import Platform

_WHO: Final = "the engine"


class DockerSource(EngineSource):
    """The containers of one engine: those that run, or, with ``include_stopped``, all.

    ``made_up`` is True for an engine that pairs names and digests itself.
    """

    def __init__(
        self, name: str, engine: Engine, *, include_stopped: bool = False, made_up: bool = False
    ) -> None:
        super().__init__(name, engine, include_stopped=include_stopped)
        self._engine = engine
        self._made_up = made_up

    def _observe(self) -> Iterator[Observation]:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - whoever follows needs none

        try:
            listed = self.containers(include_stopped=self._include_stopped)
        except DigestryError as error:
            yield self._unseen(error)
            return
        host, platform, remark = self.describe()
        if remark is not None:
            yield remark

        def observe(entry: ListedContainer, still_listed: bool) -> Observation | None:
            return self.container(entry, host, platform, self.image, still_listed=still_listed)

        def list_again() -> list[ListedContainer]:
            return self.containers(include_stopped=self._include_stopped)

        with ThreadPoolExecutor(self._engine.parallel, "docker") as pool:
            yield from observe_listed(self._name, listed, observe, list_again, run=pool.map)

    def containers(self, *, include_stopped: bool) -> list[ListedContainer]:
        """Return the engine's list of containers. Raises :class:`~digestry.errors.DigestryError`."""
        listed = self._engine.get("/containers/json", **({"all": "true"} if include_stopped else {}))
        if not isinstance(listed, list):
            raise ProtocolViolation(f"{self._engine.url}: the list of containers is not a list")
        return [read_listed_container(entry) for entry in listed]

    def image(self, identity: str) -> ImageRecord:
        """Return the engine's record of an image, by its ID or name. Raises as :meth:`containers` does."""
        return read_image(self._engine.get(f"/images/{quote(identity, safe=':/@')}/json"))

    def describe(self) -> tuple[str, Platform | None, Unseen | None]:
        """Return the engine's host and platform, and a problem if it does not tell them."""
        try:
            info = as_object(self._engine.get("/info"))
        except DigestryError as error:
            # Rows without a host's name are still rows.
            return self._engine.url, None, Unseen(self._name, f"the host's name: {error.message}")
        platform = platform_of(info.get("Architecture"), info.get("OSType"))
        return as_text(info.get("Name")) or self._engine.url, platform, None

    def container(
        self,
        entry: ListedContainer,
        host: str,
        platform: Platform | None,
        images: Callable[[str], ImageRecord],
        *,
        still_listed: bool,
    ) -> Observation | None:
        """Return one container, with its image as ``images`` has it by its ID.

        None if the engine does not show it, and it need not be there: it is not ``still_listed``.
        """
        if not entry.id:
            return Unseen(self._name, f"{self._engine.url}: the list has a container without an ID")
        remarks: list[str] = []
        path = f"/containers/{quote(entry.id, safe='')}/json"
        try:
            shown = show_container(
                lambda: read_inspected_container(self._engine.get(path)),
                _WHO,
                remarks,
                still_listed=still_listed,
            )
        except RemoteNotFound:
            return None
        detail = own_detail(entry.id, shown, remarks)
        image_id = image_id_of(detail, entry, remarks)
        image = NO_IMAGE
        if image_id is None:
            remarks.append("the engine gives no image ID for this container")
        else:
            identity = str(image_id)
            image = show_image(lambda: images(identity), _WHO, remarks) or NO_IMAGE
        # The list's own `Image` is a bare ID as soon as the name means another image.
        typed = detail.typed or entry.image or ""
        named = reference_of(typed)
        if self._engine.is_remote and named is not None and is_loopback(named.host):
            remarks.append(f"{named.host} is a registry on {host} itself; the one here was asked")
        facts = shown_image(
            typed=typed,
            image_id=image_id,
            image=image,
            manifest=detail.manifest,
            driver=detail.driver or "",
            platform=image.platform or platform,
            remarks=remarks,
            made_up=self._made_up,
            platform_assumed=image.platform is not None and not _same_machine(image.platform, platform),
        )
        return ContainerObservation(
            source=self._name,
            host=host,
            namespace=entry.project,
            name=entry.name or detail.name or "",
            id=entry.id,
            image=facts,
            seen_at=now(),
            remarks=tuple(remarks),
            workload=detail.labels.workload,
            created_at=detail.created_at,
            started_at=detail.started_at,
            ended_at=detail.ended_at,
            instance=detail.instance,
        )


def _same_machine(platform: Platform, other: Platform | None) -> bool:
    return other is not None and (platform.os, platform.architecture) == (other.os, other.architecture)
