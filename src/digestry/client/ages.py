"""The age of tags, and overrides of minimum ages: questions that registries with a journal answer."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

import msgspec

from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.extensions import UNSUPPORTED, offers
from digestry.client.responses import Response
from digestry.errors import Refused
from digestry.model.age_answers import AgeOverrideList, AgeOverrideRequest, OverrideEntry, TagAge
from digestry.model.descriptor import decode_hook

_LARGEST: Final = 4 << 20
_AGE: Final = "_digestry/age/<tag>"


def tag_age(endpoint: RepositoryEndpoint, tag: str, seconds: int | None) -> TagAge | None:
    """Return what ``tag`` resolves to under a minimum age. See :meth:`Repository.tag_age`."""
    query = "" if seconds is None else f"?{urlencode({'min-age': seconds})}"
    with endpoint.request("GET", f"_digestry/age/{tag}{query}") as response:
        if response.status == 200:
            return response.json(TagAge, _LARGEST, dec_hook=decode_hook)
        _raise_unless_unsupported(endpoint, response, f"ask for the age of {endpoint.display_name(tag)}")
    return None


def overrides(endpoint: RepositoryEndpoint, *, ended: bool) -> tuple[OverrideEntry, ...] | None:
    """Return the overrides of a repository, the newest first. See :meth:`Repository.age_overrides`."""
    query = "?ended=true" if ended else ""
    with endpoint.request("GET", f"_digestry/age-overrides{query}") as response:
        if response.status == 200:
            return response.json(AgeOverrideList, _LARGEST, dec_hook=decode_hook).overrides
        _raise_unless_unsupported(endpoint, response, f"list what is let through of {endpoint.name}")
    return None


def allow(endpoint: RepositoryEndpoint, wanted: AgeOverrideRequest) -> OverrideEntry | None:
    """Let a digest through before its minimum age. See :meth:`Repository.allow_young`."""
    body = msgspec.json.encode(wanted)
    with endpoint.request("POST", "_digestry/age-overrides", body=body, push=True) as response:
        if response.status == 200:
            return response.json(OverrideEntry, _LARGEST, dec_hook=decode_hook)
        _raise_unless_unsupported(endpoint, response, f"let what is of {endpoint.name} through")
    return None


def revoke(endpoint: RepositoryEndpoint, number: int, reason: str) -> OverrideEntry | None:
    """End an override. See :meth:`Repository.revoke_young`."""
    path = f"_digestry/age-overrides/{number}?{urlencode({'reason': reason})}"
    with endpoint.request("DELETE", path, push=True) as response:
        if response.status == 200:
            return response.json(OverrideEntry, _LARGEST, dec_hook=decode_hook)
        _raise_unless_unsupported(endpoint, response, f"revoke override {number} of {endpoint.name}")
    return None


def _raise_unless_unsupported(endpoint: RepositoryEndpoint, response: Response, action: str) -> None:
    """Raise, unless the registry does not have such an endpoint: others answer its path as they like."""
    try:
        response.fail(action)
    except Refused as error:
        if error.status not in UNSUPPORTED or offers(endpoint.connection, endpoint.host, _AGE):
            raise
