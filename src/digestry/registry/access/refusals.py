"""The answers 401, with the challenge that clients answer, and 403."""

from __future__ import annotations

from digestry.registry.access.config import AccessConfig
from digestry.registry.access.identity import Identity
from digestry.registry.access.principal import Principal
from digestry.registry.access.request import AccessRequest
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.proxies import claims_https


def unauthorized(
    config: AccessConfig,
    request: AccessRequest,
    text: str,
    *,
    scope: str | None = None,
    error: str | None = None,
) -> ErrorResponse:
    """Return a 401 with the challenge that clients answer (RFC 6750; distribution, "token.md")."""
    if config.challenge == "basic":
        challenge = f'Basic realm="{config.service}"'
    else:
        challenge = f'Bearer realm="{_realm(config, request)}",service="{config.service}"'
        if scope is not None:
            challenge += f',scope="{scope}"'
        if error is not None:
            challenge += f',error="{error}"'
    return ErrorResponse(401, "UNAUTHORIZED", text, headers={"WWW-Authenticate": challenge})


def _realm(config: AccessConfig, request: AccessRequest) -> str:
    """Return the token endpoint's URL as this client reaches it."""
    if config.realm is not None:
        return config.realm
    if request.host is None:
        raise ErrorResponse(400, "UNSUPPORTED", "the request has no host that the answer could refer to")
    scheme = request.scope["scheme"]
    forwarded = request.forwarding.scheme is not None
    if scheme == "http" and not forwarded and claims_https(request.scope["headers"]):
        # The header is not verified. At worst, the client is sent to a closed port of that host.
        scheme = "https"
    return f"{scheme}://{request.host}/token"


def refused_to_agent(principal: Principal) -> ErrorResponse:
    """Return the 403 for an agent's token that is used for something else than reports."""
    text = (
        f"the token of {principal.identity.name} is an agent's: it reports what runs in {principal.place},"
        " and may do nothing else, whatever the rules say"
    )
    return ErrorResponse(403, "DENIED", text, detail={"place": principal.place})


def denied(identity: Identity, action: str, repository: str) -> ErrorResponse:
    """Return the 403 for an authenticated user."""
    words = {
        "push": f"push to repository {repository}",
        "move-tag": f"move tags of repository {repository} that exist already",
        "delete": f"take anything out of repository {repository}",
        "audit": f"see where images of repository {repository} ran",
        "admin": f"administer repository {repository}",
    }
    text = f"{identity.name} may not {words[action]}: no rule of this registry allows it"
    return ErrorResponse(403, "DENIED", text, detail={"action": action})
