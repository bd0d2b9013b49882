"""The ASGI application of the pages: it finds a request's page and renders it."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from digestry.errors import CallerError, Conflict, DigestryError, Forbidden, NotFound, TooLarge, TooMany
from digestry.web import cookies, static_files, templates
from digestry.web.documents import Platforms
from digestry.web.host import Host
from digestry.web.page import Page
from digestry.web.redirects import led_on
from digestry.web.route import NO_PAGE, RouteTable, Show
from digestry.web.routes import NAVIGATION, ROUTES
from digestry.web.sessions import Sessions, form_token
from digestry.web.static_files import PATH as STATIC
from digestry.web.visit import SignInNeeded, Visit

log: Final = logging.getLogger("digestry.web")

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""The Content-Security-Policy of every page: nothing inline, nothing of another host."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, forms would have the origin "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""The headers of every answer."""
_FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
_PRIVATE: Final = {"Cache-Control": "private, no-cache", "Vary": "Cookie"}
_LARGEST_FORM: Final = 64 << 10
_ARRIVAL_SECONDS: Final = 20.0
_HTML: Final = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Problem:
    """What the page of an error shows."""

    status: int
    words: str
    message: str
    hint: str


class WebApp:
    """The pages of one worker process, as an ASGI application."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._routes = RouteTable(ROUTES)
        self._platforms = Platforms()
        self._sessions = Sessions(host)
        files = static_files.read_all()
        self._static_files = {file.address: file for file in files.values()}
        self._templates = templates.environment(files)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._respond(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.method == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        path = request.scope["path"]
        if request.method not in {"GET", "HEAD", "POST"}:
            return Response("the pages answer GET, HEAD and POST\n", 405, {"Allow": "GET, HEAD, POST"})
        if path.startswith(STATIC):
            return self._static_file(path)
        visit = None
        try:
            visit = await self._visit(request)
            return await self._answer(request, visit)
        except SignInNeeded:
            target = templates.address("/sign-in", next="/" if visit is None else visit.address)
            return RedirectResponse(target, 303, {"Cache-Control": "no-store"})
        except DigestryError as error:
            if visit is None:
                raise  # the registry's own answer: not even who asks is known
            return await self._host.run(self._render, request, visit, problem_page(error))
        except Exception:
            if visit is None:
                raise
            log.exception("%s %s failed", request.method, path)
            problem = defect_page(self._host.request_id(request.scope))
            return await self._host.run(self._render, request, visit, problem)

    async def _answer(self, request: Request, visit: Visit) -> Response:
        is_form = request.method == "POST"
        route, parts = self._routes.find(request.scope["path"], acts=is_form)
        visit = replace(visit, path=parts)
        if route.show is not None and not is_form:
            if self._host.has_logins and _has_just_arrived(request, visit):
                return self._lead_on(visit)
            return await self._host.run(self._show, request, visit, route.show)
        if route.act is not None and is_form:
            fields = await _fields(request)
            if route.token:
                _check_token(request, visit, fields)
            done = await route.act(visit, fields)
        elif route.handle is not None:
            done = await route.handle(visit)
        else:
            raise NotFound(NO_PAGE)
        if isinstance(done, Page):
            return await self._host.run(self._render, request, visit, done)
        return done

    def _show(self, request: Request, visit: Visit, show: Show) -> Response:
        page = show(visit)
        return self._render(request, visit, page) if isinstance(page, Page) else page

    def _render(self, request: Request, visit: Visit, page: Page) -> Response:
        """Return the rendered page, or 304 if the visitor has the same one. Blocks."""
        text = self._templates.get_template(page.template).render(
            visit=visit, page=page, view=page.view, navigation=NAVIGATION, now=self._host.now()
        )
        body = text.encode("utf-8", "replace")
        if page.has_form:
            response = Response(body, page.status, {"Cache-Control": "no-store"}, _HTML)
            if visit.session is None:
                cookies.put(response, cookies.FORM, visit.csrf, https=visit.https)
            return response
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {**_PRIVATE, "ETag": tag}
        if page.status == 200 and tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, page.status, headers, _HTML)

    def _lead_on(self, visit: Visit) -> Response:
        """Lead a visitor from elsewhere to the same page again, now with their session's cookie."""
        response = led_on(visit.address)
        cookies.put(
            response, cookies.ARRIVAL, "1", https=visit.https, seconds=_ARRIVAL_SECONDS, same_site="lax"
        )
        return response

    def _static_file(self, path: str) -> Response:
        file = self._static_files.get(path)
        if file is None:
            return Response("there is no such file\n", 404, media_type="text/plain")
        return Response(file.content, 200, _FOR_EVER, file.media_type)

    async def _visit(self, request: Request) -> Visit:
        scope, host, sent = request.scope, self._host, request.cookies
        https = host.is_https(scope)
        session = await self._sessions.find(sent.get(cookies.full_name(cookies.SESSION, https=https), ""))
        query = dict(reversed(request.query_params.multi_items()))
        theme = sent.get(cookies.THEME, "")
        return Visit(
            host=host,
            sessions=self._sessions,
            visitor=host.visitor(scope, None if session is None else session.user),
            platforms=self._platforms,
            registry=host.registry_name(scope),
            address=templates.address(scope["path"], **query),
            query=query,
            cookies=sent,
            theme=theme if theme in cookies.THEMES else "",
            https=https,
            csrf=form_token(sent, https=https) if session is None else session.csrf,
            session=session,
            scope=scope,
        )


