"""What changed in the registry: ``GET /v2/_digestry/changes`` (docs/http-api.md)."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from digestry.catalog.changed_repositories import Moment
from digestry.model.changes import MOST_REPOSITORIES, Changes
from digestry.registry.access.principal import Principal
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service

_TOKEN: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})-([0-9a-f]{8})", re.ASCII)


async def get_changes(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with the repositories that changed since an earlier answer, of those that the client may pull
    from."""
    since = exchange.parameter("since")
    changes = service.stores.catalog.changes
    user = _fingerprint(exchange.principal)
    if not since:
        moment = await service.executors.run(changes.moment)
        await exchange.json(Changes(_token(moment, user), everything=True))
        return
    matched = _TOKEN.fullmatch(since)
    if matched is None:
        raise ErrorResponse(400, "UNSUPPORTED", "since is not the token of an earlier answer")
    found = await service.executors.run(changes.since, Moment(int(matched[1]), int(matched[2])))
    names = sorted(name for name in found.repositories if exchange.principal.may_see(name))
    # Another user may see more, or less.
    known = found.known and matched[3] == user
    token = _token(found.moment, user)
    if not known or len(names) > MOST_REPOSITORIES:
        await exchange.json(Changes(token, everything=True))
        return
    await exchange.json(Changes(token, tuple(names), parts=found.parts and bool(names)))


def _token(moment: Moment, user: str) -> str:
    return f"{moment.position}-{moment.at}-{user}"


def _fingerprint(principal: Principal) -> str:
    return hashlib.sha256(principal.identity.name.encode()).hexdigest()[:8]
