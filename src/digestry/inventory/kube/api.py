"""Requests to a Kubernetes API server: lists in pages, and watches, within time limits.

Sources send nothing but GET; :meth:`KubeAPI.send` is for who owns what it changes. No redirect is followed.
Credentials are never sent without TLS.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol, TypeVar
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

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
from digestry.inventory.engines.client import TIMEOUT
from digestry.inventory.kube.config import Access
from digestry.inventory.kube.connections import manager_for
from digestry.inventory.kube.credentials import Credential, Credentials
from digestry.inventory.kube.failures import root_cause
from digestry.inventory.kube.watch import Change, Ended, Failure, Stream, changes
from digestry.model.digest import shown
from digestry.model.json_values import as_list, as_object, as_text
from digestry.version import __version__

PAGE: Final = 500
"""Objects that are requested at a time."""
MOST_PAGES: Final = 1000
"""Pages of one list: half a million objects."""
LARGEST_PAGE: Final = 64 << 20
"""In bytes. A pod takes some 10 KB; it cannot take more than the 1.5 MB that etcd takes."""
DEADLINE: Final = 270.0
"""Seconds for everything that one source asks."""

OK: Final = 200
CREATED: Final = 201
GONE: Final = 410
"""The status for expired data: a list's next page, or a version to watch from."""

_LONGEST_MESSAGE: Final = 400
_BUSY: Final = frozenset({429, 503})
_TRIES: Final = 3
_LONGEST_WAIT: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Body:
    method: str
    content: bytes
    media_type: str


