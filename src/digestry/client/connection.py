"""Authenticated requests to registries, over one transport, with credentials and tokens."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from digestry.client.options import ClientOptions
from digestry.client.responses import Response
from digestry.client.session_cache import SessionCache
from digestry.client.transport import Call, Transport, origin_of

if TYPE_CHECKING:
    from digestry.client.auth import Authenticator
    from digestry.client.credentials import Credentials


class Connection:
    """Requests to any number of registries, over pooled connections. Thread-safe.

    ``credentials`` are those that ``options`` name, unless others are given. ``transport`` and
    ``authenticator`` replace the parts of that kind, and ``cache`` may be shared.
    """

    def __init__(
        self,
        options: ClientOptions,
        *,
        credentials: Credentials | None = None,
        transport: Transport | None = None,
        authenticator: Authenticator | None = None,
        cache: SessionCache | None = None,
    ) -> None:
        self.options = options
        self.transport = transport or Transport(options)
        self.cache = cache or SessionCache()
        self._credentials = credentials
        self._authenticator = authenticator
        self._lock = threading.Lock()
        self._of_mirrors: Connection | None = None

    def base(self, host: str) -> str:
        """Return the address of a registry, ``scheme://host[:port]``. Raises :class:`Unreachable`."""
        return self.transport.base(host)

    def likely_base(self, host: str) -> str:
        """Return the address of a registry, which :meth:`send` corrects if it is another.

        Raises :class:`Unreachable`.
        """
        return self.transport.likely_base(host)

    def _authentication(self) -> Authenticator:
        """Return the authenticator, made at the first challenge."""
        from digestry.client.auth import Authenticator  # noqa: PLC0415 - many registries never ask
        from digestry.client.credentials import DockerCredentials  # noqa: PLC0415

        with self._lock:
            if self._authenticator is None:
                credentials = self._credentials or DockerCredentials.from_options(self.options)
                self._authenticator = Authenticator(self.transport, credentials)
            return self._authenticator

    def is_authenticated(self, host: str) -> bool:
        """Return whether ``host`` requested credentials, so that its responses are for one account."""
        return self._authenticator is not None and self._authenticator.challenged(host)

    def send(self, host: str, call: Call, scopes: Sequence[str]) -> Response:
        """Send ``call`` to the registry ``host``, with credentials if it asks for them.

        Returns the response, with any status. ``scopes`` are those of the token that is requested. Raises
        :class:`Unreachable`, :class:`ProtocolViolation`, :class:`Unauthorized` if a token server refuses, and
        :class:`~digestry.errors.Forbidden` for a registry that a configuration file blocks.
        """
        if self.options.registries is not None:
            self.options.registries.check_host(host)
        call = msgspec.structs.replace(call, registry=host)
        first = self.transport.send_first(host, call)
        base = self.transport.base(host)
        call = self.transport.corrected(host, call)
        # An upload may be sent to another host, which has no right to these credentials.
        ours = origin_of(call.url) == origin_of(base)
        if not ours:
            call = msgspec.structs.replace(call, named_by=urlsplit(base).netloc)
        known = self._authenticator
        # The first request had none, though another thread may have been asked for it meanwhile.
        header = known.header(host, scopes) if ours and known is not None and first is None else None
        response = (
            self._described(host, first, None, scopes) if first else self._send(host, call, header, scopes)
        )
        if response.status != 401 or not ours or origin_of(response.url) != origin_of(base):
            return response
        try:
            challenges = response.headers.getlist("WWW-Authenticate")
            other = self._authentication().reauthorize(host, challenges, scopes, header)
        except BaseException:
            response.close()
            raise
        if other is None:
            # By now the credentials were looked for, so that the reason why there are none is known.
            response.remark = self._authentication().problem(host)
            return response
        response.close()
        return self._send(host, call, other, scopes)

    def _send(self, host: str, call: Call, authorization: str | None, scopes: Sequence[str]) -> Response:
        response = self.transport.send(call, authorization=authorization)
        return self._described(host, response, authorization, scopes)

    def _described(
        self, host: str, response: Response, authorization: str | None, scopes: Sequence[str]
    ) -> Response:
        """Return ``response`` with the facts about the registry and the login for its error."""
        response.registry = host
        if "Warning" in response.headers and self.options.tell is not None:
            self._report_warnings(host, response.headers.getlist("Warning"))
        if self._authenticator is not None:
            response.remark = self._authenticator.problem(host)
            if response.status in {401, 403, 404, 429} and authorization is not None:
                response.account = self._authenticator.account(host, scopes)
        return response

    def for_mirrors(self) -> Connection:
        """Return the connection to mirrors, which have a third of the time, so that the registry can follow.

        It has the same credentials, each for its own host. This connection closes it.
        """
        with self._lock:
            if self._of_mirrors is None:
                options = self.options
                shorter = options.replace(
                    timeout=options.timeout / 3,
                    connect_timeout=options.connect_timeout / 3,
                    retries=min(1, options.retries),
                    patience=_third(options.patience),
                    waiting=_third(options.waiting),
                )
                self._of_mirrors = Connection(shorter, credentials=self._credentials, cache=self.cache)
            return self._of_mirrors

    def _report_warnings(self, host: str, values: Sequence[str]) -> None:
        from digestry.client.registry_warnings import MOST, read_warnings  # noqa: PLC0415 - rare

        for text in read_warnings(values):
            said = self.cache.warnings.setdefault(host, set())
            if text not in said and len(said) < MOST:
                said.add(text)
                self.tell_once(f"{host} warns: {text}")

    def tell_once(self, text: str) -> None:
        """Report a sentence to the user, unless this session has reported it before."""
        if self.options.tell is not None and text not in self.cache.notices:
            self.cache.notices.add(text)
            self.options.tell(text)

    def close(self) -> None:
        """Close all pooled connections."""
        self.transport.close()
        if self._of_mirrors is not None:
            self._of_mirrors.close()


def _third(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3
