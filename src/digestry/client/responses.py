"""Responses of registries: read with a limit, never trusted, turned into errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from digestry.client.http_pool import HttpResponse
from digestry.client.transport_errors import FAILURES, unreachable
from digestry.client.wait_budget import retry_after, seconds
from digestry.errors import (
    AnswerTooLong,
    InvalidDigest,
    ProtocolViolation,
    Refused,
    RemoteDamaged,
    RemoteNotFound,
    Unauthorized,
    Unreachable,
)
from digestry.model.digest import Digest, shown
from digestry.model.json_types import prepared

if TYPE_CHECKING:
    from digestry.client.encodings import Decoder

_TOO_MANY: Final = 429
ERROR_BODY: Final = 64 << 10
_LONGEST_TEXT: Final = 400
_MOST_ERRORS: Final = 3
_PAUSE: Final = 0.005  # seconds
_RAW: Final = 64 << 10  # of an encoded body, decoded at once


T = TypeVar("T")


class Response:
    """One HTTP response, its body not read yet. A context manager that gives the connection back.

    ``patience`` is how many seconds its body may take, unless it is streamed. ``remark`` is added to the
    message of an error.
    """

    def __init__(
        self,
        response: HttpResponse,
        method: str,
        url: str,
        *,
        patience: float | None = None,
    ) -> None:
        self._response = response
        self._decoder: Decoder | None = None
        self._failure: Unreachable | None = None
        self.remark = ""
        self._until = None if patience is None else time.monotonic() + patience
        self._method = method
        self.url = url
        self.status = response.status
        self.headers = response.headers
        self.registry = ""
        """The registry, as people call it, where that is not :attr:`host`."""
        self.account: str | None = None
        """The user who was logged in: None without a login, empty for a token without a name."""
        self.entries = 0
        """The number of its entries, if it is a page of a list; its reader sets it."""
        self.took = 0.0
        """Seconds that :meth:`read` took."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def length(self) -> int | None:
        """The ``Content-Length`` in bytes; None if it is missing or not a number."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None

    @property
    def encoding(self) -> str:
        """The ``Content-Encoding``, which was not requested; empty if there is none."""
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        return "" if encoding == "identity" else encoding

    def decode(self, *, of_gzip: bool = False) -> None:
        """Undo the ``Content-Encoding`` of the body; ``of_gzip`` says that the content is a gzip itself.

        Raises :class:`ProtocolViolation` for an encoding that cannot be undone.
        """
        if self.encoding and self._decoder is None:
            from digestry.client.encodings import decoder_of  # noqa: PLC0415 - few responses are encoded

            self._decoder = decoder_of(self.encoding, self.host, of_gzip=of_gzip)

    def read_some(self, count: int) -> bytes:
        """Return up to ``count`` bytes of the body, as many as come without a pause; none at its end.

        Raises :class:`Unreachable`, after all that came before was returned.
        """
        if self._failure is not None:
            raise self._failure
        parts: list[bytes] = []
        size = 0
        try:
            while size < count and (part := self.read_ready(count - size)):
                parts.append(part)
                size += len(part)
                if not self._response.is_ready(_PAUSE):
                    break  # these bytes are written, and kept if the rest never arrives
        except Unreachable as error:
            if not parts:
                raise
            self._failure = error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the bytes of the body that have arrived, and return their number; 0 at its
        end.

        Waits for the first of them only. Raises :class:`Unreachable`, after all that came before was
        returned.
        """
        if self._failure is not None:
            raise self._failure
        size = 0
        try:
            while size < len(buffer) and (count := self._fill(buffer[size:])):
                size += count
                if not self._response.is_ready(0):
                    break
        except Unreachable as error:
            if not size:
                raise
            self._failure = error
        return size

    def gather_reads(self, seconds: float) -> bool:
        """Have :meth:`read_into` fill large buffers; see :meth:`HttpResponse.gather_reads`.

        Returns False for a body that is decoded: it has other bytes than its content.
        """
        return self._decoder is None and self._response.gather_reads(seconds)

    def gather(self, count: int, seconds: float) -> None:
        """Wait until ``count`` bytes have arrived, for ``seconds`` at most; see :meth:`HttpResponse.gather`.

        Does nothing for a body that is decoded.
        """
        if self._decoder is None:
            self._response.gather(count, seconds)

    def _fill(self, buffer: memoryview) -> int:
        if self._decoder is not None:
            part = self.read_ready(len(buffer))
            buffer[: len(part)] = part
            return len(part)
        try:
            return self._response.readinto1(buffer)
        except FAILURES as error:
            raise unreachable(self.host, error) from error

    def read_ready(self, count: int) -> bytes:
        """Return the bytes of the body that have arrived, up to ``count``. Raises as
        :meth:`read_some` does.
        """
        if self._decoder is None:
            return self._read_raw(count)
        while not (part := self._decoder.take(count)):
            raw = self._read_raw(_RAW)
            if not raw:
                return self._decoder.finish(count)
            self._decoder.feed(raw)
        return part

    def _read_raw(self, count: int) -> bytes:
        try:
            return self._response.read1(count)
        except FAILURES as error:
            raise unreachable(self.host, error) from error

    def read(self, limit: int) -> bytes:
        """Return the whole body, decoded.

        Raises :class:`ProtocolViolation` if it has more than ``limit`` bytes.
        """
        if self.length is not None and self.length > limit:
            self._too_long(limit)
        self.decode()
        parts: list[bytes] = []
        size = 0
        began = time.monotonic()
        while part := self._read_soon(min(limit + 1 - size, 1 << 20)):
            parts.append(part)
            size += len(part)
            if size > limit:
                self._too_long(limit)
        self.took += time.monotonic() - began
        return b"".join(parts)

    def _read_soon(self, count: int) -> bytes:
        """Return as :meth:`read_ready` does. Raises :class:`Unreachable` after the time for the body."""
        if self._until is not None and time.monotonic() > self._until:
            raise Unreachable(f"cannot reach {self.host}: it does not answer in time")
        return self.read_ready(count)

    def _too_long(self, limit: int) -> NoReturn:
        path = urlsplit(self.url).path
        raise AnswerTooLong(f"{self.host} sent more than {limit} bytes for {path}", limit=limit)

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the body in pieces of up to ``size`` bytes. Raises :class:`Unreachable` while iterating."""
        while part := self.read_some(size):
            yield part

    def digest(self) -> Digest | None:
        """Return the ``Docker-Content-Digest``. Raises :class:`ProtocolViolation` if it is not a digest."""
        text = self.headers.get("Docker-Content-Digest")
        if text is None:
            return None
        try:
            return Digest.parse(text.strip())
        except InvalidDigest as error:
            raise ProtocolViolation(f"{self.host} sent an invalid digest: {error.message}") from error

    def json(self, kind: type[T], limit: int, *, dec_hook: Callable[[type, Any], object] | None = None) -> T:
        """Return the body as JSON of ``kind``. Raises :class:`ProtocolViolation` if it is anything else."""
        body = self.read(limit)
        try:
            return msgspec.json.decode(body, type=prepared(kind), dec_hook=dec_hook)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolViolation(
                f"{self.host} sent something that is not the JSON of {urlsplit(self.url).path}: "
                f"{escaped(str(error))}"
            ) from error

    def fail(self, action: str) -> NoReturn:
        """Raise the error for this response to an attempt to ``action``."""
        from digestry.client import refusal_hints  # noqa: PLC0415 - of use to failures only
        from digestry.client.rate_limits import stated_limit  # noqa: PLC0415

        code, text, damaged = self._reason()
        registry = self.registry or self.host
        message = f"cannot {action}: {self.host} answers {self.status}" + (f", {text}" if text else "")
        pause = retry_after(self.headers) if self.status not in {401, 403, 404} else None
        limit = stated_limit(self.headers) if self.status == _TOO_MANY else None
        if limit is not None and not limit.remaining:
            message += f"; {limit.used_up()}"
            pause = limit.reset if pause is None else pause
        if pause:
            message += f"; it asks to wait {seconds(pause)} (Retry-After)"
        if self.remark and self.status in {401, 403, 404}:
            message += f"; {self.remark}"
        if self.status in {401, 403}:
            raise Unauthorized(
                message,
                status=self.status,
                code=code,
                hint=refusal_hints.hint(
                    self.status,
                    code,
                    text,
                    registry=registry,
                    account=self.account,
                    age=self.headers.get("digestry-age"),
                ),
            )
        if self.status == 404:
            hint = (
                ""
                if damaged
                else refusal_hints.missing(self._method, code, registry=registry, account=self.account)
            )
            raise (RemoteDamaged if damaged else RemoteNotFound)(message, status=404, code=code, hint=hint)
        if 200 <= self.status < 400:
            raise ProtocolViolation(f"{message}, which is no answer to {self._method}")
        hint = ""
        if self.status == _TOO_MANY:
            hint = refusal_hints.limited(registry=registry, account=self.account)
        elif self.status >= 500:
            hint = "the registry has a problem of its own: try again later, or look at its log"
        raise Refused(message, status=self.status, code=code, hint=hint, retry_after=pause)

    def _reason(self) -> tuple[str, str, bool]:
        """Return the error code, the registry's words, escaped, and whether it has the content damaged.

        Distribution-spec, "Error Codes".
        """
        if self._method == "HEAD":
            return "", "", False
        try:
            self.decode()
            body = b"".join(self._capped(ERROR_BODY))
        except Exception:  # noqa: BLE001 - the status alone is the error; its words are a help
            return "", "", False
        try:
            document = msgspec.json.decode(body)
            errors = [error for error in document["errors"] if isinstance(error, dict)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
            words = " ".join(body.decode("utf-8", "replace").split())
            html = words[:1] == "<"
            return "", "" if html or not words else escaped(words), False
        codes = [str(error.get("code", "")) for error in errors[:_MOST_ERRORS]]
        texts = [
            ": ".join(filter(None, (code, str(error.get("message", "")))))
            for code, error in zip(codes, errors, strict=False)
        ]
        details = [error.get("detail") for error in errors]
        damaged = any(isinstance(detail, dict) and detail.get("damaged") is True for detail in details)
        return escaped(codes[0]) if codes else "", escaped("; ".join(texts)), damaged

    def _capped(self, limit: int) -> Iterator[bytes]:
        left = limit
        while left and (part := self._read_soon(left)):
            yield part
            left -= len(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back if the body has ended or has little left; else close it."""
        self._decoder = None
        try:
            if self._method != "HEAD" and self.length is not None and self.length <= ERROR_BODY:
                while self._read_soon(ERROR_BODY):
                    pass
        except Unreachable:
            pass
        finally:
            self._response.close()


def escaped(text: str) -> str:
    """Return text from outside for a message: control characters escaped, and cut when it is long."""
    cut = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in cut
    )


def digest_disagreement(host: str, stated: Digest, found: Digest) -> ProtocolViolation:
    """Return the error for a registry whose header and bytes disagree."""
    return ProtocolViolation(f"{host} says {shown(str(stated))}, but its bytes hash to {found}")
