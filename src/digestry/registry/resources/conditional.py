"""``If-Match`` and ``If-None-Match``: conditions of reads, and of changes of a tag (RFC 9110, section 13)."""

from __future__ import annotations

import re
from typing import Final

from digestry.catalog.tag_moves import ANYTHING, Expected
from digestry.model.digest import shown
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange

_ETAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
_ETAGS: Final = re.compile(rf"{_ETAG.pattern}(?:\s*,\s*{_ETAG.pattern})*")


def not_modified(exchange: Exchange, digest: str) -> bool:
    """Return whether a GET or HEAD of the content ``digest`` is answered 304: the client has it.

    Both conditions go before ``Range`` (13.2.2). A header that is not valid is ignored. Raises
    :class:`ErrorResponse` 412 if ``If-Match`` names other content only.
    """
    required = exchange.header(b"if-match")
    if required is not None and not _names(required, digest, strong=True):
        raise ErrorResponse(
            412, "PRECONDITION_FAILED", f"the content is {digest}, which If-Match does not name"
        )
    known = exchange.header(b"if-none-match")
    return known is not None and _names(known, digest, strong=False, invalid=False)


def _names(text: str, digest: str, *, strong: bool, invalid: bool = True) -> bool:
    """Return whether ``text``, a header, names ``digest``; ``invalid`` if it is no list of entity tags."""
    text = text.strip()
    if text == "*":
        return True
    if _ETAGS.fullmatch(text) is None:
        return invalid
    return any(tag == digest and not (strong and weak) for weak, tag in _ETAG.findall(text))


def expectation(exchange: Exchange) -> Expected:
    """Return what ``If-Match`` and ``If-None-Match`` require of the tag to be changed (RFC 9110, 13.1)."""
    any_of = _etags(exchange, "if-match", strong=True)
    none_of = _etags(exchange, "if-none-match", strong=False)
    return ANYTHING if any_of is None and none_of is None else Expected(any_of, none_of)


def _etags(exchange: Exchange, name: str, *, strong: bool) -> frozenset[str] | None:
    values = exchange.header_values(name.encode())
    if not values:
        return None
    text = ", ".join(values).strip()
    if text == "*":
        return frozenset("*")
    found = _ETAGS.fullmatch(text)
    if found is None:
        raise ErrorResponse(
            400, "UNSUPPORTED", f'{name} {shown(text)} is not valid: write "<digest>", in quotes, or *'
        )
    # A weak one never matches where a strong one is required; what is never a digest matches nothing.
    return frozenset(tag for weak, tag in _ETAG.findall(text) if not (strong and weak) and tag != "*")
