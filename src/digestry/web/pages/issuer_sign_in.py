"""Signing in at an outside issuer (OpenID Connect): the way there, and the way back.

The browser keeps what the visitor must come back with in a cookie that is sent also from the issuer's page.
"""

from __future__ import annotations

import base64
import hmac
from typing import Final

import msgspec
from starlette.responses import RedirectResponse, Response

from digestry.errors import Forbidden, NotFound, RemoteError
from digestry.model.json_types import prepared
from digestry.web import cookies
from digestry.web.page import Page
from digestry.web.pages.sign_in import form
from digestry.web.redirects import back, led_on
from digestry.web.visit import Visit

_SECONDS: Final = 600.0
_LONGEST: Final = 8192
_AGAIN: Final = "the sign-in took too long, or was begun in another browser: sign in again"


class _Flow(msgspec.Struct, frozen=True):
    """What a visitor must come back with, and where they go then."""

    issuer: int
    state: str
    nonce: str
    verifier: str
    next: str


async def begin(visit: Visit) -> Page | Response:
    """Lead the visitor to an issuer."""
    number = visit.parameter("issuer")
    if not number.isdecimal() or len(number) > 3:
        raise NotFound("there is no such issuer")
    target = back(visit.query.get("next", ""))
    try:
        started = await visit.host.begin_sign_in(int(number), _return_address(visit))
    except RemoteError as error:
        return form(visit, target, error.message, status=502)
    flow = _Flow(int(number), started.state, started.nonce, started.verifier, target)
    value = base64.urlsafe_b64encode(msgspec.json.encode(flow)).decode().rstrip("=")
    response = RedirectResponse(started.address, 303, {"Cache-Control": "no-store"})
    cookies.put(response, cookies.FLOW, value, https=visit.https, seconds=_SECONDS, same_site="lax")
    return response


async def finish(visit: Visit) -> Page | Response:
    """Begin a session for a visitor who comes back from an issuer."""
    flow = _flow(visit.cookies.get(cookies.full_name(cookies.FLOW, https=visit.https), ""))
    state, code = visit.query.get("state", ""), visit.query.get("code", "")
    if flow is None or not hmac.compare_digest(state.encode(), flow.state.encode()):
        return form(visit, "/", _AGAIN, status=403)
    if "error" in visit.query or not code or len(code) > _LONGEST:
        return form(visit, back(flow.next), "the issuer did not let you in", status=403)
    try:
        proof = await visit.host.finish_sign_in(
            visit.scope,
            flow.issuer,
            _return_address(visit),
            code=code,
            verifier=flow.verifier,
            nonce=flow.nonce,
            stated=visit.query.get("iss"),
        )
    except Forbidden as error:
        return form(visit, back(flow.next), error.message, status=403)
    except RemoteError as error:
        return form(visit, back(flow.next), error.message, status=502)
    response = led_on(back(flow.next))
    await visit.sessions.begin(response, proof, https=visit.https, before=visit.session)
    cookies.drop(response, cookies.FLOW, https=visit.https)
    return response


def _return_address(visit: Visit) -> str:
    return f"{'https' if visit.https else 'http'}://{visit.registry}/sign-in/return"


def _flow(value: str) -> _Flow | None:
    """Return what a cookie says; None for one that is none of ours."""
    try:
        raw = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        return msgspec.json.decode(raw, type=prepared(_Flow))
    except (ValueError, msgspec.MsgspecError):
        return None
