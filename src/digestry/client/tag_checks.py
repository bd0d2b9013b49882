"""Ask a registry where a tag points, again and again, at the least cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from digestry.client import manifests
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.rate_limits import stated_limit
from digestry.errors import ProtocolViolation
from digestry.model.tag_check import StatedRate, TagCheck

_OK: Final = 200
_UNCHANGED: Final = 304
_ASK_LATER: Final = frozenset({429, 502, 503, 504})
_LONGEST_ETAG: Final = 512


def check(endpoint: RepositoryEndpoint, tag: str, etag: str, *, limit: int) -> TagCheck:
    """Return where a tag points.

    Costs one HEAD, which rate limits do not count. If that gives no digest, or is refused, a GET follows,
    which costs no body if the manifest still has ``etag``, the validator of an earlier answer: of at most
    ``limit`` bytes, and verified. A HEAD needs no validator: its answer has no body, and its digest is better
    evidence than the word that nothing changed.

    Raises :class:`~digestry.errors.RemoteNotFound`, whose ``code`` is the registry's, and
    :class:`~digestry.errors.DigestMismatch`.
    """
    with endpoint.request("HEAD", f"manifests/{tag}", headers=manifests.ACCEPT) as response:
        if response.status == _OK:
            found = manifests.described(response, tag)
            if found is not None:
                return TagCheck(found, "", _rate(response.headers))
        elif response.status in _ASK_LATER:  # asking again would make it worse
            response.fail(f"find {endpoint.display_name(tag)}")
    condition = {"If-None-Match": etag} if etag else {}
    with endpoint.request("GET", f"manifests/{tag}", headers={**manifests.ACCEPT, **condition}) as response:
        rate = _rate(response.headers)
        if response.status == _UNCHANGED:
            if not etag:
                raise ProtocolViolation(f"{response.host} says that {tag} has not changed, and was not asked")
            return TagCheck(None, etag, rate)
        if response.status != _OK:
            response.fail(f"get {endpoint.display_name(tag)}")
        validator = response.headers.get("ETag") or ""
        manifest = manifests.read(endpoint, response, tag, limit=limit)
    usable = len(validator) <= _LONGEST_ETAG and validator.isascii() and validator.isprintable()
    return TagCheck(manifest.descriptor(), validator if usable else "", rate)


def _rate(headers: Mapping[str, str]) -> StatedRate | None:
    stated = stated_limit(headers)
    if stated is None or stated.remaining is None:
        return None
    return StatedRate(stated.remaining, stated.limit, stated.reset)
