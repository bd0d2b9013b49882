"""What a registry offers to the pages beside its API: who asks, what they may see, and its stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final, ParamSpec, TypeVar

from starlette.types import Scope

from digestry.advisories.trust import TrustPolicy
from digestry.catalog.catalog import Catalog
from digestry.catalog.tag_moves import Expected
from digestry.errors import Conflict, DigestryError, Forbidden, NotFound, StorageError, TooMany
from digestry.model.digest import Digest
from digestry.model.history import Restored
from digestry.registry.access.code_flow import CodeFlow, Started
from digestry.registry.access.gate import Proof
from digestry.registry.access.identity import ANONYMOUS
from digestry.registry.access.principal import Principal
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange
from digestry.registry.mounts import EXCHANGE, MOUNTED, Mounts
from digestry.registry.resources import tag_history
from digestry.registry.route import NOTHING, Operation
from digestry.registry.routes import find
from digestry.registry.service import Service
from digestry.registry.web_config import WebConfig

P = ParamSpec("P")
T = TypeVar("T")


async def _by_pages(*_: object) -> None:
    """Do nothing: the pages answer."""


SIGN_IN: Final = replace(
    MOUNTED,
    operations={method: Operation(method, _by_pages, NOTHING, "sign-in") for method in ("GET", "POST")},
    audited=True,
)
"""The route of a sign-in at the pages, which has a line in the audit log. An issuer leads back by GET."""
SIGN_OUT: Final = replace(SIGN_IN, operations={"POST": Operation("POST", _by_pages, NOTHING, "sign-out")})
"""The route of a sign-out, which has a line in the audit log."""
_THREADS: Final = 4
"""So many of the threads that wait for the disk work for pages at a time: pulls need the others."""


class PageHost:
    """The registry of one worker process, as its pages see it.

    ``scope`` is in each method the ASGI scope of the page's request.
    """

    def __init__(self, service: Callable[[], Service]) -> None:
        """``service`` returns the service that runs now: a reload of the configuration gives another one."""
        self._service = service
        self._threads = asyncio.Semaphore(_THREADS)

    @property
    def settings(self) -> WebConfig:
        """The ``[web]`` section."""
        return self._service().config.web

    @property
    def catalog(self) -> Catalog:
        """The registry's catalog. Its methods block."""
        return self._service().stores.catalog

    @property
    def trust(self) -> TrustPolicy:
        """The ``[advisories]`` section."""
        return self._service().config.trust

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._service().now()

    def content(self, digest: Digest, size: int) -> bytes:
        """Return content that the catalog lists, verified. Blocks. Raises :class:`StorageError`."""
        return self._service().stores.read(digest, size)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``, which may block, in a thread. Many at once wait for each other, so that threads
        are left for the API."""
        async with self._threads:
            return await self._service().executors.run(function, *args, **kwargs)

    async def write(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``, which changes the catalog and nothing else. Return when that is on the disk."""
        return await self._service().executors.write(function, *args, **kwargs)

    # -- who asks --------------------------------------------------------------------------------

    @property
    def has_logins(self) -> bool:
        """Return whether the registry has users, or rules for them."""
        return self._service().config.access.enabled

    def registry_name(self, scope: Scope) -> str:
        """Return the registry's host and port as the client of this request reaches it."""
        return str(_exchange(scope).host or "localhost")

    def is_https(self, scope: Scope) -> bool:
        """Return whether the client of this request reaches the registry by HTTPS."""
        return str(_exchange(scope).scope["scheme"]) == "https"

    def visitor(self, scope: Scope, name: str | None) -> Principal:
        """Return what the user ``name`` may do, or anybody for None; the logs name that user."""
        gate = self._service().gate
        principal = gate.principal_of(ANONYMOUS.name if name is None else name)
        _exchange(scope).principal = principal
        return principal

    def request_id(self, scope: Scope) -> str:
        """Return the number of the request, as the logs have it."""
        return _exchange(scope).request_id

    def note_sign_out(self, scope: Scope) -> None:
        """Note that the request ends the visitor's session: it gets a line in the audit log."""
        _exchange(scope).route = SIGN_OUT

    async def check_password(self, scope: Scope, name: str, password: str) -> Proof:
        """Return the proof of a user's password, or of a robot's token.

        Raises :class:`Forbidden` if it is wrong, or an agent's, :class:`TooMany` while too many were wrong.
        """
        exchange = _exchange(scope)
        exchange.route = SIGN_IN
        try:
            proof = await self._service().gate.password(exchange, name, password)
        except ErrorResponse as error:
            exchange.failure, exchange.reason = error.message, "login"
            if error.status == 401:
                raise Forbidden(error.message) from error
            if error.status == 429:
                raise TooMany(error.message) from error
            raise
        if proof.place is not None:
            exchange.failure = "an agent's token reports what runs, and opens no pages"
            raise Forbidden(exchange.failure)
        exchange.principal = self._service().gate.principal_of(proof.identity.name)
        return proof

    @property
    def issuers(self) -> tuple[str, ...]:
        """The names, for people, of the issuers at which they sign in."""
        return tuple(flow.title for flow in self._service().gate.code_flows)

    async def begin_sign_in(self, issuer: int, redirect: str) -> Started:
        """Begin a sign-in at an issuer, given by its place in :attr:`issuers`, that comes back to
        ``redirect``.

        Raises :class:`NotFound`, and :class:`RemoteError` if the issuer does not answer as it should.
        """
        return await self._flow(issuer).begin(redirect)

    async def finish_sign_in(
        self,
        scope: Scope,
        issuer: int,
        redirect: str,
        *,
        code: str,
        verifier: str,
        nonce: str,
        stated: str | None,
    ) -> Proof:
        """Return the proof of who came back from an issuer with a ``code``; ``stated`` is the issuer that the
        answer names, if it names one.

        Raises :class:`Forbidden` for who is not known here, and as :meth:`begin_sign_in` does.
        """
        flow, exchange = self._flow(issuer), _exchange(scope)
        exchange.route = SIGN_IN
        exchange.record_audit_event(issuer=flow.issuer)
        try:
            if stated is not None and stated != flow.issuer:
                raise Forbidden("the answer is of another issuer")
            identity = await flow.finish(code, redirect, verifier=verifier, nonce=nonce)
        except DigestryError as error:
            exchange.failure, exchange.reason = error.message, "login"
            raise
        exchange.principal = self._service().gate.principal_of(identity.name)
        return Proof(identity, flow.credential)

    def _flow(self, issuer: int) -> CodeFlow:
        flows = self._service().gate.code_flows
        if not 0 <= issuer < len(flows):
            raise NotFound("there is no such issuer")
        return flows[issuer]

    async def still_holds(self, name: str, credential: str) -> bool:
        """Return whether the password or token with the fingerprint ``credential`` is still the user's."""
        return await self._service().gate.holds(name, credential)

    # -- what forms do ---------------------------------------------------------------------------

    def address(self, scope: Scope) -> str:
        """Return the address of the request's client, as the journal and the audit log have it."""
        return _exchange(scope).address

    def immovable(self, name: str) -> str:
        """Return why nobody may move tags of a repository here; empty if the rules decide."""
        service = self._service()
        if service.config.read_only:
            return "this registry is read-only"
        if service.mirrors is not None:
            try:
                service.mirrors.check_not_upstream(name)
            except DigestryError as error:
                return error.message
        return ""

    async def restore_tag(
        self, scope: Scope, name: str, tag: str, digest: Digest, *, before: Digest | None
    ) -> Restored:
        """Point a tag back at a digest that it had, if it points to ``before`` now; None if it is deleted.

        The visitor needs the same rights as for the API's request, which this counts as. Raises
        :class:`Forbidden`, :class:`NotFound`, :class:`Conflict`.
        """
        service, exchange = self._service(), _exchange(scope)
        exchange.route = route = find(f"/v2/{name}/_digestry/restore/{tag}")[0]
        expected = Expected(none_of=_ANY) if before is None else Expected(any_of=frozenset({str(before)}))
        try:
            service.request_checks.check_writable(exchange)
            if service.mirrors is not None:
                service.mirrors.check_not_upstream(name)
            allowed: Service = route.operations["POST"].access.check(service, exchange, name)
            return await tag_history.restore(allowed, exchange, name, tag, digest, expected=expected)
        except DigestryError as error:
            exchange.failure = error.message
            raise _of_page(error) from error


_ANY: Final = frozenset("*")


def _of_page(error: DigestryError) -> DigestryError:
    """Return the error that a page shows for an error of the API."""
    if not isinstance(error, ErrorResponse):
        return error
    kinds: dict[int, type[DigestryError]] = {401: Forbidden, 403: Forbidden, 404: NotFound}
    return kinds.get(error.status, Conflict if error.status < 500 else StorageError)(error.message)


def _exchange(scope: Scope) -> Exchange:
    exchange = scope[EXCHANGE]
    if not isinstance(exchange, Exchange):
        raise TypeError("the pages are asked outside of a registry")
    return exchange


MakeMounts = Callable[[PageHost], Mounts]
"""Makes the applications beside the API, in a worker process."""
