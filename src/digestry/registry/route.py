"""A route of the HTTP API as data: its path, and for each method its handler and what that requires."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

OTHER: Final = "other"

Handler = Callable[[Any, Any, Any, str], Awaitable[None]]
"""Answers a request (``Any``: these types are of modules that import this one): called with the service, the
exchange, the repository (its name; for ``upstream`` an ``UpstreamRepository``) and the path's last
segment."""


@dataclass(frozen=True, slots=True)
class Access:
    """A requirement on the client of a request.

    ``check`` is called with the service, the exchange and the repository's name. It returns the service that
    answers, and raises :class:`ErrorResponse` 401 or 403.
    """

    name: str
    check: Callable[[Any, Any, str], Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a route.

    ``audit_event`` is its action in the audit log. ``upstream`` answers for a repository that is another
    registry's; without it that is refused.
    """

    method: str
    handler: Handler
    access: Access
    audit_event: str = ""
    upstream: Handler | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A path of the API, such as ``/v2/<name>/blobs/<digest>``.

    ``metric`` is its name in metrics and logs. ``refused`` is required of a request with another method, and
    ``check`` verifies its path, before the answer 405. ``upstream``: a repository on this path may be another
    registry's, which gets the request; ``local_copy``: the request is about the cached content of such a
    repository. ``identified`` is False where a login does not matter. ``changes``: its methods other than GET
    and HEAD change stored content; ``audited``: these have a line in the audit log, with ``refusals_only`` if
    they are refused. ``acts``: what it changes is this registry's own, also of a copy of another registry's
    repository. ``agents``: an agent's token may use it.
    """

    path: str
    metric: str
    operations: Mapping[str, Operation]
    refused: Access
    check: Callable[[Any, str, str], None] | None = None
    upstream: bool = False
    local_copy: bool = False
    identified: bool = True
    changes: bool = True
    audited: bool = True
    acts: bool = False
    refusals_only: bool = False
    agents: bool = False
    deep: bool = False
    """Whether its variable part may have several segments; it then has no repository."""
    unlisted: frozenset[str] = frozenset()
    """Methods that ``allow`` leaves out."""

    @property
    def allow(self) -> str:
        """The methods, as the header ``Allow`` names them."""
        return ", ".join(method for method in self.operations if method not in self.unlisted)

    def audit_event(self, method: str) -> str:
        """Return the action of a request with ``method``, as the audit log names it; empty if it has none."""
        operation = self.operations.get(method)
        return "" if operation is None else operation.audit_event


def _anybody(service: Any, exchange: Any, name: str) -> Any:
    return service


NOTHING: Final = Access("", _anybody)
"""No requirement."""

UNKNOWN: Final = Route("", OTHER, {}, NOTHING, audited=False)
"""The route of a request before its path was read, and of an unknown path."""
