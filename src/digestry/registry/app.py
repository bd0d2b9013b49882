"""The ASGI application: from a request's path to the resource that answers it.

Repository names have slashes in them, so that a path is read from its end. That is a few string
operations; a table of regular expressions costs several times as much (bench/README.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from digestry.errors import DigestryError
from digestry.model.reference import check_repository
from digestry.registry import error_responses, proxies
from digestry.registry.config import RegistryConfig
from digestry.registry.connections.guard import Guard
from digestry.registry.error_responses import BrokenOff, ClientGone, ErrorResponse, not_allowed
from digestry.registry.exchange import OTHER, Exchange, SuccessWithheld
from digestry.registry.observability.connection_metrics import ConnectionMeter
from digestry.registry.observability.counters import GONE
from digestry.registry.observability.logs import CURRENT
from digestry.registry.pull_through import handler as mirroring
from digestry.registry.pull_through.mirror import UpstreamRepository
from digestry.registry.pull_through.upstream import MakeUpstream
from digestry.registry.resources import (
    blobs,
    extensions,
    manifests,
    referrers,
    resolution,
    sightings,
    tag_history,
    tags,
    tokens,
    uploads,
)
from digestry.registry.resources import health as observing
from digestry.registry.service import Service

log: Final = logging.getLogger("digestry.registry")

_check_repository: Final = functools.lru_cache(4096)(check_repository)
"""The same few names are asked for again and again."""
_PREFIX: Final = "/v2/"
_ACTIONS: Final = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}
_TAKES: Final = frozenset({"POST", "PUT", "PATCH"})

# A request's route, for the metrics and logs, by the last part of its path but one.
_ROUTES: Final = {
    "manifests": "manifest",
    "blobs": "blob",
    "uploads": "upload",
    "tags": "tags",
    "referrers": "referrers",
    "tag-history": "history",
}
_EXTENSIONS: Final = frozenset(
    ("advisories", "digests", "holders", "journal", "resolve", "restore", "sightings", "tag", "tags", "whose")
)


class RegistryApp:
    """The registry as an ASGI application. ``make_service`` is called in the worker's own process."""

    def __init__(
        self,
        make_service: Callable[[], Service],
        *,
        address: tuple[str, int] | None = None,
        beat: Callable[[], Coroutine[None, None, None]] | None = None,
    ) -> None:
        """``address`` is where the connections come in, if they do by TCP; ``beat`` says for ever that this
        process lives."""
        self._make_service = make_service
        self._service: Service | None = None
        self._address = address
        self._beat = beat
        self._guard: Guard | None = None
        self._beating: asyncio.Task[None] | None = None

    @property
    def service(self) -> Service:
        """The running service."""
        if self._service is None:
            raise RuntimeError("the server has not sent lifespan.startup")
        return self._service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(Exchange(scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _http(self, exchange: Exchange) -> None:
        service = self.service
        observer = exchange.observer = service.observer
        began = time.perf_counter()
        exchange.limits = service.config.connections
        connection = exchange.connection = service.connections.enter(exchange.scope.get("client"))
        CURRENT.set(exchange)
        try:
            if service.config.proxy:
                exchange.forwarding = proxies.apply(service.config.proxy, exchange.scope)
                exchange.host = exchange.forwarding.host
            await self._dispatch(exchange)
        except ClientGone:
            if not exchange.answered:
                await observer.note_write(exchange, GONE)
        except BrokenOff:
            raise  # the client took too little of the answer, which ends without its end
        except DigestryError as error:
            await self._fail(exchange, error_responses.from_error(error))
        except Exception:
            log.exception("%s %s failed", exchange.method, exchange.scope["path"])
            await self._fail(
                exchange, ErrorResponse(500, "UNKNOWN", "this is a defect of the registry; its log has more")
            )
        finally:
            ended = time.perf_counter()
            observer.ended(exchange, ended - began)
            service.connections.leave(connection, ended)
            if exchange.held_body:
                exchange.let_go_of_body()
            CURRENT.set(None)  # else the server, whose context this is, and the request hold each other

    async def _fail(self, exchange: Exchange, problem: ErrorResponse) -> None:
        if exchange.answered:
            # Too late for an error: the connection must break, so that the client sees a cut body.
            log.error("%s %s is broken off: %s", exchange.method, exchange.scope["path"], problem.message)
            raise BrokenOff(problem.message)
        await exchange.send_error(problem)

    async def _dispatch(self, exchange: Exchange) -> None:
        service = self.service
        path: str = exchange.scope["path"]
        if not path.startswith(_PREFIX):
            await self._dispatch_outside(service, exchange, path)
            return
        head, _, last = path[len(_PREFIX) :].rpartition("/")
        name, _, resource = head.rpartition("/")
        exchange.route = _ROUTES.get(resource) or _rare_route(path[len(_PREFIX) :])
        if not service.admission.admits(exchange):
            await exchange.answer(204)
            return
        known = service.gate.cached_principal(exchange.header(b"authorization"))
        if known is None:
            await _identify(service, exchange)
        else:
            exchange.principal = known
        service.admission.check_writable(exchange)
        if service.mirrors is not None:
            asked = name.removesuffix("/blobs") if resource == "uploads" else name
            place = service.mirrors.repository_of(exchange, asked, resource)
            if place is not None:
                await self._dispatch_mirrored(service, exchange, place, resource=resource, last=last)
                return
        match resource:
            case "manifests":
                await manifests.handle(_allowed(service, exchange, name), exchange, name, last)
            case "blobs" if last != "uploads":
                await blobs.handle(_allowed(service, exchange, name), exchange, name, last)
            case "blobs":
                exchange.route = "upload"
                await uploads.handle_start(_allowed(service, exchange, name, "push"), exchange, name)
            case "uploads" if name.endswith("/blobs"):
                name = name.removesuffix("/blobs")
                service = _allowed(service, exchange, name, "push")
                if last:
                    await uploads.handle(service, exchange, name, last)
                else:
                    await uploads.handle_start(service, exchange, name)
            case "tags" if last == "list":
                await tags.handle_list(_allowed(service, exchange, name), exchange, name)
            case "referrers":
                await referrers.handle(_allowed(service, exchange, name), exchange, name, last)
            case _:
                await self._dispatch_rare(service, exchange, path[len(_PREFIX) :])

    async def _dispatch_mirrored(
        self, service: Service, exchange: Exchange, place: UpstreamRepository, *, resource: str, last: str
    ) -> None:
        if place.before_login:
            # The rules were asked, of the name that is meant.
            exchange.repository, found = place.requested_name, service
        else:
            found = _allowed(
                service, exchange, place.local_name, "push" if "uploads" in {resource, last} else None
            )
        if found is not service or service.config.read_only:
            # Whoever may not see the repository: upstream is not asked for them.
            place = replace(place, may_fetch=False)
        exchange.errors_only = place.withheld
        try:
            await mirroring.handle(found, exchange, place, resource, last)
        except SuccessWithheld:
            # A name of our own that must not be seen, and upstream has it too: nobody is given a stranger's
            # image instead. The answer is that to a name which neither has.
            exchange.errors_only, exchange.extra_headers = False, ()
            _ask_for_login(service, exchange, place)
            place = replace(place, may_fetch=False)
            await mirroring.handle(service.absent, exchange, place, resource, last)
        except DigestryError:
            _ask_for_login(service, exchange, place)
            raise

    async def _dispatch_outside(self, service: Service, exchange: Exchange, path: str) -> None:
        if not service.admission.admits(exchange):
            await exchange.answer(204)
            return
        match path:
            case "/v2":
                exchange.route = "base"
                await _identify(service, exchange)
                await _base(service, exchange)
            case tokens.PATH:
                exchange.route = "token"
                await tokens.handle(service.gate, exchange, patience=service.config.patience)
            case observing.METRICS:
                exchange.route = "metrics"
                await _identify(service, exchange)
                await observing.handle_metrics(service, exchange)
            case observing.LIVE | observing.READY | observing.READY_TOO:
                exchange.route = "health"
                await observing.handle_health(service, exchange, path)
            case _:
                raise error_responses.not_found(path)

    async def _dispatch_rare(self, service: Service, exchange: Exchange, path: str) -> None:
        if path == "":
            await _base(service, exchange)
        elif path == "_catalog":
            service.gate.require_catalog(exchange)
            await tags.handle_catalog(service, exchange)
        elif path == "_oci/ext/discover" or path.endswith("/_oci/ext/discover"):
            service.gate.require_login(exchange)
            await extensions.handle_discover(exchange)
        elif path == "_digestry/resolve":
            await resolution.handle(service, exchange)
        elif path == "_digestry/sightings":
            await sightings.handle_note(service, exchange)
        elif path.startswith("_digestry/whose/"):
            service.gate.require_catalog(exchange)
            await tag_history.handle_whose_anywhere(service, exchange, path.removeprefix("_digestry/whose/"))
        elif path.startswith("_digestry/digests/"):
            service.gate.require_catalog(exchange)
            await tag_history.handle_digests_anywhere(
                service, exchange, path.removeprefix("_digestry/digests/")
            )
        elif "/_oci/tag-history/" in path:
            name, _, tag = path.rpartition("/_oci/tag-history/")
            name = service.canonical_repository(name, exchange.principal)
            await extensions.handle_tag_history(_allowed(service, exchange, name), exchange, name, tag)
        elif "/_digestry/" in path:
            name, _, what = path.partition("/_digestry/")
            if service.mirrors is not None and exchange.scope["method"] not in _ACTIONS:
                service.mirrors.refuse(name)
            elif exchange.scope["method"] in {"GET", "HEAD"}:
                name = service.canonical_repository(name, exchange.principal)
            await extensions.handle_digestry(_allowed(service, exchange, name), exchange, name, what)
        else:
            raise error_responses.not_found(_PREFIX + path)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    self._service = self._make_service()
                    self._service.start()
                    self._begin(self._service)
                except DigestryError as error:
                    await send({"type": "lifespan.startup.failed", "message": error.message})
                    return
                except Exception as error:
                    # An error that comes through, the server would take for an application without a
                    # start, and send it requests.
                    log.exception("a worker cannot start")
                    await send({"type": "lifespan.startup.failed", "message": repr(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._guard is not None:
                    self._guard.stop()
                with contextlib.suppress(asyncio.CancelledError):
                    await self.service.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _begin(self, service: Service) -> None:
        if self._beat is not None:
            self._beating = asyncio.get_running_loop().create_task(self._beat())
        if self._address is not None:
            config = service.config
            self._guard = Guard(
                config.connections, service.connections, self._address, exempt=config.is_exempt
            )
            service.connections.note_turns()
            self._guard.start()
            service.observer.watch(ConnectionMeter(service.observer.measures, self._guard).read)


def _rare_route(path: str) -> str:
    """The route of what :data:`_ROUTES` has no part for: the path, without its prefix, from its beginning."""
    if path in {"", "_catalog"}:
        return "catalog" if path else "base"
    if path.endswith("_oci/ext/discover"):
        return "discover"
    what = f"/{path}".partition("/_digestry/")[2].partition("/")[0]
    return what if what in _EXTENSIONS else OTHER


async def _identify(service: Service, exchange: Exchange) -> None:
    """Finds out who asks. Raises :class:`ErrorResponse` 401 for who claims what does not hold."""
    header = exchange.header(b"authorization")
    principal = service.gate.cached_principal(header)
    if principal is None:
        principal = await service.gate.authenticate(exchange, header or "")
    exchange.principal = principal


def _allowed(service: Service, exchange: Exchange, name: str, action: str | None = None) -> Service:
    """What answers a request about a repository: the service or, for who may not see it, an empty one.

    Raises :class:`ErrorResponse` 401 or 403 for what the rules do not allow, :class:`StorageFull` for what
    would be taken in while only deletions have room.
    """
    _check_repository(name)
    exchange.repository = name
    visible = service.gate.require(exchange, name, action or _ACTIONS.get(exchange.scope["method"], "push"))
    if exchange.scope["method"] in _TAKES:
        service.reserve.check()
    return service if visible else service.absent


def _ask_for_login(service: Service, exchange: Exchange, place: UpstreamRepository) -> None:
    """Raise :class:`ErrorResponse` 401 if logging in may show a repository of this registry by that name."""
    if place.before_login and not exchange.answered:
        exchange.extra_headers = ()
        service.gate.require(exchange, place.requested_name, "pull")


async def _base(service: Service, exchange: Exchange) -> None:
    if exchange.method not in {"GET", "HEAD"}:
        raise not_allowed(exchange.method, "GET, HEAD")
    service.gate.require_login(exchange)
    await exchange.answer(200, [("Content-Type", "application/json")], b"{}")


def create_app(
    config: RegistryConfig,
    make_upstream: MakeUpstream | None = None,
    *,
    address: tuple[str, int] | None = None,
    beat: Callable[[], Coroutine[None, None, None]] | None = None,
) -> ASGIApp:
    """The registry's application for one worker process; ``make_upstream`` if it has mirrors. The rest is as
    :class:`RegistryApp` has it."""
    return RegistryApp(lambda: Service(config, make_upstream=make_upstream), address=address, beat=beat)
