"""What changed in the registry: ``GET /v2/_digestry/changes`` (docs/http-api.md)."""

from __future__ import annotations

import base64
import hmac
import re
from typing import Final

from digestry.catalog.changed_repositories import Moment
from digestry.model.changes import MOST_REPOSITORIES, Changes
from digestry.registry.access.principal import Principal
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_PURPOSE: Final = b"digestry/changes-token/v1"
_TAG: Final = 16
_NUMBER: Final = 8


async def get_changes(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with the repositories that changed since an earlier answer, of those that the client may pull
    from."""
    since = exchange.parameter("since")
    changes = service.stores.catalog.changes
    secrets = _secrets(service, exchange.principal)
    if not since:
        moment = await service.executors.run(changes.moment)
        await exchange.json(Changes(_token(moment, secrets[0]), everything=True))
        return
    if not _TOKEN.fullmatch(since):
        raise ErrorResponse(400, "UNSUPPORTED", "since is not the token of an earlier answer")
    before = _moment(since, secrets)
    if before is None:  # of another user, who may see more, or less; or of a key that was replaced
        moment = await service.executors.run(changes.moment)
        await exchange.json(Changes(_token(moment, secrets[0]), everything=True))
        return
    found = await service.executors.run(changes.since, before)
    names = sorted(name for name in found.repositories if exchange.principal.may_see(name))
    token = _token(found.moment, secrets[0])
    if not found.known or len(names) > MOST_REPOSITORIES:
        await exchange.json(Changes(token, everything=True))
        return
    await exchange.json(Changes(token, tuple(names), parts=found.parts and bool(names)))


def _secrets(service: Service, principal: Principal) -> list[bytes]:
    """Return the secrets of the user's tokens, the present one first. A registry without users has no key,
    and no user from whom anything is withheld."""
    user = principal.identity.name.encode()
    return [hmac.digest(secret, user, "sha256") for secret in service.gate.keys.secrets(_PURPOSE) or [b""]]


def _token(moment: Moment, secret: bytes) -> str:
    """Return the token of a moment, from which only this registry can tell the moment: the positions in the
    journal count the moves in all repositories."""
    content = moment.position.to_bytes(_NUMBER, "big") + moment.at.to_bytes(_NUMBER, "big")
    tag = hmac.digest(secret, content, "sha256")[:_TAG]
    return base64.urlsafe_b64encode(tag + _masked(content, tag, secret)).decode().rstrip("=")


def _moment(token: str, secrets: list[bytes]) -> Moment | None:
    """Return the moment of a token; None if it was made with none of ``secrets``."""
    raw = base64.urlsafe_b64decode(token + "=")
    tag, masked = raw[:_TAG], raw[_TAG:]
    for secret in secrets:
        content = _masked(masked, tag, secret)
        if hmac.compare_digest(hmac.digest(secret, content, "sha256")[:_TAG], tag):
            position, at = content[:_NUMBER], content[_NUMBER:]
            return Moment(int.from_bytes(position, "big"), int.from_bytes(at, "big"))
    return None


def _masked(content: bytes, tag: bytes, secret: bytes) -> bytes:
    mask = hmac.digest(secret, b"mask" + tag, "sha256")
    return bytes(one ^ other for one, other in zip(content, mask, strict=False))
