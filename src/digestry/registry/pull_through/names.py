"""The canonical name of a registry that has several."""

from __future__ import annotations

from typing import Final

from digestry.model.reference import DOCKER_HUB

HUB_NAMES: Final = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
"""The names of Docker Hub beside ``docker.io``."""

_PORT_OF_TLS: Final = ":443"


def canonical(host: str) -> str:
    """Return the one name of the registry ``host[:port]``: in lower case, without the dot that ends a
    complete name and without the port of HTTPS, ``docker.io`` for each name of Docker Hub."""
    name, colon, port = host.lower().partition(":") if not host.startswith("[") else (host.lower(), "", "")
    name = f"{name.removesuffix('.')}{colon}{port}".removesuffix(_PORT_OF_TLS)
    return DOCKER_HUB if name in HUB_NAMES else name
