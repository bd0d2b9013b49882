"""Podman: its own API on a socket, the docker-compatible one, or, without a socket, its program."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Final, Protocol
from urllib.parse import quote

from digestry.errors import DigestryError, ProtocolViolation, Refused, RemoteNotFound, TooLarge, Unreachable
from digestry.inventory.engine_values import platform_of
from digestry.inventory.engines.client import LARGEST_ANSWER, Engine
from digestry.inventory.formats.engine_images import image_id_of, own_detail, shown_image, with_podman_digest
from digestry.inventory.observation import ContainerObservation, Observation, Unseen, now
from digestry.inventory.sources.docker import DockerSource
from digestry.model.json_values import JsonObject, as_list, as_object, as_text
from digestry.model.platform import Platform

_API: Final = "/v4.0.0/libpod"  # its paths have no form without a version; newer engines accept this one
_COMMAND_TIMEOUT: Final = 30.0
_LONGEST_MESSAGE: Final = 300


class Podman(Protocol):
    """What is asked of podman. Each raises :class:`~digestry.errors.DigestryError`;
    :class:`RemoteNotFound` means that the thing is gone."""

    def info(self) -> JsonObject: ...

    def containers(self, *, include_stopped: bool) -> list[object]: ...

    def container(self, identity: str) -> JsonObject: ...

    def image(self, identity: str) -> JsonObject: ...

    def close(self) -> None: ...


class PodmanAPI:
    """Podman's own API ("libpod")."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def info(self) -> JsonObject:
        return as_object(self._engine.get(f"{_API}/info"))

    def containers(self, *, include_stopped: bool) -> list[object]:
        query = {"pod": "true"} | ({"all": "true"} if include_stopped else {})
        return _list(self._engine.get(f"{_API}/containers/json", **query))

    def close(self) -> None:
        self._engine.close()

    def container(self, identity: str) -> JsonObject:
        return as_object(self._engine.get(f"{_API}/containers/{quote(identity, safe='')}/json"))

    def image(self, identity: str) -> JsonObject:
        return as_object(self._engine.get(f"{_API}/images/{quote(identity, safe='')}/json"))


class PodmanProgram:
    """The ``podman`` program, which needs no socket. ``command`` is its path and global options."""

    def __init__(self, *command: str) -> None:
        self._command = command or ("podman",)

    def info(self) -> JsonObject:
        return as_object(self._run("info", "--format", "json"))

    def containers(self, *, include_stopped: bool) -> list[object]:
        stopped = ("--all",) if include_stopped else ()
        return _list(self._run("ps", "--no-trunc", "--pod", *stopped, "--format", "json"))

    def close(self) -> None:
        """Nothing is kept open."""

    def container(self, identity: str) -> JsonObject:
        return self._inspect("container", identity)

    def image(self, identity: str) -> JsonObject:
        return self._inspect("image", identity)

    def _inspect(self, kind: str, identity: str) -> JsonObject:
        found = _list(self._run("inspect", "--type", kind, "--format", "json", "--", identity))
        return as_object(found[0]) if found else {}

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
            said = done.stderr.decode(errors="replace").strip()[:_LONGEST_MESSAGE]
            message = f"{name} {arguments[0]} failed: {said or f'exit code {done.returncode}'}"
            if "no such" in said.lower():
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


class PodmanSource:
    """The containers of one podman: those that run, or, with ``include_stopped``, all.

    ``fallback`` is asked if this podman knows no API of its own (a docker-compatible proxy, say).
    """

    def __init__(
        self,
        name: str,
        podman: Podman,
        *,
        include_stopped: bool = False,
        fallback: DockerSource | None = None,
    ) -> None:
        self._name = name
        self._podman = podman
        self._include_stopped = include_stopped
        self._fallback = fallback

    @property
    def name(self) -> str:
        return self._name

    def observe(self) -> Iterator[Observation]:
        with contextlib.closing(self._podman):
            yield from self._observe()

    def _observe(self) -> Iterator[Observation]:
        try:
            listed = self._podman.containers(include_stopped=self._include_stopped)
        except RemoteNotFound as error:
            if self._fallback is None:
                yield Unseen(self._name, error.message, error.hint)
            else:
                yield from self._fallback.observe()
            return
        except DigestryError as error:
            yield Unseen(self._name, error.message, error.hint)
            return
        host, platform = "", None
        try:
            described = as_object(self._podman.info().get("host"))
            host = as_text(described.get("hostname"))
            platform = platform_of(described.get("arch"), described.get("os"))
        except DigestryError as error:
            yield Unseen(self._name, f"the host's name: {error.message}")
        images: dict[str, JsonObject | DigestryError] = {}
        gone = []
        for entry in map(as_object, listed):
            found = self._container(entry, host or self._name, platform, images)
            if found is not None:
                yield found
            else:
                gone.append(entry)
        if gone:
            try:
                again = self._podman.containers(include_stopped=self._include_stopped)
            except DigestryError as error:
                yield Unseen(self._name, error.message, error.hint)
                return
            there = {as_text(as_object(entry).get("Id")) for entry in again}
            for entry in gone:
                if as_text(entry.get("Id")) in there:
                    found = self._container(entry, host or self._name, platform, images, is_shown=False)
                    if found is not None:
                        yield found

    def _container(
        self,
        entry: JsonObject,
        host: str,
        platform: Platform | None,
        images: dict[str, JsonObject | DigestryError],
        *,
        is_shown: bool = True,
    ) -> Observation | None:
        identity = as_text(entry.get("Id"))
        if not identity:
            return Unseen(self._name, "podman lists a container without an ID")
        remarks = ["this is its pod's own pause container"] if entry.get("IsInfra") is True else []
        detail: JsonObject = {}
        try:
            detail = self._podman.container(identity)
        except RemoteNotFound:
            if is_shown:
                return None  # it ended between the list and now, or so it seems
            remarks.append("podman lists this container, and says that it is not there")
        except DigestryError as error:
            remarks.append(f"podman does not show this container: {error.message}")
        detail = own_detail(identity, detail, remarks)
        image_id = image_id_of(detail, entry, remarks)
        image: JsonObject = {}
        if image_id is None:
            remarks.append("podman gives no image ID for this container (a plain root directory?)")
        else:
            answer = self._image(image_id.encoded, images)
            if isinstance(answer, RemoteNotFound):
                remarks.append("podman no longer has the image that this container runs")
            elif isinstance(answer, DigestryError):
                remarks.append(f"podman does not show this container's image: {answer.message}")
            else:
                image = answer
        names = [as_text(name) for name in as_list(entry.get("Names"))]
        facts = shown_image(
            typed=as_text(detail.get("ImageName")) or as_text(entry.get("Image")),
            image_id=image_id,
            detail=detail,
            image=image,
            platform=platform_of(image.get("Architecture"), image.get("Os"), image.get("Variant"))
            or platform,
            remarks=remarks,
            made_up=True,
        )
        facts = with_podman_digest(facts, detail.get("ImageDigest"), remarks)
        return ContainerObservation(
            source=self._name,
            host=host,
            namespace=as_text(entry.get("PodName")),
            name=next((name for name in names if name), "") or as_text(detail.get("Name")),
            id=identity,
            image=facts,
            seen_at=now(),
            remarks=tuple(remarks),
        )

    def _image(
        self, identity: str, images: dict[str, JsonObject | DigestryError]
    ) -> JsonObject | DigestryError:
        if identity not in images:
            try:
                images[identity] = self._podman.image(identity)
            except DigestryError as error:
                images[identity] = error
        return images[identity]


def _list(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ProtocolViolation("podman's answer is not a list")
    return value
