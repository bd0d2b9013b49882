"""The ASGI application of the pages: it finds a request's page and renders it."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from digestry.errors import CallerError, DigestryError, NotFound, TooLarge
from digestry.web import static_files, templates
from digestry.web.cookies import THEME, THEMES
from digestry.web.host import Host
from digestry.web.page import Page
from digestry.web.route import RouteTable, Show
from digestry.web.routes import NAVIGATION, ROUTES
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
        visit = self._visit(request)
        try:
            return await self._answer(request, visit)
        except SignInNeeded:
            target = templates.address("/sign-in", next=visit.address)
            return RedirectResponse(target, 303, {"Cache-Control": "no-store"})
        except DigestryError as error:
            return await self._host.run(self._render, request, visit, problem_page(error))

    async def _answer(self, request: Request, visit: Visit) -> Response:
        route, parts = self._routes.find(request.scope["path"], acts=request.method == "POST")
        visit = replace(visit, path=parts)
        if route.show is not None and request.method != "POST":
            return await self._host.run(self._show, request, visit, route.show)
        if route.act is not None:
            return await route.act(visit, await _fields(request))
        raise NotFound("there is no page at this address")

    def _show(self, request: Request, visit: Visit, show: Show) -> Response:
        return self._render(request, visit, show(visit))

    def _render(self, request: Request, visit: Visit, page: Page) -> Response:
        """Return the rendered page, or 304 if the visitor has the same one. Blocks."""
        text = self._templates.get_template(page.template).render(
            visit=visit, page=page, view=page.view, navigation=NAVIGATION, now=self._host.now()
        )
        body = text.encode("utf-8", "replace")
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {**_PRIVATE, "ETag": tag}
        if page.status == 200 and tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, page.status, headers, _HTML)

    def _static_file(self, path: str) -> Response:
        file = self._static_files.get(path)
        if file is None:
            return Response("there is no such file\n", 404, media_type="text/plain")
        return Response(file.content, 200, _FOR_EVER, file.media_type)

    def _visit(self, request: Request) -> Visit:
        scope = request.scope
        query = dict(reversed(request.query_params.multi_items()))
        theme = request.cookies.get(THEME, "")
        return Visit(
            host=self._host,
            visitor=self._host.visitor(scope, None),
            registry=self._host.registry_name(scope),
            address=templates.address(scope["path"], **query),
            query=query,
            theme=theme if theme in THEMES else "",
            https=self._host.is_https(scope),
        )


async def _fields(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises :class:`TooLarge`."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise TooLarge(f"the form has more than {_LARGEST_FORM} bytes", limit=_LARGEST_FORM)
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=None)
    return dict(reversed(pairs))


def problem_page(error: DigestryError) -> Page:
    """Return the page that says what went wrong, with its status."""
    if isinstance(error, NotFound):
        status = HTTPStatus.NOT_FOUND
    elif isinstance(error, CallerError):
        status = HTTPStatus.BAD_REQUEST
    else:
        log.error("a page failed: %s", error.message)
        status = HTTPStatus.SERVICE_UNAVAILABLE
    view = Problem(status, status.phrase, error.message, error.hint or "")
    return Page("problem.html", status.phrase, view, status)