def _has_just_arrived(request: Request, visit: Visit) -> bool:
    """Return whether a page elsewhere led the visitor here, by their first request."""
    return (
        visit.session is None
        and request.method == "GET"
        and request.headers.get("sec-fetch-site") == "cross-site"
        and cookies.full_name(cookies.ARRIVAL, https=visit.https) not in request.cookies
    )


def _check_token(request: Request, visit: Visit, fields: Mapping[str, str]) -> None:
    """Raise :class:`Forbidden` unless the form is one that this visitor was given."""
    token = visit.csrf
    if visit.session is None:
        token = request.cookies.get(cookies.full_name(cookies.FORM, https=visit.https), "")
    elsewhere = request.headers.get("sec-fetch-site", "same-origin") != "same-origin"
    given = fields.get("csrf", "")
    if elsewhere or not token or not hmac.compare_digest(given.encode(), token.encode()):
        raise Forbidden("the form is too old, or of another page: go back, and load it again")


async def _fields(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises :class:`TooLarge`."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise TooLarge(f"the form has more than {_LARGEST_FORM} bytes", limit=_LARGEST_FORM)
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=None)
    return dict(reversed(pairs))


def defect_page(request_id: str) -> Page:
    """Return the page of a request that failed by a defect."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    view = Problem(
        status,
        status.phrase,
        "This is a defect of the registry; its log has more",
        f"The log names the request {request_id}",
    )
    return Page("problem.html", status.phrase, view, status)


def problem_page(error: DigestryError) -> Page:
    """Return the page that says what went wrong, with its status."""
    if isinstance(error, NotFound):
        status = HTTPStatus.NOT_FOUND
    elif isinstance(error, Forbidden):
        status = HTTPStatus.FORBIDDEN
    elif isinstance(error, TooMany):
        status = HTTPStatus.TOO_MANY_REQUESTS
    elif isinstance(error, Conflict):
        status = HTTPStatus.CONFLICT
    elif isinstance(error, CallerError):
        status = HTTPStatus.BAD_REQUEST
    else:
        log.error("a page failed: %s", error.message)
        status = HTTPStatus.SERVICE_UNAVAILABLE
    view = Problem(status, status.phrase, error.message, error.hint or "")
    return Page("problem.html", status.phrase, view, status)
