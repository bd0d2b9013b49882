"""An upstream registry over HTTP: its tags, manifests, referrers, and blobs as streams.

Everything here blocks, and sends a request once: the caller decides when to repeat it, and what to serve
meanwhile. Only if the other side closed an idle connection, the request is sent again over a new one.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

from digestry.client.credentials import Credential
from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.client.responses import Response
from digestry.client.transport_errors import broke_off
from digestry.errors import (
    SPEC_CODES,
    InvalidConfiguration,
    ProtocolViolation,
    RedirectRefused,
    Refused,
    Unreachable,
)
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference
from digestry.model.tag_check import TagCheck
from digestry.upstream.deadline import begin_stream, limited
from digestry.upstream.ssrf_guard import SSRFGuard
from digestry.upstream.transport import GuardedConnection

LISTS: Final = 4
"""How many times as long as one answer a list of many pages may take."""

_CONNECT_TIMEOUT: Final = 3.0
_CONNECTIONS: Final = 32
_OK: Final = 200
_PART: Final = 206
_NO_SUCH_PART: Final = 416
_SERVER_ERROR: Final = 500
_ASK_LATER: Final = frozenset({429, 502, 503, 504})
_FINAL: Final = frozenset({_NO_SUCH_PART})
"""The headers of a storage that are about the blob itself."""
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """The location of an upstream registry (``scheme://host[:port][/path]``, with ``/v2/`` below it) and how
    to ask it.

    ``project`` goes before the names of its repositories. ``password_file`` is read whenever a password is
    wanted, so that it may change. ``authorities`` is a file of certificates (PEM) that are trusted beside
    the system's. ``timeout`` is in seconds without a byte, ``patience`` for all of an answer; a blob may
    take longer if it comes at ``least_rate`` bytes a second. ``internal`` and
    ``realms`` are those of :class:`~digestry.upstream.ssrf_guard.SSRFGuard`.
    """

    host: str
    url: str
    project: str = ""
    username: str | None = None
    password_file: Path | None = None
    authorities: Path | None = None
    timeout: float = 10.0
    patience: float = 30.0
    least_rate: int = 8 << 10
    internal: tuple[str, ...] = ()
    realms: tuple[str, ...] = ()


class _Login:
    """The one user name and password that this registry uses at the upstream."""

    def __init__(self, options: UpstreamOptions) -> None:
        self._options = options

    def problem(self, host: str) -> str:
        return ""

    def get(self, host: str, repository: str = "") -> Credential | None:
        options = self._options
        if host != options.host or options.username is None or options.password_file is None:
            return None
        try:
            password = options.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise InvalidConfiguration(f"cannot read {options.password_file}: {reason}") from error
        return Credential(options.username, password)


class BlobStream:
    """The bytes of a blob from byte ``start`` on, as they arrive. A context manager.

    ``size`` is of the whole blob, in bytes, as upstream says; None if it does not.
    """

    def __init__(self, response: Response, start: int = 0, size: int | None = None) -> None:
        self._answer = response
        self.start = start
        self.size = size if response.length is None else start + response.length

    def read(self, count: int) -> bytes:
        """Return the bytes that have arrived, up to ``count``; empty at the end. Raises
        :class:`Unreachable`.
        """
        return self._answer.read_ready(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()


class ClientUpstream:
    """An upstream registry, over the client. Thread-safe.

    Every method may raise :class:`Unreachable`, :class:`RemoteNotFound`, :class:`Unauthorized`,
    :class:`Refused` and :class:`ProtocolViolation`, and ends within ``patience``; a list within
    :data:`LISTS` times that.
    """

    def __init__(self, options: UpstreamOptions) -> None:
        self._host = options.host
        self._project = f"{options.project}/" if options.project else ""
        self._patience = options.patience
        self._least_rate = options.least_rate
        self._turn = threading.Semaphore()
        address = urlsplit(options.url)
        plain = frozenset({options.host, address.netloc}) if address.scheme == "http" else frozenset()
        client = ClientOptions(
            insecure_hosts=plain,
            timeout=options.timeout,
            connect_timeout=_CONNECT_TIMEOUT,
            retries=0,
            parallel=_CONNECTIONS // 2,
            authorities=options.authorities,
        )
        guard = SSRFGuard(options.host, options.url, options.internal, options.realms)
        self._connection = GuardedConnection(client, guard, _Login(options))
        self._connection.transport.place(options.host, options.url)

    def _repository(self, name: str) -> Repository:
        return Repository(self._connection, Reference(self._host, self._project + name))

    def _asked(self, question: Callable[[], T], *, lists: bool = False) -> T:
        """Ask, and ask again after a broken connection, or after a storage refused an address that the
        registry had given out: it may have expired."""
        total = self._patience * (LISTS if lists else 1)
        with limited(self._patience, total, self._least_rate, self._turn), self._readable():
            try:
                return self._send(question)
            except Unreachable as error:
                # The other connections of that age may have been closed as well.
                self._connection.transport.drop_idle()
                if not broke_off(error):
                    raise
            except RedirectRefused as error:
                if error.status is None or error.status in _ASK_LATER or error.status >= _SERVER_ERROR:
                    raise
            return self._send(question)

    def _send(self, question: Callable[[], T]) -> T:
        """Send a request once. Raises :class:`RedirectRefused` if another host, such as a storage, refuses:
        that does not show whether the registry has the content."""
        try:
            return question()
        except Refused as error:
            answering_host = self._connection.transport.answering_host
            if answering_host is None or error.code in SPEC_CODES or error.status in _FINAL:
                raise
            raise RedirectRefused(
                f"{self._host} redirects to {answering_host} for it: {error.message}",
                status=error.status,
                retry_after=error.retry_after,
            ) from error

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn an unforeseen error over a remote server's response into :class:`ProtocolViolation`."""
        try:
            yield
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ProtocolViolation(
                f"{self._host} sent what cannot be read ({type(error).__name__}: {error})"
            ) from error

    def resolve(self, repository: str, target: str, limit: int) -> Descriptor:
        """Return the descriptor of a tag. Uses HEAD, which Docker Hub does not count as a pull."""
        return self._asked(lambda: self._repository(repository).resolve(target, limit=limit))

    def check(self, repository: str, tag: str, etag: str, limit: int) -> TagCheck:
        """Return what upstream says about a tag now; see :func:`~digestry.client.tag_checks.check`."""
        from digestry.client import tag_checks  # noqa: PLC0415 - the server itself needs none of it

        return self._asked(
            lambda: tag_checks.check(self._repository(repository).endpoint, tag, etag, limit=limit)
        )

    def manifest(self, repository: str, target: str, limit: int) -> Manifest:
        """Return a manifest or index of at most ``limit`` bytes, verified. Raises :class:`DigestMismatch`."""
        return self._asked(lambda: self._repository(repository).pull_manifest(target, limit=limit))

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes; None if the upstream does not state it.

        A refused HEAD is repeated as a GET of one byte: some registries, and storages behind them, do not
        support HEAD.
        """

        is_empty = digest == Digest.of(b"", digest.algorithm)
        one_byte = {} if is_empty else {"Range": "bytes=0-0"}

        def ask() -> int | None:
            endpoint = self._repository(repository).endpoint
            with endpoint.request("HEAD", f"blobs/{digest}") as response:
                if response.status == _OK and (response.length or is_empty):
                    return response.length
                if response.status in _ASK_LATER:
                    response.fail(f"find blob {digest} of {repository}")
            with endpoint.request("GET", f"blobs/{digest}", headers=one_byte) as response:
                if response.status == _PART:
                    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
                    return None if match is None or match[2] == "*" else int(match[2])
                if response.status != _OK:
                    response.fail(f"find blob {digest} of {repository}")
                return response.length

        return self._asked(ask)

    def blob(self, repository: str, digest: Digest, start: int) -> BlobStream:
        """Open a blob from byte ``start`` on, or from byte 0 if the upstream knows no ranges."""
        headers = {"Range": f"bytes={start}-"} if start else {}

        def ask() -> BlobStream:
            response = self._repository(repository).endpoint.request(
                "GET", f"blobs/{digest}", headers=headers
            )
            try:
                if response.status == _PART and start:
                    stream = BlobStream(response, start, _whole_size(response, digest, start))
                elif response.status == _OK:
                    stream = BlobStream(response)
                else:
                    response.fail(f"get blob {digest} of {repository}")
                begin_stream()
            except BaseException:
                response.close()
                raise
            return stream

        return self._asked(ask)

    def tags(self, repository: str, most: int, pace: Callable[[], None] | None = None) -> list[str]:
        """Return the first ``most`` tags, in the upstream's order; ``pace`` is called before each page after
        the first."""
        tags = self._repository(repository).tags
        return self._asked(lambda: list(itertools.islice(tags(pace=pace), most)), lists=True)

    def referrers(self, repository: str, digest: Digest) -> Sequence[Descriptor]:
        """Return the referrers of ``digest``, from the referrers tag if the upstream has no such list."""
        return self._asked(lambda: self._repository(repository).referrers(digest), lists=True)

    def staleness(self, repository: str, target: str) -> str:
        """Return why the last answer about a tag, or about referrers, may be out of date, in a word of
        upstream, itself a mirror; empty if it is not, or if upstream does not say."""
        return self._repository(repository).staleness(target).partition(";")[0].strip()

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()


def _whole_size(response: Response, digest: Digest, start: int) -> int | None:
    """Return the size of the whole that a 206 answer states. Raises :class:`ProtocolViolation` for another
    part."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != start:
        raise ProtocolViolation(
            f"{response.host} was asked for {digest} from byte {start}, and sends another part"
        )
    return None if match[2] == "*" else int(match[2])
