"""Requests to an S3 service: signed, with time limits, and repeated where that may help."""

from __future__ import annotations

import datetime
import hashlib
import random
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError

from digestry.blobs.s3 import documents
from digestry.blobs.s3.config import S3Config
from digestry.blobs.s3.credentials import Credentials, CredentialSource
from digestry.blobs.s3.failures import (
    STORE_IS_UP,
    S3Denied,
    S3Refusal,
    broken,
    refusal,
    unavailable,
    wrong_answer,
)
from digestry.blobs.s3.signature import UNSIGNED, Signer, quote_path, quote_query
from digestry.errors import InvalidConfiguration, StorageBusy, StorageError

T = TypeVar("T")
Body: TypeAlias = bytes | Sequence[bytes | memoryview]

_CONNECTIONS: Final = 32
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()


class BodyStream:
    """The body of an answer, read bit by bit."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; none at the end. Raises HTTPError and OSError if it breaks off."""
        return self._response.read(count)

    def release(self) -> None:
        """Give the connection back for the next request, once all was read."""
        self._response.release_conn()

    def close(self) -> None:
        """End the connection, unless all was read."""
        self._response.close()
        self._response.release_conn()  # a connection that was closed is opened anew


@dataclass(frozen=True, slots=True)
class Request:
    """A request about one key, or about the bucket if ``key`` is empty. ``action`` is for messages."""

    action: str
    method: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body = b""
    length: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request that succeeded."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Transport:
    """The connections of one process to an S3 service. Thread-safe. Blocks."""

    def __init__(self, config: S3Config, credentials: CredentialSource) -> None:
        self._config = config
        self._credentials = credentials
        self._signer = Signer(config.region)
        self._base = _Base(config.endpoint, config)
        self._public = _Base(config.public_endpoint or config.endpoint, config)
        try:
            self._pool = urllib3.connection_from_url(
                self._base.url,
                maxsize=_CONNECTIONS,
                retries=False,
                **({"ca_certs": config.ca_file} if config.ca_file and self._base.secure else {}),
            )
        except LocationValueError as error:
            raise InvalidConfiguration(f"{self._base.url} is not the endpoint of an S3 service") from error
        # A store is never closed: the connections are closed with their last user.
        weakref.finalize(self, self._pool.close)

    def send(self, request: Request) -> Response:
        """Send a request, again after an error that may pass, and return its whole answer.

        Raises :class:`S3Refusal`, and :class:`StorageBusy` after the store's patience.
        """
        return self._repeat(request, self._whole)

    def stream(self, request: Request) -> tuple[BodyStream, Mapping[str, str]]:
        """Send a GET, and return its body, to be read, and its headers. Raises as :meth:`send` does."""
        return self._repeat(request, self._begun)

    def _repeat(self, request: Request, attempt: Callable[[Request, Credentials, float], T]) -> T:
        deadline = time.monotonic() + self._config.patience
        pause = _FIRST_PAUSE
        while True:
            credentials = self._credentials()
            try:
                return attempt(request, credentials, deadline)
            except S3Refusal as error:
                if isinstance(error, S3Denied) and self._credentials.renewed(credentials):
                    continue
                if not error.transient:
                    raise
                problem: StorageError = error
            except StorageBusy as error:
                problem = error
            wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads repetitions, guards nothing
            if time.monotonic() + wait >= deadline:
                where, hint = self._where(request.key), problem.hint or STORE_IS_UP
                raise unavailable(request.action, where, _reason(problem), hint=hint) from problem
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _whole(self, request: Request, credentials: Credentials, deadline: float) -> Response:
        response = self._open(request, credentials, deadline)
        content = self._read(request, response)
        code, text = "", ""
        failed = response.status >= 300
        if failed or request.method in {"POST", "PUT"}:
            # S3 may answer 200 to a long completion, and say in its body that it failed; others do to a PUT.
            code, text = documents.parse_error(content)
        if failed or code:
            status = response.status if failed else 500
            raise refusal(request.action, self._where(request.key), status, code, text)
        return Response(response.status, response.headers, content)

    def _begun(
        self, request: Request, credentials: Credentials, deadline: float
    ) -> tuple[BodyStream, Mapping[str, str]]:
        response = self._open(request, credentials, deadline)
        if response.status < 300:
            return BodyStream(response), response.headers
        code, text = documents.parse_error(self._read(request, response))
        raise refusal(request.action, self._where(request.key), response.status, code, text)

    def _read(self, request: Request, response: urllib3.BaseHTTPResponse) -> bytes:
        """Read all of an answer, and give its connection back."""
        try:
            content = response.read(documents.LONGEST + 1)
        except (HTTPError, OSError) as error:
            response.close()
            raise self._broken(request, error) from error
        if len(content) > documents.LONGEST:
            response.close()
            raise wrong_answer(request.action, self._where(request.key), "the answer is too long")
        response.release_conn()
        return content

    def _open(self, request: Request, credentials: Credentials, deadline: float) -> urllib3.BaseHTTPResponse:
        path, query = self._base.path(request.key), quote_query(request.query)
        headers = self._signer.headers(
            credentials,
            f"{request.method}\n{path}\n{query}",
            request.headers,
            host=self._base.host,
            payload=UNSIGNED if request.length else _EMPTY_SHA256,
            now=datetime.datetime.now(datetime.UTC),
        )
        if request.length or request.method in {"PUT", "POST"}:
            headers["content-length"] = str(request.length)
        left = max(0.1, deadline - time.monotonic())
        timeout = urllib3.Timeout(
            connect=min(self._config.connect_timeout, left), read=min(self._config.read_timeout, left)
        )
        try:
            return self._pool.urlopen(
                request.method,
                f"{path}?{query}" if query else path,
                body=cast("Any", request.body or None),
                headers=headers,
                retries=False,
                redirect=False,
                timeout=timeout,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            raise self._broken(request, error) from error

    def presign(self, key: str, query: Mapping[str, str], seconds: int) -> str:
        """Return a URL at which anybody may GET an object for some seconds."""
        path = self._public.path(key)
        signed = self._signer.presigned_query(
            self._credentials(),
            path,
            query,
            host=self._public.host,
            seconds=seconds,
            now=datetime.datetime.now(datetime.UTC),
        )
        return f"{self._public.url}{path}?{signed}"

    def _where(self, key: str) -> str:
        return f"s3://{self._config.bucket}/{key}".rstrip("/")

    def _broken(self, request: Request, error: Exception) -> StorageBusy:
        return broken(request.action, self._where(request.key), error)


class _Base:
    """The URLs of a bucket under one endpoint."""

    def __init__(self, endpoint: str, config: S3Config) -> None:
        parts = urlsplit(endpoint)
        self.secure = parts.scheme == "https"
        default = 443 if self.secure else 80
        port = "" if parts.port in {None, default} else f":{parts.port}"
        name = parts.hostname or ""
        name = f"[{name}]" if ":" in name else name
        self.host = f"{name}{port}" if config.path_style else f"{config.bucket}.{name}{port}"
        self.url = f"{parts.scheme}://{self.host}"
        root = parts.path.rstrip("/")
        self._root = f"{root}/{config.bucket}" if config.path_style else root

    def path(self, key: str) -> str:
        """Return the quoted path of an object, or of the bucket."""
        return quote_path(f"{self._root}/{key}" if key else self._root or "/")


def _reason(problem: StorageError) -> str:
    """Return the end of a message: the service's answer, or that there was none."""
    _, _, detail = problem.message.partition(": ")
    return detail
