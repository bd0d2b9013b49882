"""The ``/token`` endpoint: clients exchange a password for a token (distribution, "token.md", "oauth.md")."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs

from digestry.errors import InvalidReference
from digestry.model.digest import shown
from digestry.model.reference import check_repository
from digestry.registry.access.gate import OIDC_USER, Gate, Proof
from digestry.registry.access.identity import ANONYMOUS
from digestry.registry.access.untrusted_tokens import InvalidToken
from digestry.registry.error_responses import ErrorResponse, bad_parameter
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service

_LARGEST_FORM: Final = 64 << 10
_MOST_SCOPES: Final = 600
_DOCKER_ACTIONS: Final = ("pull", "push", "delete")


def check_enabled(service: Service, *_: str) -> None:
    """Raise :class:`ErrorResponse` 404 in a registry that has no users."""
    if not service.gate.config.enabled:
        raise ErrorResponse(404, "UNSUPPORTED", "this registry has no logins, and so no tokens")


async def get_token(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with a token for the requested scopes, as far as the rules allow them."""
    check_enabled(service)
    gate = service.gate
    header = exchange.header(b"authorization")
    if header is None:
        proof = Proof(ANONYMOUS)
    else:
        try:
            proof = await gate.basic(exchange, header)
        except ErrorResponse as problem:
            raise _basic(problem, gate) from problem
    scopes = [part for value in exchange.query_params.getlist("scope") for part in value.split()]
    answer = _grant(gate, proof, exchange.parameter("service"), scopes)
    answer["token"] = answer["access_token"]
    if exchange.parameter("offline_token") == "true":
        _add_refresh_token(gate, proof, answer)
    await exchange.json(answer, headers=[("Cache-Control", "no-store")])


async def post_token(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """As :func:`get_token`, for a form with a password or a refresh token."""
    check_enabled(service)
    gate = service.gate
    raw = await exchange.read(_LARGEST_FORM, patience=service.config.patience)
    try:
        form = {name: values[0] for name, values in parse_qs(raw.decode(), strict_parsing=True).items()}
    except (UnicodeDecodeError, ValueError) as error:
        raise ErrorResponse(400, "UNSUPPORTED", "the body is not a form") from error
    kind = form.get("grant_type", "")
    try:
        if kind == "refresh_token":
            try:
                token = await gate.verify(form.get("refresh_token", ""), "refresh")
                proof = await gate.still_holds(token)
            except InvalidToken as error:
                raise gate.unauthorized(exchange, str(error)) from error
        elif kind == "password":
            proof = await gate.password(exchange, form.get("username", ""), form.get("password", ""))
        else:
            raise bad_parameter("grant_type", kind, "refresh_token or password is required")
    except ErrorResponse as problem:
        raise _basic(problem, gate) from problem
    answer = _grant(gate, proof, form.get("service"), form.get("scope", "").split())
    answer["scope"] = form.get("scope", "")
    if kind == "refresh_token":
        answer["refresh_token"] = form["refresh_token"]
    elif form.get("access_type") == "offline":
        _add_refresh_token(gate, proof, answer)
    await exchange.json(answer, headers=[("Cache-Control", "no-store")])


def _basic(problem: ErrorResponse, gate: Gate) -> ErrorResponse:
    # A challenge that refers to this endpoint would be a circle.
    if problem.status == 401:
        problem.headers["WWW-Authenticate"] = f'Basic realm="{gate.config.service}"'
    return problem


def _grant(gate: Gate, proof: Proof, service: str | None, scopes: Sequence[str]) -> dict[str, object]:
    if service not in {None, "", gate.config.service}:
        raise bad_parameter("service", str(service), f"this is the token server of {gate.config.service}")
    if len(scopes) > _MOST_SCOPES:
        raise ErrorResponse(
            400, "UNSUPPORTED", f"{len(scopes)} scopes are too many; {_MOST_SCOPES} are allowed"
        )
    access = [entry for scope in scopes if (entry := _entry(gate, proof, scope)) is not None]
    now = time.time()
    ends = min(now + gate.config.token_seconds, proof.ends)
    token = gate.tokens.sign(
        proof.identity.name, "access", credential=proof.credential, ends=ends, access=access
    )
    return {
        "access_token": token,
        # Clients that do not say how little they want to wait take 60 s for less.
        "expires_in": max(1, int(ends - now)),
        "issued_at": datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _entry(gate: Gate, proof: Proof, scope: str) -> dict[str, object] | None:
    """Return the granted part of one scope; None for nothing. Raises :class:`Problem`."""
    if proof.place is not None:
        return None  # an agent reports, and has no rights to name
    kind, _, rest = scope.partition(":")
    name, colon, asked = rest.rpartition(":")
    if not colon or not name:
        raise bad_parameter("scope", scope, "type:name:actions is required")
    if kind == "registry":
        if name != "catalog":
            return None
        return {"type": "registry", "name": "catalog", "actions": ["*"]}
    if kind != "repository":
        return None
    try:
        check_repository(name)
    except InvalidReference as error:
        raise bad_parameter("scope", scope, f"{shown(name)} is no repository") from error
    wanted = set(_DOCKER_ACTIONS) if "*" in asked.split(",") else set(asked.split(","))
    allowed = gate.rules.allowed(proof.identity, name)
    actions = [action for action in _DOCKER_ACTIONS if action in wanted and action in allowed]
    return {"type": "repository", "name": name, "actions": actions} if actions else None


def _add_refresh_token(gate: Gate, proof: Proof, answer: dict[str, object]) -> None:
    # Not for anonymous clients, and not for an outside token: its issuer vouches for minutes, not for months.
    if proof.identity.anonymous or proof.credential == OIDC_USER:
        return
    ends = min(time.time() + gate.config.refresh_token_seconds, proof.ends)
    answer["refresh_token"] = gate.tokens.sign(
        proof.identity.name, "refresh", credential=proof.credential, ends=ends
    )
