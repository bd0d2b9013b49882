"""The sockets of containerd and CRI runtimes: configured, and usual ones.

``ctr`` and ``nerdctl`` read ``CONTAINERD_ADDRESS``; ``CONTAINER_RUNTIME_ENDPOINT``, the file that
``CRI_CONFIG_FILE`` names, and ``/etc/crictl.yaml`` are read by ``crictl``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

import yaml

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown

CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"
CRI_SOCKETS: Final = (CONTAINERD_SOCKET, "/run/crio/crio.sock", "/run/cri-dockerd.sock")
CRICTL_FILE: Final = Path("/etc/crictl.yaml")

_ADDRESS: Final = "CONTAINERD_ADDRESS"
_ENDPOINT: Final = "CONTAINER_RUNTIME_ENDPOINT"
_CONFIGURATION: Final = "CRI_CONFIG_FILE"
_LARGEST_FILE: Final = 1 << 20


class NamedRuntime(NamedTuple):
    """A configured runtime: ``source`` as ``--source`` takes it, and ``by``, the setting that names it."""

    source: str
    by: str


def named_runtimes(
    environment: Mapping[str, str] = os.environ, crictl: Path = CRICTL_FILE
) -> list[NamedRuntime]:
    """Return the runtimes that this machine's configuration names, whether they are there or not.

    Raises :class:`InvalidConfiguration` for a ``crictl.yaml`` that cannot be read.
    """
    found = []
    if address := environment.get(_ADDRESS):
        found.append(NamedRuntime(f"containerd:{address}", _ADDRESS))
    if endpoint := environment.get(_ENDPOINT):
        found.append(NamedRuntime(f"cri:{endpoint}", _ENDPOINT))
    elif endpoint := _of_crictl(environment, crictl):
        found.append(NamedRuntime(f"cri:{endpoint}", environment.get(_CONFIGURATION) or str(crictl)))
    return found


def present_runtimes(run: Path = Path("/run")) -> list[str]:
    """Return the runtimes whose usual sockets exist, as ``--source`` takes them.

    cri-dockerd's containers are docker's, so that its socket is not among them.
    """
    places = (("containerd", run / "containerd/containerd.sock"), ("cri", run / "crio/crio.sock"))
    return [f"{kind}:unix://{path}" for kind, path in places if path.is_socket()]


def containerd_socket(
    where: str, environment: Mapping[str, str] = os.environ
) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return the socket and the options that ``[ADDRESS][?namespace=A,B][&without=C]`` names.

    Raises :class:`InvalidConfiguration`.
    """
    address, _, query = where.partition("?")
    options = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in {"namespace", "without"} or not value or name in options:
            raise InvalidConfiguration(
                f"containerd:{where}: the option {shown(name)} is not one",
                hint="there are ?namespace=A,B and ?without=A,B",
            )
        options[name] = tuple(part for part in value.split(",") if part)
    if query and not options:
        raise InvalidConfiguration(
            f"containerd:{where}: {shown(query)} is not an option",
            hint="there are ?namespace=A,B and ?without=A,B",
        )
    return _path("containerd", address or environment.get(_ADDRESS) or CONTAINERD_SOCKET), options


def cri_socket(where: str, environment: Mapping[str, str] = os.environ, crictl: Path = CRICTL_FILE) -> str:
    """Return the socket that ``where`` names, or crictl's own default if it is empty.

    The default is the socket in crictl's configuration, else the first of the usual ones that exists.
    Raises :class:`InvalidConfiguration`.
    """
    if not where:
        named = environment.get(_ENDPOINT) or _of_crictl(environment, crictl)
        usual = (path for path in CRI_SOCKETS if Path(path).exists())
        where = named or next(usual, CRI_SOCKETS[0])
    return _path("cri", where)


def _path(kind: str, address: str) -> str:
    path = address.removeprefix("unix://")
    if not path.startswith("/") or "\0" in path:
        raise InvalidConfiguration(
            f"{kind}:{address} is not supported: the address must be a unix socket's",
            hint=f"write it as {kind}:unix:///run/containerd/containerd.sock",
        )
    return path


def _of_crictl(environment: Mapping[str, str], usual: Path) -> str:
    """Return the endpoint that crictl's configuration names; "" if it names none."""
    named = environment.get(_CONFIGURATION)
    path = Path(named) if named else usual
    try:
        with path.open("rb") as file:
            document = yaml.safe_load(file.read(_LARGEST_FILE))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, FileNotFoundError) and not named:
            return ""
        raise InvalidConfiguration(f"{path} cannot be read: {error}") from error
    endpoint = document.get("runtime-endpoint") if isinstance(document, dict) else document
    if endpoint is not None and not isinstance(endpoint, str):
        raise InvalidConfiguration(f"{path} cannot be read: its runtime-endpoint is not text")
    return endpoint or ""
