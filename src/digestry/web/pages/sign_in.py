"""Signing in with a name and password, or a robot's token, and signing out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.responses import RedirectResponse, Response

from digestry.errors import Forbidden, NotFound, TooMany
from digestry.web.page import Page
from digestry.web.redirects import back
from digestry.web.visit import Visit

_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class SignIn:
    """The form. ``message`` says why the last attempt failed, and ``next`` is the page to go on to;
    at ``issuers`` people can sign in as well."""

    message: str
    name: str
    next: str
    issuers: tuple[str, ...] = ()


def show(visit: Visit) -> Page:
    """Show the form. Raises :class:`NotFound` if the registry has no users."""
    if not visit.host.has_logins:
        raise NotFound("this registry has no users: everything can be read without signing in")
    return form(visit, back(visit.query.get("next", "")))


async def sign_in(visit: Visit, fields: Mapping[str, str]) -> Page | Response:
    """Begin a session if the password is right, and go on to the page that was asked for."""
    if not visit.host.has_logins:
        raise NotFound("this registry has no users")
    name, password = fields.get("name", "").strip()[:_LONGEST], fields.get("password", "")[:_LONGEST]
    target = back(fields.get("next", ""))
    try:
        proof = await visit.host.check_password(visit.scope, name, password)
    except Forbidden as error:
        return form(visit, target, error.message, name, status=403)
    except TooMany as error:
        return form(visit, target, error.message, name, status=429)
    response = RedirectResponse(target, 303)
    await visit.sessions.begin(response, proof, https=visit.https, before=visit.session)
    return response


async def sign_out(visit: Visit, _: Mapping[str, str]) -> Response:
    """End the visitor's session."""
    response = RedirectResponse("/", 303)
    if visit.session is not None:
        visit.host.note_sign_out(visit.scope)
        await visit.sessions.end(response, visit.session, https=visit.https)
    return response


def form(visit: Visit, target: str, message: str = "", name: str = "", *, status: int = 200) -> Page:
    """Return the page with the form; ``target`` is the page to go on to."""
    view = SignIn(message, name, target, visit.host.issuers)
    return Page("sign_in.html", "Sign in", view, status, has_form=True)
