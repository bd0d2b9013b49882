"""Decoding of response bodies with a ``Content-Encoding`` that was not requested (RFC 9110, 8.4)."""

from __future__ import annotations

import zlib
from typing import Final

from digestry.errors import ProtocolViolation
from digestry.model.digest import shown

_GZIP: Final = b"\x1f\x8b"
_ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS
_ENOUGH: Final = 512  # to recognise the format: a gzip's header with a name, and the bytes after it


def decoder_of(encoding: str, host: str, *, of_gzip: bool = False) -> Decoder:
    """Return a decoder of a ``Content-Encoding``; ``of_gzip`` says that the content is a gzip itself.

    Raises :class:`ProtocolViolation` for an encoding that is not known here.
    """
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise ProtocolViolation(
            f"{host} sends its answer encoded as {shown(encoding)}, which it was not asked for",
            hint="the registry, or a proxy before it, must send what it was given",
        )
    return Decoder(encoding, host, of_gzip)


class Decoder:
    """A decoder of gzip and deflate that never inflates more at once than is requested.

    A body that is labelled gzip and is none, or that is labelled encoded because it is a gzip file, is passed
    on unchanged: some servers mislabel.
    """

    def __init__(self, encoding: str, host: str, of_gzip: bool) -> None:
        self._of_gzip = of_gzip
        self._encoding = encoding
        self._host = host
        self._inflate: zlib._Decompress | None = None
        self._raw = b""
        self._began = False
        self._plain = False

    def feed(self, raw: bytes) -> None:
        """Add encoded bytes; to be called only when :meth:`take` has no more."""
        self._raw += raw

    def take(self, count: int) -> bytes:
        """Return up to ``count`` decoded bytes; none if more must be fed.

        Raises :class:`ProtocolViolation`.
        """
        if not self._began:
            if len(self._raw) < _ENOUGH:
                return b""
            self._begin()
        if self._plain:
            part, self._raw = self._raw[:count], self._raw[count:]
            return part
        while self._raw or self._inflate is not None:
            if self._inflate is None:
                self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP)  # one more member
            part = self._inflated(self._inflate, count)
            if self._inflate.eof:
                self._raw, self._inflate = self._inflate.unused_data, None
            else:
                self._raw = self._inflate.unconsumed_tail
            if part:
                return part
            if not self._raw:
                return b""
        return b""

    def finish(self, count: int) -> bytes:
        """Return as :meth:`take` does, when nothing more comes.

        Raises :class:`ProtocolViolation` if the body broke off.
        """
        if not self._began and self._raw:
            self._begin()
        part = self.take(count)
        if not part and self._inflate is not None and self._began:
            raise self._broken("it ends early")
        return part

    def _begin(self) -> None:
        self._began = True
        if self._raw.startswith(_GZIP) and self._of_gzip and not self._is_twice():
            self._plain = True
        elif self._raw.startswith(_GZIP):
            self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
        elif self._encoding == "deflate":
            is_zlib = (
                len(self._raw) > 1
                and self._raw[0] & 15 == zlib.DEFLATED
                and int.from_bytes(self._raw[:2], "big") % 31 == 0
            )
            self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP if is_zlib else -zlib.MAX_WBITS)
        else:
            self._plain = True

    def _is_twice(self) -> bool:
        try:
            return zlib.decompressobj(_ZLIB_OR_GZIP).decompress(self._raw, len(_GZIP)) == _GZIP
        except zlib.error:
            return False

    def _inflated(self, inflate: zlib._Decompress, count: int) -> bytes:
        try:
            return inflate.decompress(self._raw, count)
        except zlib.error as error:
            raise self._broken(str(error)) from error

    def _broken(self, reason: str) -> ProtocolViolation:
        return ProtocolViolation(
            f"{self._host} sends its answer encoded as {self._encoding}, which it was not asked for, and "
            f"damaged: {reason}"
        )
