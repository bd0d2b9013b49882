"""The ASGI application: it finds a request's route, checks what that requires, and calls its handler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Final, NoReturn

from starlette.types import ASGIApp, Receive, Scope, Send

from digestry.errors import DigestryError
from digestry.registry import proxies
from digestry.registry.access.refusals import refused_to_agent
from digestry.registry.config import RegistryConfig
from digestry.registry.connections.guard import ConnectionGuard
from digestry.registry.error_responses import (
    BrokenOff,
    ClientGone,
    ErrorResponse,
    from_error,
    not_allowed,
    not_found,
)
from digestry.registry.exchange import Exchange, SuccessWithheld
from digestry.registry.lifecycle import Lifecycle
from digestry.registry.mounts import MOUNTED, MountTable, relay
from digestry.registry.observability.connection_metrics import ConnectionMeter
from digestry.registry.observability.counters import CLIENT_CLOSED_REQUEST
from digestry.registry.observability.logs import CURRENT
from digestry.registry.page_host import MakeMounts, PageHost
from digestry.registry.pull_through.mirror import UpstreamRepository
from digestry.registry.pull_through.mirrors import read_only
from digestry.registry.pull_through.upstream import MakeUpstream
from digestry.registry.route import UNKNOWN, Operation
from digestry.registry.routes import find
from digestry.registry.service import Service, open_service, reconfigured

log: Final = logging.getLogger("digestry.registry")

Follow = Callable[[Callable[[RegistryConfig], Awaitable[None]]], Coroutine[None, None, None]]


class RegistryApp:
    """The registry as an ASGI application. ``make_service`` is called in the worker's own process."""

    def __init__(
        self,
        make_service: Callable[[], Service],
        *,
        address: tuple[str, int] | None = None,
        beat: Callable[[], Coroutine[None, None, None]] | None = None,
        follow: Follow | None = None,
        make_mounts: MakeMounts | None = None,
    ) -> None:
        """``address`` is the server's address, if it is TCP; ``beat`` reports for ever that this process
        lives; ``follow`` calls its argument with each new configuration, for ever. ``make_mounts`` gives
        other applications, which answer requests outside the API."""
        host = PageHost(lambda: self.service)
        self._mounts = MountTable({} if make_mounts is None else make_mounts(host))
        self._make_service = make_service
        self._service: Service | None = None
        self._lifecycle: Lifecycle | None = None
        self._address = address
        self._beat = beat
        self._follow = follow
        self._guard: ConnectionGuard | None = None
        self._tasks: list[asyncio.Task[None]] = []

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
            if not exchange.response_started:
                await observer.note_write(exchange, CLIENT_CLOSED_REQUEST)
        except BrokenOff:
            raise  # the client took too little of the answer, which ends without its end
        except DigestryError as error:
            await self._fail(exchange, from_error(error))
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
                exchange.release_body()
            CURRENT.set(None)  # else the server, whose context this is, and the request hold each other

    async def _fail(self, exchange: Exchange, problem: ErrorResponse) -> None:
        if exchange.response_started:
            # Too late for an error: the connection must break, so that the client sees a cut body.
            log.error("%s %s is broken off: %s", exchange.method, exchange.scope["path"], problem.message)
            raise BrokenOff(problem.message)
        await exchange.send_error(problem)

    async def _dispatch(self, exchange: Exchange) -> None:
        service = self.service
        route, name, last = find(exchange.scope["path"])
        mount = None
        if route is UNKNOWN and not exchange.scope["path"].startswith("/v2/"):
            mount = self._mounts.find(exchange.scope["path"])
            route = MOUNTED
        exchange.route = route
        if not service.request_checks.admits(exchange):
            await exchange.respond(204)
            return
        if mount is not None:
            await relay(exchange, *mount)
            return
        if route.identified:
            header = exchange.header(b"authorization")
            principal = service.gate.cached_principal(header)
            if principal is None:
                principal = await service.gate.authenticate(exchange, header or "")
            exchange.principal = principal
            if principal.place is not None and not route.agents:
                raise refused_to_agent(principal)
            service.request_checks.check_writable(exchange)
        operation = route.operations.get(exchange.scope["method"])
        if service.mirrors is not None:
            if route.upstream:
                repository = await service.mirrors.repository_of(exchange, name, route.metric)
                if repository is not None:
                    await _dispatch_upstream(service, exchange, operation, repository, last)
                    return
            elif route.local_copy:
                if operation is not None and operation.audit_event and not route.acts:
                    service.mirrors.check_not_upstream(name)
                else:
                    name = await service.canonical_repository(name, exchange.principal)
        if operation is None:
            _refuse_method(service, exchange, name, last)
        else:
            await operation.handler(operation.access.check(service, exchange, name), exchange, name, last)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    self._service = self._make_service()
                    self._lifecycle = Lifecycle(self._service)
                    self._lifecycle.start()
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
                if self._lifecycle is not None:
                    with contextlib.suppress(asyncio.CancelledError):
                        await self._lifecycle.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _begin(self, service: Service) -> None:
        loop = asyncio.get_running_loop()
        if self._beat is not None:
            self._tasks.append(loop.create_task(self._beat()))
        if self._follow is not None:
            self._tasks.append(loop.create_task(self._follow(self._adopt)))
        if self._address is not None:
            config = service.config
            self._guard = ConnectionGuard(
                config.connections, service.connections, self._address, exempt=config.is_exempt
            )
            service.connections.note_turns()
            self._guard.start()
            service.observer.watch(ConnectionMeter(service.observer.metrics, self._guard).read)

    async def _adopt(self, config: RegistryConfig) -> None:
        """Serve by another configuration. Each request sees one alone, from its beginning to its end."""
        service = reconfigured(self.service, config)
        self._service = service
        if self._lifecycle is not None:
            await self._lifecycle.change(service)


