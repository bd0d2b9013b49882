"""The selection of followers, by the names of their sources: ``KIND[:WHERE]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from digestry.errors import InvalidConfiguration
from digestry.inventory.engines.client import TIMEOUT
from digestry.inventory.followers.polling import PollingFollower
from digestry.inventory.runs import Follower

_PROGRAM_EVERY: Final = 30.0
"""Seconds between two runs of a program that is asked, each of which takes a part of a second."""


def parse_follower(text: str, *, timeout: float = TIMEOUT) -> Follower:
    """Return the follower of the source that ``KIND[:WHERE]`` names. Raises :class:`InvalidConfiguration`.

    A source without a stream of events is looked at every few seconds. ``timeout`` is in seconds, for each
    question to an engine.
    """
    kind, _, where = text.partition(":")
    maker = _KINDS.get(kind)
    if maker is not None:
        return maker(text, where, timeout)
    from digestry.inventory.source_selection import parse_source  # noqa: PLC0415 - it loads every kind

    return PollingFollower(parse_source(text, timeout=timeout))


def followers_here(*, timeout: float = TIMEOUT) -> list[Follower]:
    """Return the followers of this machine's engines. Raises :class:`InvalidConfiguration` if there is none,
    or one that is there cannot be used."""
    from digestry.inventory.source_selection import names_here, nothing_found  # noqa: PLC0415 - as above

    texts, problems = names_here()
    if not texts and not problems:
        problems = [nothing_found()]
    if problems:
        problem = problems[0]
        raise InvalidConfiguration(f"{problem.source}: {problem.message}", hint=problem.hint)
    return [parse_follower(text, timeout=timeout) for text in texts]


def _docker(name: str, where: str, timeout: float) -> Follower:
    from digestry.inventory.engines.client import Engine  # noqa: PLC0415 - only what is followed is loaded
    from digestry.inventory.engines.endpoints import docker_endpoint  # noqa: PLC0415
    from digestry.inventory.followers.docker import DockerAPI  # noqa: PLC0415
    from digestry.inventory.followers.engine import EngineFollower  # noqa: PLC0415
    from digestry.inventory.sources.docker import DockerSource  # noqa: PLC0415

    engine = Engine(docker_endpoint(where), timeout=timeout)
    return EngineFollower(name, DockerAPI(DockerSource(name, engine), engine))


def _podman(name: str, where: str, timeout: float) -> Follower:
    from digestry.inventory.engines.client import Engine  # noqa: PLC0415 - as above
    from digestry.inventory.engines.endpoints import podman_endpoint, podman_sockets  # noqa: PLC0415
    from digestry.inventory.followers.docker import DockerAPI  # noqa: PLC0415
    from digestry.inventory.followers.engine import EngineFollower  # noqa: PLC0415
    from digestry.inventory.followers.podman import LibpodAPI  # noqa: PLC0415
    from digestry.inventory.sources.docker import DockerSource  # noqa: PLC0415

    sockets = [path for path in podman_sockets() if path.exists()]
    if not where and not sockets:
        from digestry.inventory.source_selection import parse_source  # noqa: PLC0415 - as above

        return PollingFollower(parse_source(name, timeout=timeout), every=_PROGRAM_EVERY)
    engine = Engine(podman_endpoint(where or f"unix://{sockets[0]}"), timeout=timeout)
    compatible = DockerAPI(DockerSource(name, engine, made_up=True), engine, made_up=True)
    return EngineFollower(name, LibpodAPI(name, engine), fallback=compatible)


def _kubernetes(name: str, where: str, timeout: float) -> Follower:
    from digestry.inventory.followers.kubernetes import KubernetesFollower  # noqa: PLC0415 - as above
    from digestry.inventory.sources.kubernetes import Where  # noqa: PLC0415

    return KubernetesFollower(name, Where.parse(where), timeout=timeout)


def _containerd(name: str, where: str, timeout: float) -> Follower:
    from digestry.inventory.engines.containerd_api import Containerd  # noqa: PLC0415 - as above
    from digestry.inventory.engines.grpc import Channel  # noqa: PLC0415
    from digestry.inventory.engines.runtime_endpoints import containerd_socket  # noqa: PLC0415
    from digestry.inventory.followers.containerd import ContainerdFollower  # noqa: PLC0415
    from digestry.inventory.sources.containerd import ContainerdSource  # noqa: PLC0415

    path, options = containerd_socket(where)
    containerd = Containerd(Channel(path, timeout=timeout))
    source = ContainerdSource(
        name,
        containerd,
        namespaces=options.get("namespace", ()),
        without=options.get("without", ()),
    )
    return ContainerdFollower(name, containerd, source)


def _cri(name: str, where: str, timeout: float) -> Follower:
    from digestry.inventory.engines.grpc import Channel  # noqa: PLC0415 - as above
    from digestry.inventory.engines.runtime_endpoints import cri_socket  # noqa: PLC0415
    from digestry.inventory.followers.cri import CriFollower  # noqa: PLC0415
    from digestry.inventory.sources.cri import CriSource, Runtime  # noqa: PLC0415

    runtime = Runtime(Channel(cri_socket(where), timeout=timeout))
    listed = CriSource(name, runtime, include_stopped=True)
    return CriFollower(name, runtime, CriSource(name, runtime), listed)


_KINDS: Final[dict[str, Callable[[str, str, float], Follower]]] = {
    "docker": _docker,
    "podman": _podman,
    "containerd": _containerd,
    "cri": _cri,
    "kubernetes": _kubernetes,
}
