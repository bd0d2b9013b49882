"""The selection of sources: by their names, ``KIND[:WHERE]``, or the engines of this machine.

A new kind is a module with a :class:`~digestry.inventory.observation.Source` and a line in ``_KINDS``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Final, TypeAlias

from digestry.errors import DigestryError, InvalidConfiguration
from digestry.inventory.engines.client import TIMEOUT, Engine
from digestry.inventory.engines.containerd_api import Containerd
from digestry.inventory.engines.endpoints import (
    docker_endpoint,
    docker_is_here,
    podman_endpoint,
    podman_is_here,
    podman_sockets,
    users_sockets,
)
from digestry.inventory.engines.grpc import Channel
from digestry.inventory.engines.runtime_endpoints import (
    containerd_socket,
    cri_socket,
    named_runtimes,
    present_runtimes,
)
from digestry.inventory.observation import Source, Unseen
from digestry.inventory.sources.containerd import DOCKERS, KUBERNETES, ContainerdSource
from digestry.inventory.sources.cri import CriSource, Runtime
from digestry.inventory.sources.docker import DockerSource
from digestry.inventory.sources.file import FileSource
from digestry.inventory.sources.kubernetes import KubernetesSource, Where
from digestry.inventory.sources.podman import PodmanAPI, PodmanProgram, PodmanSource
from digestry.model.digest import shown
from digestry.model.text import did_you_mean

_Maker: TypeAlias = Callable[[str, str, bool, float], Source]


def parse_source(text: str, *, include_stopped: bool = False, timeout: float = TIMEOUT) -> Source:
    """Return the source that ``KIND[:WHERE]`` names. Raises :class:`InvalidConfiguration`.

    ``include_stopped`` adds containers that do not run; ``timeout`` is in seconds, for each
    question to an engine.
    """
    kind, _, where = text.partition(":")
    maker = _KINDS.get(kind)
    if maker is None:
        raise InvalidConfiguration(
            f"there is no source of the kind {shown(kind)}{did_you_mean(kind, _KINDS)}",
            hint=f"the kinds are: {', '.join(_KINDS)}",
        )
    return maker(text, where, include_stopped, timeout)


def nothing_found() -> Unseen:
    """Return the problem that there is no engine to ask, so that nothing was looked at."""
    return Unseen(
        "this machine",
        "no container engine was found: nothing was looked at",
        "name one with --source, such as docker:tcp://HOST:2376, or a file that lists containers",
    )


def engines_here(
    *, include_stopped: bool = False, timeout: float = TIMEOUT
) -> tuple[list[Source], list[Unseen]]:
    """Return the engines to ask if none is named on the command line, and problems for unusable ones.

    An engine that the environment names (``DOCKER_HOST``, ``DOCKER_CONTEXT``, docker's current context,
    ``CONTAINER_HOST``, ``CONTAINER_CONNECTION``, ``CONTAINERD_ADDRESS``, crictl's configuration), or whose
    socket or program is there, is asked, and its failure is a problem: its containers are not known. For
    root, the engines of other users are engines of this machine, too.
    """
    found: list[Source] = []
    texts, silent = names_here()
    for text in texts:
        try:
            found.append(parse_source(text, include_stopped=include_stopped, timeout=timeout))
        except DigestryError as error:
            silent.append(Unseen(text, error.message, error.hint))
    return found, silent


def names_here() -> tuple[list[str], list[Unseen]]:
    """Return the engines of :func:`engines_here` as ``--source`` takes them, and problems for unusable
    ones."""
    texts: list[str] = []
    silent: list[Unseen] = []
    for kind, present in (("docker", docker_is_here), ("podman", podman_is_here)):
        try:
            where = present()
            if where is not None:
                texts.append(f"{kind}:{where}" if where else kind)
        except DigestryError as error:
            silent.append(Unseen(kind, error.message, error.hint))
    try:
        texts += _runtimes(beside_docker=any(text.startswith("docker") for text in texts))
    except DigestryError as error:
        silent.append(Unseen("cri", error.message, error.hint))
    texts += [f"{kind}:unix://{path}" for kind, path in users_sockets()]
    return texts, silent


def _runtimes(*, beside_docker: bool) -> list[str]:
    """Return the configured and the running runtimes, each once, as ``--source`` takes them.

    With ``beside_docker``, they come without docker's own containers, and without a containerd that is not
    configured and is closed to this user: it belongs to docker.
    """
    named = dict.fromkeys(runtime.source for runtime in named_runtimes())
    addresses = {_socket(text) for text in named}
    for text in present_runtimes():
        path = _socket(text)
        if path in addresses or (beside_docker and not os.access(path, os.R_OK | os.W_OK)):
            continue
        named[text] = None
    asked_by_cri = {_socket(text) for text in named if text.startswith("cri:")}
    texts = []
    for text in named:
        kind, _, where = text.partition(":")
        left_out = [DOCKERS] if beside_docker else []
        if _socket(text) in asked_by_cri:
            left_out.append(KUBERNETES)
        leaving = kind == "containerd" and left_out and "?" not in where
        texts.append(f"{text}?without={','.join(left_out)}" if leaving else text)
    return texts


def _socket(text: str) -> str:
    """Return the path of the socket that a runtime's source names."""
    return text.partition(":")[2].removeprefix("unix://")


def _podman_address(timeout: float) -> str | None:
    """Return the address of the podman socket that answers, or None if there is none."""
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
    # With neither, the first address is tried anyway: its error is reported.
    engine = Engine(podman_endpoint(address or f"unix://{podman_sockets()[0]}"), timeout=timeout)
    compatible = DockerSource(name, engine, include_stopped=include_stopped, made_up=True)
    return PodmanSource(name, PodmanAPI(engine), include_stopped=include_stopped, fallback=compatible)


def _containerd(name: str, where: str, include_stopped: bool, timeout: float) -> Source:
    path, options = containerd_socket(where)
    return ContainerdSource(
        name,
        Containerd(Channel(path, timeout=timeout)),
        include_stopped=include_stopped,
        namespaces=options.get("namespace", ()),
        without=options.get("without", ()),
    )


def _cri(name: str, where: str, include_stopped: bool, timeout: float) -> Source:
    return CriSource(
        name, Runtime(Channel(cri_socket(where), timeout=timeout)), include_stopped=include_stopped
    )


def _file(name: str, where: str, include_stopped: bool, timeout: float) -> Source:
    return FileSource.parse(name, where, include_stopped=include_stopped)


def _kubernetes(name: str, where: str, include_stopped: bool, timeout: float) -> Source:
    return KubernetesSource(name, Where.parse(where), include_stopped=include_stopped, timeout=timeout)


_KINDS: Final[dict[str, _Maker]] = {
    "docker": _docker,
    "podman": _podman,
    "containerd": _containerd,
    "cri": _cri,
    "file": _file,
    "kubernetes": _kubernetes,
}
