"""The ``Host`` header: parsing, and the names that DNS rebinding cannot use."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from digestry.registry import toml
from digestry.registry.toml import Where

_HOST: Final = re.compile(
    r"(?:([A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253}))|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?", re.ASCII
)
_MACHINE: Final = re.compile(r"host\.[a-z0-9-]+\.internal", re.ASCII)
"""Names by which containers reach their machine (``host.docker.internal``). Names below ``internal`` cannot
be registered."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host's ``name``, in lower case, IPv6 without brackets, and its port, if given."""

    name: str
    port: int | None = None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether it is an IP address: a page with it as its host was loaded from that address."""
        try:
            ipaddress.ip_address(self.name)
        except ValueError:
            return False
        return True

    @property
    def is_local(self) -> bool:
        """Whether no foreign name server decides where the name resolves to.

        A name without a dot, such as ``localhost`` and ``kind-registry``, is looked up in the machine's own
        network, and cannot be registered.
        """
        name = self.name.removesuffix(".")
        return (
            "." not in name
            or name.endswith(".localhost")
            or bool(_MACHINE.fullmatch(name))
            or self.is_address
        )


@functools.lru_cache(4096)
def parse_host(text: str) -> Host | None:
    """Parse ``HOST`` or ``HOST:PORT`` (RFC 9110, section 7.2); None for anything else."""
    match = _HOST.fullmatch(text)
    if match is None or (match[3] is not None and not 0 < int(match[3]) < 65536):
        return None
    name = (match[1] or match[2]).lower()
    if match[2] is not None:
        try:
            name = str(ipaddress.IPv6Address(name))
        except ValueError:
            return None
    return Host(name, None if match[3] is None else int(match[3]))


def names(value: object, where: Where) -> tuple[str, ...]:
    """Return the configured names of a registry, without ports; ``*.example.com`` is every name below it."""
    found = []
    for text in toml.texts(value, where):
        host = parse_host(text.removeprefix("*."))
        if host is None or host.port is not None:
            raise ValueError('names of hosts are required, without ports, such as "registry.example.com"')
        found.append(("*." if text.startswith("*.") else "") + host.name.removesuffix("."))
    return tuple(found)


def is_named_in(host: Host, names: Iterable[str]) -> bool:
    """Return whether the host matches a name; ``*.example.com`` matches every name below it."""
    name = host.name.removesuffix(".")
    return any(
        name == known or (known.startswith("*.") and name.endswith(known[1:]) and len(name) >= len(known))
        for known in names
    )