class _Answered(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def retry_after(self) -> str: ...


_T = TypeVar("_T", bound=_Answered)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list. ``version`` is that of the whole list, if the server gave one; ``remaining``
    are the objects on the pages after it, None if the server does not say."""

    objects: list[object]
    version: str
    following: str
    remaining: int | None


class KubeAPI:
    """The API server of ``access``. ``timeout`` is for one answer, ``deadline`` for all, in seconds.

    Several threads may ask at once.
    """

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
        self._lock = threading.Lock()

    @property
    def server(self) -> str:
        """The address, as the kubeconfig has it."""
        return self._access.cluster.server

    def close(self) -> None:
        """Close all connections."""
        if self._manager is not None:
            self._manager.clear()

    def prepare(self) -> None:
        """Get the credentials and the certificates before the first request; the deadline begins after that.

        Raises the errors of the credentials, and :class:`InvalidConfiguration`.
        """
        self._managed()
        self._end = time.monotonic() + self._deadline

    def get(self, path: str, what: str, **query: str) -> object:
        """Return the decoded JSON at ``path``; ``what`` names the request in the words of RBAC.

        Raises :class:`Unreachable`, :class:`Refused` and its kinds, :class:`TooLarge`,
        :class:`ProtocolViolation`, and the errors of the credentials.
        """
        address = path + (f"?{urlencode(query)}" if query else "")
        return self._decode(path, what, self._patiently(lambda: self._ask(address)))

    def send(self, method: str, path: str, what: str, document: object, media_type: str) -> object:
        """Create or change what is at ``path`` with a JSON ``document``, and return what it is then.

        Raises as :meth:`get` does; :class:`Refused` with 409 if somebody else has created or changed it.
        """
        body = _Body(method, json.dumps(document).encode(), media_type)
        return self._decode(path, what, self._patiently(lambda: self._ask(path, body)))

    def pages(self, path: str, what: str, **query: str) -> Iterator[list[object]]:
        """Yield the objects of the list at ``path``, a page at a time. Raises as :meth:`get` does.

        A list that expired while it was read (410) is begun again, once: then objects are yielded twice.
        """
        for attempt in (1, 2):
            try:
                for page in self._pages(path, what, query):
                    yield page.objects
            except Refused as error:
                if error.status != GONE or attempt == 2:
                    raise
            else:
                return

    def whole(self, path: str, what: str, **query: str) -> tuple[list[object], str]:
        """Return all objects of the list at ``path`` at one moment, and the version of that moment.

        The version is empty if the server gave none. Raises as :meth:`get` does.
        """
        for attempt in (1, 2):
            try:
                pages = list(self._pages(path, what, query))
            except Refused as error:
                if error.status != GONE or attempt == 2:
                    raise
            else:
                break
        versions = {page.version for page in pages}
        return [item for page in pages for item in page.objects], versions.pop() if len(versions) == 1 else ""

    def page(self, path: str, what: str, query: dict[str, str], *, limit: int | None = None) -> Page:
        """Return one page of the list at ``path``. Raises as :meth:`get` does."""
        document = self.get(path, what, limit=str(limit or PAGE), **query)
        if not isinstance(document, dict) or not isinstance(document.get("items", 0), list | None):
            raise ProtocolViolation(
                f"{self.server}{path}: the answer is not a list of {what.partition(' ')[2]}"
            )
        metadata = as_object(document.get("metadata"))
        following, remaining = metadata.get("continue") or "", metadata.get("remainingItemCount")
        if not isinstance(following, str):
            raise ProtocolViolation(f"{self.server}{path}: the list does not say how it continues")
        if not isinstance(remaining, int) or isinstance(remaining, bool):
            remaining = None
        if remaining and not following:
            raise ProtocolViolation(f"{self.server}{path}: the list has more, and does not say where")
        return Page(
            as_list(document.get("items")), as_text(metadata.get("resourceVersion")), following, remaining
        )

    def watch(
        self, path: str, what: str, *, kind: str, version: str, seconds: int, **query: str
    ) -> Iterator[Change]:
        """Yield the changes since ``version`` in the list at ``path``, of objects of ``kind``.

        The server ends the watch after some ``seconds``. Raises as :meth:`get` does: :class:`Refused` with
        410 if that version has expired, and :class:`Unreachable` if the watch broke off or fell silent.
        """
        query |= {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
        address = f"{path}?{urlencode({**query, 'timeoutSeconds': str(seconds)})}"
        stream: Stream | None = None
        try:
            stream = self._patiently(lambda: self._open(address, seconds + self._timeout))
            if stream.status != OK:
                self._decode(path, what, _Answer(stream.status, stream.retry_after, stream.body()))
            for change in changes(stream.lines(), self.server + path, kind):
                if isinstance(change, Failure):
                    raise self._refusal(path, what, change.status, change.message)
                yield change
        except Ended as error:
            raise Unreachable(f"{self.server}{path}: the watch broke off") from error
        except (HTTPError, OSError, ValueError) as error:
            if isinstance(root_cause(error), TimeoutError | urllib3.exceptions.TimeoutError):
                raise Unreachable(
                    f"{self.server}{path}: the watch was to end after {seconds} s, and fell silent"
                ) from error
            raise self._failure(error) from error
        finally:
            if stream is not None:
                stream.close()

    def _pages(self, path: str, what: str, query: dict[str, str]) -> Iterator[Page]:
        token = ""
        seen: set[str] = set()
        for _ in range(self._most_pages):
            page = self.page(path, what, query | ({"continue": token} if token else {}))
            yield page
            token = page.following
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

    def _patiently(self, ask: Callable[[], _T]) -> _T:
        """Return the answer of ``ask``, called again with a newer credential, or if the server is busy."""
        answer = ask()
        if answer.status == HTTPStatus.UNAUTHORIZED and self._credentials.renew():
            answer = ask()
        for _ in range(_TRIES - 1):
            if answer.status not in _BUSY:
                break
            time.sleep(min(_wait(answer.retry_after), max(0.0, self._end - time.monotonic())))
            answer = ask()
        return answer

    def _ask(self, address: str, body: _Body | None = None) -> _Answer:
        """Return the whole answer at ``address``, always within the time limit."""
        stream = self._open(address, self._timeout, body)
        try:
            return _Answer(stream.status, stream.retry_after, stream.body())
        except (HTTPError, OSError, ValueError) as error:
            raise self._failure(error) from error
        finally:
            stream.close()

    def _open(self, address: str, seconds: float, body: _Body | None = None) -> Stream:
        """Send one question, whose answer may take ``seconds``."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Unreachable(f"{self.server}: not everything was said within {self._deadline:g} s")
        seconds = min(seconds, left)
        # A plugin may take its own time, and is not the server's fault.
        manager, credential = self._managed()
        headers = self._headers(credential)
        if body is not None:
            headers.add("Content-Type", body.media_type)
        return Stream(
            lambda: manager.request(
                "GET" if body is None else body.method,
                self.server + address,
                body=None if body is None else body.content,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=Timeout(connect=min(seconds, self._timeout), read=seconds),
            ),
            where=self.server,
            seconds=seconds,
            limit=self._limit,
        )

    def _headers(self, credential: Credential) -> urllib3.HTTPHeaderDict:
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
        return headers

    def _managed(self) -> tuple[urllib3.PoolManager, Credential]:
        with self._lock:
            credential = self._credentials.get()
            if self._manager is None or credential is not self._shown:
                self.close()
                self._manager = manager_for(self._access, credential)
                self._shown = credential
            return self._manager, credential

    # -- errors ----------------------------------------------------------------------

    def _failure(self, error: BaseException) -> DigestryError:
        cause = root_cause(error)
        hint = ""
        if isinstance(error, ValueError) and not isinstance(error, HTTPError | OSError):
            return InvalidConfiguration(
                f"{self.server}: the user {shown(self._access.context)} has something that cannot be sent"
            )
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = f"its certificate cannot be trusted ({cause.verify_message})"
            hint = "the kubeconfig's certificate-authority or tls-server-name is not that of this server"
        elif isinstance(cause, ssl.SSLError):
            reason = f"TLS failed ({cause.reason or 'it does not speak TLS'})"
        elif isinstance(cause, urllib3.exceptions.NameResolutionError):
            reason = "there is no such host"
        elif isinstance(cause, urllib3.exceptions.TimeoutError | TimeoutError):
            return Unreachable(f"{self.server} did not answer within {self._timeout:g} s")
        elif isinstance(cause, ConnectionRefusedError):
            reason = "nothing listens there (connection refused)"
        elif isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror.lower()
        else:
            reason = f"the connection broke ({type(cause).__name__})"
        return Unreachable(f"cannot reach {self.server}: {reason}", hint=hint)

    def _decode(self, path: str, what: str, answer: _Answer) -> object:
        try:
            value = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            if answer.status in {OK, CREATED}:
                raise ProtocolViolation(f"{self.server}{path}: the answer is not JSON") from error
            value = None
        if answer.status in {OK, CREATED}:
            return value
        raise self._refusal(path, what, answer.status, as_text(as_object(value).get("message")))

    def _refusal(self, path: str, what: str, status: int, message: str) -> Refused:
        tail = f": {message[:_LONGEST_MESSAGE]}" if message else ""
        if status == HTTPStatus.UNAUTHORIZED:
            return Unauthorized(
                f"{self.server} does not accept the user of {shown(self._access.context)} (401)",
                status=status,
                hint="its token or certificate has expired, or is another cluster's: log in again",
            )
        if status == HTTPStatus.FORBIDDEN:
            return Unauthorized(
                f"{self.server}{path}: this user lacks the verb {_verb(what)} (403){tail}", status=status
            )
        if status == HTTPStatus.NOT_FOUND:
            return RemoteNotFound(f"{self.server}{path}: it does not exist (404)", status=status)
        return Refused(f"{self.server}{path}: HTTP {status}{tail}", status=status)


def _verb(what: str) -> str:
    verb, _, resource = what.partition(" ")
    return f'"{verb}" on "{resource}"'


def _wait(retry_after: str) -> float:
    seconds = int(retry_after) if retry_after.isascii() and retry_after.isdigit() else 1
    return min(float(seconds), _LONGEST_WAIT)
