"""Reading a Kubernetes API server: lists, page by page, and never without end.

Nothing is ever sent but GET, and no redirect is followed. The certificate is always checked, unless
the kubeconfig says that it is not to be; credentials are never sent without TLS.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Timeout, make_headers

from digestry import __version__
from digestry.client.failures import root_cause
from digestry.client.options import is_loopback
from digestry.errors import (
    DigestryError,
    InvalidConfiguration,
    ProtocolViolation,
    Refused,
    RemoteNotFound,
    TooLarge,
    Unauthorized,
    Unreachable,
)
from digestry.fleet.sources.engine import TIMEOUT, fields, items, text
from digestry.fleet.sources.kube_credentials import Credential, Credentials
from digestry.fleet.sources.kubeconfig import Access
from digestry.model.digest import shown

PAGE: Final = 500
"""Objects that are asked for at a time."""
MOST_PAGES: Final = 1000
"""Pages of one list: half a million objects."""
LARGEST_PAGE: Final = 64 << 20
"""In bytes. A pod takes some 10 KB; it cannot take more than the 1.5 MB that etcd takes."""
DEADLINE: Final = 270.0
"""Seconds for everything that one source asks."""

_CHUNK: Final = 1 << 16
_LONGEST_MESSAGE: Final = 400
_BUSY: Final = frozenset({429, 503})
_TRIES: Final = 3
_LONGEST_WAIT: Final = 5.0


class _UncheckedConnection(urllib3.connection.HTTPSConnection):
    """To a server that the kubeconfig wants unchecked: that was said once, and needs no warning."""

    def connect(self) -> None:
        super().connect()
        self.is_verified = True


class _UncheckedPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _UncheckedConnection


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str
    body: bytes


class KubeAPI:
    """The API server of ``access``. ``timeout`` is for one answer, ``deadline`` for all, in seconds."""

    def __init__(
        self,
        access: Access,
        credentials: Credentials,
        *,
        timeout: float = TIMEOUT,
        deadline: float = DEADLINE,
        most_pages: int = MOST_PAGES,
        largest_page: int = LARGEST_PAGE,
    ) -> None:
        self._access = access
        self._credentials = credentials
        self._timeout = timeout
        self._deadline = deadline
        self._end = time.monotonic() + deadline
        self._most_pages = most_pages
        self._limit = largest_page
        self._manager: urllib3.PoolManager | None = None
        self._shown: Credential | None = None

    @property
    def server(self) -> str:
        """The address, as the kubeconfig has it."""
        return self._access.cluster.server

    def close(self) -> None:
        """Ends all connections."""
        if self._manager is not None:
            self._manager.clear()

    def prepare(self) -> None:
        """Gets the credentials and the certificates, before anything is asked; the time for that is
        not the server's. Raises what the credentials raise, and :class:`InvalidConfiguration`."""
        self._managed(self._credentials.get())
        self._end = time.monotonic() + self._deadline

    def get(self, path: str, what: str, **query: str) -> Any:
        """The JSON at ``path``; ``what`` is what is asked for, in the words of RBAC.

        Raises :class:`Unreachable`, :class:`Refused` and its kinds, :class:`TooLarge`,
        :class:`ProtocolViolation`, and what the credentials raise.
        """
        address = path + (f"?{urlencode(query)}" if query else "")
        answer = self._ask(address)
        if answer.status == 401 and self._credentials.renew():
            answer = self._ask(address)
        for _ in range(_TRIES - 1):
            if answer.status not in _BUSY:
                break
            time.sleep(min(_wait(answer.retry_after), max(0.0, self._end - time.monotonic())))
            answer = self._ask(address)
        return self._decode(path, what, answer)

    def pages(self, path: str, what: str, **query: str) -> Iterator[list[Any]]:
        """The objects of the list at ``path``, a page at a time. Raises what :meth:`get` raises.

        A list that expired while it was read (410) is begun again, once: then objects come twice.
        """
        for attempt in (1, 2):
            try:
                yield from self._pages(path, what, query)
            except Refused as error:
                if error.status != 410 or attempt == 2:
                    raise
            else:
                return

    def _pages(self, path: str, what: str, query: dict[str, str]) -> Iterator[list[Any]]:
        token = ""
        seen: set[str] = set()
        for _ in range(self._most_pages):
            more = {"continue": token} if token else {}
            document = self.get(path, what, limit=str(PAGE), **query, **more)
            if not isinstance(document, dict) or not isinstance(document.get("items", 0), list | None):
                raise ProtocolViolation(
                    f"{self.server}{path}: the answer is no list of {what.partition(' ')[2]}"
                )
            yield items(document.get("items"))
            following = fields(document.get("metadata")).get("continue") or ""
            if not isinstance(following, str):
                raise ProtocolViolation(f"{self.server}{path}: the list says in no words how it goes on")
            token = following
            if not token:
                return
            if token in seen:
                raise ProtocolViolation(f"{self.server}{path}: the list goes round in a circle")
            seen.add(token)
        raise TooLarge(
            f"{self.server}{path}: the list has more than {self._most_pages} pages, and was not read on",
            limit=self._most_pages,
            hint="ask for some namespaces at a time: kubernetes:CONTEXT?namespace=a,b",
        )

    # -- one exchange -------------------------------------------------------------------------

    def _ask(self, address: str) -> _Answer:
        """One exchange, within its time whatever the other side does."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Unreachable(f"{self.server}: not everything was said within {self._deadline:g} s")
        seconds = min(self._timeout, left)
        # A plugin may take its own time, and is not the server's fault.
        credential = self._credentials.get()
        manager = self._managed(credential)
        outcome: Future[_Answer] = Future()
        end = time.monotonic() + seconds

        def run() -> None:
            try:
                outcome.set_result(self._exchange(manager, credential, address, seconds, end))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                outcome.set_exception(error)

        # A thread of its own, and a daemon: the connection's limit is for one read, and a drip of
        # bytes would never reach it.
        threading.Thread(target=run, name=f"ask {self.server}", daemon=True).start()
        try:
            return outcome.result(seconds)
        except TimeoutError as error:
            raise self._silent() from error
        except (HTTPError, OSError) as error:
            raise self._failure(error) from error
        except ValueError as error:
            raise InvalidConfiguration(
                f"{self.server}: the user {shown(self._access.context)} has something that cannot be sent"
            ) from error

    def _exchange(
        self, manager: urllib3.PoolManager, credential: Credential, address: str, seconds: float, end: float
    ) -> _Answer:
        headers = urllib3.HTTPHeaderDict(
            {
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"digestry/{__version__}",
            }
        )
        if self.server.startswith("https://"):
            if credential.authorization:
                headers.add("Authorization", credential.authorization)
            for name, value in self._access.user.impersonation:
                headers.add(name, value)
        response = manager.request(
            "GET",
            self.server + address,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=Timeout(connect=seconds, read=seconds),
        )
        try:
            body = bytearray()
            for part in response.stream(_CHUNK, decode_content=False):
                body += part
                if len(body) > self._limit:
                    raise TooLarge(
                        f"{self.server}: an answer is longer than {self._limit} bytes, and was not read",
                        limit=self._limit,
                    )
                if time.monotonic() > end:
                    raise self._silent()
        finally:
            # What is read to its end goes back to the pool; what is not must not.
            response.close()
        return _Answer(response.status, response.headers.get("Retry-After", ""), bytes(body))

    def _managed(self, credential: Credential) -> urllib3.PoolManager:
        if self._manager is None or credential is not self._shown:
            self.close()
            self._manager = self._make_manager(credential)
            self._shown = credential
        return self._manager

    def _make_manager(self, credential: Credential) -> urllib3.PoolManager:
        cluster = self._access.cluster
        options: dict[str, Any] = {"maxsize": 2}
        if cluster.server.startswith("https://"):
            options["ssl_context"] = _context(self._access, credential)
            if cluster.insecure:
                options["assert_hostname"] = False
            elif cluster.server_name:
                options["server_hostname"] = options["assert_hostname"] = cluster.server_name
        manager = self._through(cluster.proxy or _environments_proxy(cluster.server), options)
        if cluster.insecure:
            manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": _UncheckedPool}
        return manager

    def _through(self, proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
        if not proxy:
            return urllib3.PoolManager(**options)
        try:
            parts = urlsplit(proxy)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError(proxy)
            login = f"{parts.username}:{parts.password or ''}" if parts.username else None
            return urllib3.ProxyManager(
                proxy, proxy_headers=make_headers(proxy_basic_auth=login) if login else None, **options
            )
        except (ValueError, LocationParseError) as error:
            raise InvalidConfiguration(
                f"{self.server}: the proxy of that cluster cannot be used",
                hint="proxies are http://host:port or https://host:port",
            ) from error

    # -- what went wrong ----------------------------------------------------------------------

    def _silent(self) -> Unreachable:
        return Unreachable(f"{self.server} did not answer within {self._timeout:g} s")

    def _failure(self, error: BaseException) -> DigestryError:
        cause = root_cause(error)
        hint = ""
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = f"its certificate cannot be trusted ({cause.verify_message})"
            hint = "the kubeconfig's certificate-authority or tls-server-name is not that of this server"
        elif isinstance(cause, ssl.SSLError):
            reason = f"TLS failed ({cause.reason or 'it does not speak TLS'})"
        elif isinstance(cause, urllib3.exceptions.NameResolutionError):
            reason = "there is no such host"
        elif isinstance(cause, urllib3.exceptions.TimeoutError | TimeoutError):
            return self._silent()
        elif isinstance(cause, ConnectionRefusedError):
            reason = "nothing listens there (connection refused)"
        elif isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror.lower()
        else:
            reason = f"the connection broke ({type(cause).__name__})"
        return Unreachable(f"cannot reach {self.server}: {reason}", hint=hint)

    def _decode(self, path: str, what: str, answer: _Answer) -> Any:
        try:
            value = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            if 200 <= answer.status < 300:
                raise ProtocolViolation(f"{self.server}{path}: the answer is not JSON") from error
            value = None
        status = answer.status
        if 200 <= status < 300:
            return value
        said = text(fields(value).get("message"))[:_LONGEST_MESSAGE]
        tail = f": {said}" if said else ""
        if status == 401:
            raise Unauthorized(
                f"{self.server} does not accept the user of {shown(self._access.context)} (401)",
                status=status,
                hint="its token or certificate has expired, or is another cluster's: log in again",
            )
        if status == 403:
            raise Unauthorized(
                f"{self.server}{path}: this user lacks the verb {_verb(what)} (403){tail}", status=status
            )
        if status == 404:
            raise RemoteNotFound(f"{self.server}{path}: there is no such thing (404)", status=status)
        raise Refused(f"{self.server}{path}: HTTP {status}{tail}", status=status)


def _verb(what: str) -> str:
    verb, _, resource = what.partition(" ")
    return f'"{verb}" on "{resource}"'


def _wait(retry_after: str) -> float:
    seconds = int(retry_after) if retry_after.isascii() and retry_after.isdigit() else 1
    return min(float(seconds), _LONGEST_WAIT)


def _context(access: Access, credential: Credential) -> ssl.SSLContext:
    cluster = access.cluster
    try:
        authority = cluster.authority.decode("ascii") or None
        # With an authority of its own, no other may have signed the server's certificate.
        context = ssl.create_default_context(cadata=authority)
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidConfiguration(
            f"{cluster.server}: the certificate authority of that cluster is not PEM"
        ) from error
    # Newer Pythons refuse, by this flag, the authorities that many clusters have made for themselves.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if credential.certificate:
        # The ssl module reads a key from a file alone.
        with tempfile.TemporaryDirectory(prefix="digestry-") as directory:
            file = Path(directory) / "client.pem"
            file.touch(mode=0o600)
            file.write_bytes(credential.certificate + b"\n" + credential.key)
            try:
                context.load_cert_chain(file, password=lambda: "")
            except (OSError, ValueError) as error:
                raise InvalidConfiguration(
                    f"{cluster.server}: the client certificate of {shown(access.context)} cannot be used",
                    hint="certificate and key must be PEM, belong together, and have no passphrase",
                ) from error
    return context


def _environments_proxy(server: str) -> str:
    """The environment's proxy for ``server`` (HTTPS_PROXY, NO_PROXY …); empty for none."""
    parts = urlsplit(server)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or ""
    with contextlib.suppress(OSError):
        if not proxy or is_loopback(parts.netloc) or urllib.request.proxy_bypass(parts.netloc):
            return ""
    return proxy if "://" in proxy else f"http://{proxy}"
