"""Where containers run: one module a kind of place, and the reading of ``KIND[:WHERE]``.

A new kind is a module with a :class:`~digestry.fleet.sighting.Source` and a line in ``_KINDS``.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from typing import Final, TypeAlias

from digestry.errors import DigestryError, InvalidConfiguration
from digestry.fleet.sighting import Problem, Source
from digestry.fleet.sources.docker import DockerSource
from digestry.fleet.sources.endpoints import (
    docker_endpoint,
    podman_endpoint,
    podman_sockets,
    users_sockets,
)
from digestry.fleet.sources.engine import TIMEOUT, Engine
from digestry.fleet.sources.file import FileSource
from digestry.fleet.sources.kubernetes import KubernetesSource, Where
from digestry.fleet.sources.podman import PodmanAPI, PodmanProgram, PodmanSource
from digestry.model.digest import shown

_Maker: TypeAlias = Callable[[str, str, bool, float], Source]


def parse_source(text: str, *, include_stopped: bool = False, timeout: float = TIMEOUT) -> Source:
    """The source that ``KIND[:WHERE]`` names. Raises :class:`InvalidConfiguration`.

    ``include_stopped`` adds containers that do not run; ``timeout`` is in seconds, for each
    question to an engine.
    """
    kind, _, where = text.partition(":")
    maker = _KINDS.get(kind)
    if maker is None:
        raise InvalidConfiguration(
            f"there is no source of the kind {shown(kind)}", hint=f"the kinds are: {', '.join(_KINDS)}"
        )
    return maker(text, where, include_stopped, timeout)


def answering(
    *, include_stopped: bool = False, timeout: float = TIMEOUT
) -> tuple[list[Source], list[Problem]]:
    """The engines of this machine that answer, and why each of the others does not.

    To root, those that users run for themselves are engines of this machine, too.
    """
    found: list[Source] = []
    silent: list[Problem] = []
    probes: tuple[tuple[str, Callable[[], None]], ...] = (
        ("docker", lambda: _ask_docker(timeout)),
        ("podman", lambda: _ask_podman(timeout)),
    )
    for kind, ask in probes:
        try:
            ask()
        except DigestryError as error:
            silent.append(Problem(kind, error.message, error.hint))
        else:
            found.append(parse_source(kind, include_stopped=include_stopped, timeout=timeout))
    for kind, path in users_sockets():
        text = f"{kind}:unix://{path}"
        found.append(parse_source(text, include_stopped=include_stopped, timeout=timeout))
    return found, silent


def _ask_docker(timeout: float) -> None:
    with contextlib.closing(Engine(docker_endpoint(), timeout=timeout)) as engine:
        engine.get("/info")


def _ask_podman(timeout: float) -> None:
    if _podman_address(timeout) is None:
        PodmanProgram().info()


def _podman_address(timeout: float) -> str | None:
    """The podman socket that answers; None if there is none."""
    for path in podman_sockets():
        address = f"unix://{path}"
        if not path.exists():
            continue
        try:
            Engine(address, timeout=timeout).get("/info")
        except DigestryError:
            continue
        return address
    return None


def _docker(name: str, where: str, include_stopped: bool, timeout: float) -> Source:
    engine = Engine(docker_endpoint(where), timeout=timeout)
    return DockerSource(name, engine, include_stopped=include_stopped)


def _podman(name: str, where: str, include_stopped: bool, timeout: float) -> Source:
    address = where or _podman_address(timeout)
    if address is None and shutil.which("podman"):
        return PodmanSource(name, PodmanProgram(), include_stopped=include_stopped)
    # With neither, the first place is asked all the same: its refusal is what is reported.
    engine = Engine(podman_endpoint(address or f"unix://{podman_sockets()[0]}"), timeout=timeout)
    compatible = DockerSource(name, engine, include_stopped=include_stopped, made_up=True)
    return PodmanSource(name, PodmanAPI(engine), include_stopped=include_stopped, fallback=compatible)


def _file(name: str, where: str, include_stopped: bool, timeout: float) -> Source:
    return FileSource.parse(name, where, include_stopped=include_stopped)


def _kubernetes(name: str, where: str, include_stopped: bool, timeout: float) -> Source:
    return KubernetesSource(name, Where.parse(where), include_stopped=include_stopped, timeout=timeout)


_KINDS: Final[dict[str, _Maker]] = {
    "docker": _docker,
    "podman": _podman,
    "file": _file,
    "kubernetes": _kubernetes,
}
