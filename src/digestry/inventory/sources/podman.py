"""The source ``podman``: its own API, the docker-compatible one, or its program."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Final, Protocol
from urllib.parse import quote

from digestry.errors import DigestryError, ProtocolViolation, Refused, RemoteNotFound, TooLarge, Unreachable
from digestry.inventory.engine_values import platform_of
from digestry.inventory.engines.client import LARGEST_ANSWER, Engine
from digestry.inventory.formats.engine_documents import (
    NO_IMAGE,
    ImageRecord,
    InspectedContainer,
    ListedContainer,
    read_image,
    read_inspected_container,
    read_listed_container,
)
from digestry.inventory.formats.engine_images import (
    INFRASTRUCTURE,
    image_id_of,
    own_detail,
    shown_image,
    with_podman_digest,
)
from digestry.inventory.observation import ContainerObservation, Observation, Unseen, now
from digestry.inventory.sources.docker import DockerSource
from digestry.inventory.sources.engine_answers import (
    CachedAnswers,
    observe_listed,
    show_container,
    show_image,
)
from digestry.inventory.sources.engine_source import EngineSource
from digestry.model.json_values import JsonObject, as_object, as_text
from digestry.model.platform import Platform

LIBPOD: Final = "/v4.0.0/libpod"  # its paths have no form without a version; newer engines accept this one
_COMMAND_TIMEOUT: Final = 30.0
_WHO: Final = "podman"
_LONGEST_MESSAGE: Final = 300


class Podman(Protocol):
    """The queries to podman. Each raises :class:`~digestry.errors.DigestryError`;
    :class:`RemoteNotFound` means that the container or image is gone."""

    def info(self) -> JsonObject: ...

    def containers(self, *, include_stopped: bool) -> list[ListedContainer]: ...

    def container(self, identity: str) -> InspectedContainer: ...

    def image(self, identity: str) -> ImageRecord: ...

    def close(self) -> None: ...


class PodmanAPI:
    """Podman's own API ("libpod")."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def info(self) -> JsonObject:
        return as_object(self._engine.get(f"{LIBPOD}/info"))

    def containers(self, *, include_stopped: bool) -> list[ListedContainer]:
        query = {"pod": "true"} | ({"all": "true"} if include_stopped else {})
        return _entries(self._engine.get(f"{LIBPOD}/containers/json", **query))

    def close(self) -> None:
        self._engine.close()

    def container(self, identity: str) -> InspectedContainer:
        shown = self._engine.get(f"{LIBPOD}/containers/{quote(identity, safe='')}/json")
        return read_inspected_container(shown)

    def image(self, identity: str) -> ImageRecord:
        return read_image(self._engine.get(f"{LIBPOD}/images/{quote(identity, safe='')}/json"))


class PodmanProgram:
    """The ``podman`` program, which needs no socket. ``command`` is its path and global options."""

    def __init__(self, *command: str) -> None:
        self._command = command or ("podman",)

    def info(self) -> JsonObject:
        return as_object(self._run("info", "--format", "json"))

    def containers(self, *, include_stopped: bool) -> list[ListedContainer]:
        stopped = ("--all",) if include_stopped else ()
        return _entries(self._run("ps", "--no-trunc", "--pod", *stopped, "--format", "json"))

    def close(self) -> None:
        """Do nothing: no connection is kept open."""

    def container(self, identity: str) -> InspectedContainer:
        return read_inspected_container(self._inspect("container", identity))

    def image(self, identity: str) -> ImageRecord:
        return read_image(self._inspect("image", identity))

    def _inspect(self, kind: str, identity: str) -> object:
        found = _list(self._run("inspect", "--type", kind, "--format", "json", "--", identity))
        return found[0] if found else None

    def _run(self, *arguments: str) -> object:
        name = self._command[0]
        try:
            done = subprocess.run(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_COMMAND_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"{name} {arguments[0]} did not end within {_COMMAND_TIMEOUT:g} s") from error
        except OSError as error:
            raise Unreachable(f"cannot run {name}: {error.strerror or error}") from error
        if done.returncode:
            complaint = done.stderr.decode(errors="replace").strip()[:_LONGEST_MESSAGE]
            message = f"{name} {arguments[0]} failed: {complaint or f'exit code {done.returncode}'}"
            if "no such" in complaint.lower():
                raise RemoteNotFound(message, status=404)
            raise Refused(message, status=500)
        if len(done.stdout) > LARGEST_ANSWER:
            raise TooLarge(
                f"{name} {arguments[0]} wrote more than {LARGEST_ANSWER} bytes", limit=LARGEST_ANSWER
            )
        try:
            return json.loads(done.stdout or b"null")
        except (ValueError, RecursionError) as error:
            raise ProtocolViolation(f"{name} {arguments[0]} did not write JSON") from error


