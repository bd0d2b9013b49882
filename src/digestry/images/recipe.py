"""The recipe of a packed image: what it says about itself, and the image that it builds upon."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from digestry.errors import ContentError, InvalidConfiguration
from digestry.images.layer_writer import Compression
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, shown
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Image
from digestry.model.platform import Platform

BASE_NAME: Final = "org.opencontainers.image.base.name"
BASE_DIGEST: Final = "org.opencontainers.image.base.digest"
"""Annotations that say what an image builds upon (image-spec, annotations.md)."""

_OCI_LAYERS: Final = {
    media_types.DOCKER_LAYER: media_types.OCI_LAYER,
    media_types.DOCKER_LAYER_GZIP: media_types.OCI_LAYER_GZIP,
    media_types.DOCKER_LAYER_ZSTD: media_types.OCI_LAYER_ZSTD,
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the image says about itself (image-spec, config.md). ``time`` is in seconds since 1970.

    ``environment`` are ``NAME=value``; ``ports`` are ``8080`` or ``8080/udp``; ``annotations`` are the
    manifest's. ``level`` is one of ``compression``'s: None is its default.
    """

    platform: Platform
    time: int = 0
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    working_directory: str = ""
    user: str = ""
    ports: tuple[str, ...] = ()
    compression: Compression = "stored"
    level: int | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    health_command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An image that another one builds upon. ``name`` is how it was asked for, or is empty."""

    name: str
    image: Image
    config: ImageConfig

    def layers(self) -> list[Descriptor]:
        """Return the layers, as an OCI manifest describes them.

        Raises :class:`InvalidConfiguration` for an artifact, :class:`ContentError` for a config that does not
        fit.
        """
        if self.image.config.media_type not in media_types.IMAGE_CONFIGS:
            raise InvalidConfiguration(
                f"{self.image.digest} is an artifact, not a container's image: its config is"
                f" {self.image.config.media_type}",
                hint="choose another --base",
            )
        if len(self.image.layers) != len(self.config.diff_ids):
            raise ContentError(
                f"{self.image.digest} has {len(self.image.layers)} layers, but its config"
                f" {len(self.config.diff_ids)}"
            )
        return [
            msgspec.structs.replace(layer, media_type=_OCI_LAYERS.get(layer.media_type, layer.media_type))
            for layer in self.image.layers
        ]

    def annotations(self) -> dict[str, str]:
        """Return the annotations of an image that builds upon this one."""
        named = {BASE_NAME: self.name} if self.name else {}
        return {**named, BASE_DIGEST: str(self.image.digest)}


def config_document(recipe: Recipe, base: BaseImage | None, diff_id: Digest) -> dict[str, Any]:
    """Return the config of an image of ``recipe``, whose last layer's archive is ``diff_id``.

    What the base says and the recipe does not stays. Raises :class:`InvalidConfiguration` for a bad recipe,
    and for a base of another platform.
    """
    moment = datetime.datetime.fromtimestamp(recipe.time, datetime.UTC)
    created = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    platform = recipe.platform
    step = {"created": created, "created_by": "digestry pack"}
    document: dict[str, Any] = {"created": created, "architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        document["variant"] = platform.variant
    if base is None:
        document["config"] = settings(recipe, {})
        document["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id)]}
        document["history"] = [step]
        return document
    stated = base.config.platform
    if stated.is_stated and (stated.os, stated.architecture) != (platform.os, platform.architecture):
        raise InvalidConfiguration(
            f"the base {base.name or base.image.digest} is for {stated}, not for {platform}",
            hint=f"leave --platform out, or write {stated}",
        )
    # Any: it is another's document, of which all that is unknown here stays as it is.
    inherited: dict[str, Any] = msgspec.json.decode(base.config.raw)
    for gone in ("container", "container_config", "parent"):  # docker's, about a build that this one is not
        inherited.pop(gone, None)
    diff_ids = [str(one) for one in (*base.config.diff_ids, diff_id)]
    return {
        **inherited,
        **document,
        "config": settings(recipe, base.config.settings),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [*_history(base.config), step],
    }


def _history(config: ImageConfig) -> list[dict[str, Any]]:
    """Return the steps of a base; one for each layer if what it says does not fit its layers."""
    layers = len(config.diff_ids)
    if sum(not step.empty_layer for step in config.history) != layers:
        return [{"created_by": "unknown", "comment": "of the base image"}] * layers
    raw: list[dict[str, Any]] = msgspec.json.decode(config.raw).get("history") or []
    return raw


def settings(recipe: Recipe, inherited: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a container, those of a base included. Raises :class:`InvalidConfiguration`."""
    found = dict(inherited)
    if recipe.user:
        found["User"] = recipe.user
    if recipe.ports:
        ports = {**(found.get("ExposedPorts") or {}), **{_port(port): {} for port in recipe.ports}}
        found["ExposedPorts"] = dict(sorted(ports.items()))
    if recipe.environment:
        found["Env"] = _environment([*(found.get("Env") or ()), *map(_variable, recipe.environment)])
    if recipe.entrypoint:
        found["Entrypoint"] = list(recipe.entrypoint)
        found.pop("Cmd", None)  # the arguments of another program
    if recipe.command:
        found["Cmd"] = list(recipe.command)
    if recipe.working_directory:
        if not recipe.working_directory.startswith("/"):
            raise InvalidConfiguration(
                f"working directory {shown(recipe.working_directory)} is not absolute",
                hint="write it from the image's root, as /app",
            )
        found["WorkingDir"] = recipe.working_directory
    if recipe.labels:
        found["Labels"] = dict(sorted({**(found.get("Labels") or {}), **dict(recipe.labels)}.items()))
    if recipe.health_command:
        found["Healthcheck"] = {"Test": ["CMD", *recipe.health_command]}
    return found


def _variable(text: str) -> str:
    if not text.partition("=")[0] or "=" not in text:
        raise InvalidConfiguration(f"environment {shown(text)} is not NAME=value")
    return text


def _environment(variables: Iterable[str]) -> list[str]:
    """Return the variables, each name once with its last value, in the order in which names came first."""
    return list({text.partition("=")[0]: text for text in variables}.values())


def _port(text: str) -> str:
    number, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise InvalidConfiguration(f"port {shown(text)} is not valid", hint="write it as 8080 or 8080/udp")
    if protocol not in {"tcp", "udp", "sctp"}:
        raise InvalidConfiguration(f"port {shown(text)}: the protocol is tcp, udp or sctp")
    return f"{int(number)}/{protocol}"