def _refuse_method(service: Service, exchange: Exchange, name: str, last: str) -> NoReturn:
    """Raise :class:`ErrorResponse` for a method that the route does not have: 405, unless more is wrong."""
    route, path = exchange.route, exchange.scope["path"]
    route.refused.check(service, exchange, name)
    if not route.operations:
        raise not_found(path)
    if route.check is not None:
        route.check(service, name, last)
    raise not_allowed(exchange.method, route.allow)


async def _dispatch_upstream(
    service: Service,
    exchange: Exchange,
    operation: Operation | None,
    repository: UpstreamRepository,
    last: str,
) -> None:
    """Answer a request about another registry's repository."""
    if repository.before_login:
        # The rules were checked for the canonical name.
        exchange.repository, found = repository.requested_name, service
    else:
        access = exchange.route.refused if operation is None else operation.access
        found = access.check(service, exchange, repository.local_name)
    if operation is None or operation.upstream is None:
        raise read_only(repository.mirror.config, repository.local_name)
    if found is not service or service.config.read_only:
        # Upstream is not asked for users who may not see the repository.
        repository = replace(repository, may_fetch=False)
    exchange.errors_only = repository.withheld
    try:
        await operation.upstream(found, exchange, repository, last)
    except SuccessWithheld:
        # A hidden name of this registry that upstream has too: no client is given a stranger's image instead.
        # The answer is that to a name which neither has.
        exchange.errors_only, exchange.extra_headers = False, ()
        _ask_for_login(service, exchange, repository)
        repository = replace(repository, may_fetch=False)
        await operation.upstream(service.hidden(), exchange, repository, last)
    except DigestryError:
        _ask_for_login(service, exchange, repository)
        raise


def _ask_for_login(service: Service, exchange: Exchange, repository: UpstreamRepository) -> None:
    """Raise :class:`ErrorResponse` 401 if logging in may show a repository of this registry by that name."""
    if repository.before_login and not exchange.response_started:
        exchange.extra_headers = ()
        service.gate.require(exchange, repository.requested_name, "pull")


def create_app(
    config: RegistryConfig,
    make_upstream: MakeUpstream | None = None,
    *,
    address: tuple[str, int] | None = None,
    beat: Callable[[], Coroutine[None, None, None]] | None = None,
    follow: Follow | None = None,
    make_mounts: MakeMounts | None = None,
    draining: Callable[[], bool] = bool,
) -> ASGIApp:
    """Return the registry's application for one worker process; ``make_upstream`` if it has mirrors;
    ``draining`` tells whether the server is about to stop. The rest is as :class:`RegistryApp` has it."""
    return RegistryApp(
        lambda: open_service(config, make_upstream=make_upstream, draining=draining),
        address=address,
        beat=beat,
        follow=follow,
        make_mounts=make_mounts,
    )
