"""The part of a request that access control reads and sets."""

from __future__ import annotations

from typing import Any, Protocol

from digestry.registry.access.principal import Principal
from digestry.registry.hosts import Host
from digestry.registry.proxies import Forwarding


class AccessRequest(Protocol):
    """A request whose sender is to be known, and whose rights are to be checked."""

    principal: Principal
    may_move: bool
    may_audit: bool
    forwarding: Forwarding
    host: Host | None

    @property
    def scope(self) -> Any:
        """The request's ASGI scope."""
        ...

    @property
    def address(self) -> str:
        """The client's address, as far as it is trusted."""
        ...