class PodmanSource(EngineSource):
    """The containers of one podman: those that run, or, with ``include_stopped``, all.

    ``fallback`` is asked if this podman has no API of its own (such as a docker-compatible proxy).
    """

    def __init__(
        self,
        name: str,
        podman: Podman,
        *,
        include_stopped: bool = False,
        fallback: DockerSource | None = None,
    ) -> None:
        super().__init__(name, podman, include_stopped=include_stopped)
        self._podman = podman
        self._fallback = fallback

    def _observe(self) -> Iterator[Observation]:
        try:
            listed = self.containers(include_stopped=self._include_stopped)
        except RemoteNotFound as error:
            if self._fallback is None:
                yield self._unseen(error)
            else:
                yield from self._fallback.observe()
            return
        except DigestryError as error:
            yield self._unseen(error)
            return
        host, platform = self._name, None
        try:
            host, platform = self.describe()
        except DigestryError as error:
            yield Unseen(self._name, f"the host's name: {error.message}")
        images = CachedAnswers(self._podman.image)

        def observe(entry: ListedContainer, still_listed: bool) -> Observation | None:
            return self.container(entry, host, platform, images.get, still_listed=still_listed)

        def list_again() -> list[ListedContainer]:
            return self.containers(include_stopped=self._include_stopped)

        yield from observe_listed(self._name, listed, observe, list_again)

    def containers(self, *, include_stopped: bool) -> list[ListedContainer]:
        """Return podman's list of containers. Raises :class:`~digestry.errors.DigestryError`."""
        return self._podman.containers(include_stopped=include_stopped)

    def describe(self) -> tuple[str, Platform | None]:
        """Return podman's host and platform. Raises :class:`~digestry.errors.DigestryError`."""
        described = as_object(self._podman.info().get("host"))
        host = as_text(described.get("hostname")) or self._name
        return host, platform_of(described.get("arch"), described.get("os"))

    def container(
        self,
        entry: ListedContainer,
        host: str,
        platform: Platform | None,
        images: Callable[[str], ImageRecord],
        *,
        still_listed: bool,
    ) -> Observation | None:
        """Return one container, with its image as ``images`` has it by the hex digits of its ID.

        None if podman does not show it, and it need not be there: it is not ``still_listed``.
        """
        if not entry.id:
            return Unseen(self._name, "podman lists a container without an ID")
        remarks = [INFRASTRUCTURE] if entry.is_infra else []
        try:
            shown = show_container(
                lambda: self._podman.container(entry.id), _WHO, remarks, still_listed=still_listed
            )
        except RemoteNotFound:
            return None
        detail = own_detail(entry.id, shown, remarks)
        image_id = image_id_of(detail, entry, remarks)
        image = NO_IMAGE
        if image_id is None:
            remarks.append("podman gives no image ID for this container (a plain root directory?)")
        else:
            encoded = image_id.encoded
            image = show_image(lambda: images(encoded), _WHO, remarks) or NO_IMAGE
        facts = shown_image(
            typed=detail.image_name or entry.image or "",
            image_id=image_id,
            image=image,
            manifest=detail.manifest,
            driver=detail.driver or "",
            platform=image.platform or platform,
            remarks=remarks,
            made_up=True,
        )
        return ContainerObservation(
            source=self._name,
            host=host,
            namespace=entry.pod_name or "",
            name=entry.name or detail.name or "",
            id=entry.id,
            image=with_podman_digest(facts, detail.image_digest or "", remarks),
            seen_at=now(),
            remarks=tuple(remarks),
            workload=detail.labels.workload or (f"pod/{entry.pod_name}" if entry.pod_name else ""),
            created_at=detail.created_at,
            started_at=detail.started_at,
            ended_at=detail.ended_at,
            instance=detail.instance,
        )


def _entries(value: object) -> list[ListedContainer]:
    return [read_listed_container(entry) for entry in _list(value)]


def _list(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ProtocolViolation("podman's answer is not a list")
    return value
