"""The head of an HTTP/1 request: its line and its fields, which are read strictly (RFC 9112)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

Fields = list[tuple[bytes, bytes]]

LONGEST: Final = 480 << 10
"""The most bytes of a head."""
MOST_FIELDS: Final = 100

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.([01])\r\n")
_OTHER_VERSION: Final = re.compile(_TOKEN + rb" [!-~]+ HTTP/(?!1\.[01]\r)[0-9](?:\.[0-9])?\r\n")
_BEGINNING: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*(?: [ -~]*)?(?:\r(?:\n|\Z)|\Z)")
_VALUE: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_FIELDS: Final = re.compile(rb"(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*")
_FIELD: Final = re.compile(rb"([^:]+):[ \t]*(" + _VALUE + rb")\r\n")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#@]+)((?:[/?].*)?)", re.IGNORECASE)
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"connection", b"expect"))
_LONGEST_LENGTH: Final = 18


class MalformedRequest(Exception):
    """Bytes that are no HTTP/1 request, or one that cannot be served. ``status`` is that of the answer."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def may_begin_request(data: bytes | bytearray) -> bool:
    """Return whether ``data`` can be the beginning of a request, such as a TLS greeting cannot."""
    return _BEGINNING.match(data) is not None


class FieldBlock(NamedTuple):
    """The fields of a head, their names in lower case, and what they state about the message itself.

    ``length`` is that of the body in bytes; None of a ``chunked`` body. ``close`` and ``keep_alive`` are the
    options of ``Connection``.
    """

    fields: Fields
    length: int | None = 0
    chunked: bool = False
    close: bool = False
    keep_alive: bool = False
    expects_continue: bool = False


class RequestHead(NamedTuple):
    """A request without its body. ``path`` is decoded, ``raw_path`` and ``query`` are as they came.

    ``fields`` is the request's own list; ``block`` may be of several requests.
    """

    method: str
    path: str
    raw_path: bytes
    query: bytes
    version: str
    fields: Fields
    block: FieldBlock

    @property
    def persistent(self) -> bool:
        """Whether the client wants to go on with the connection (RFC 9112, section 9.3)."""
        if self.block.close:
            return False
        return self.version == "1.1" or self.block.keep_alive


class HeadParser:
    """A parser of the heads that arrive on one connection.

    Clients send the same fields repeatedly: fields that equal those of the last head are not parsed again.
    """

    __slots__ = ("_block", "_text")

    def __init__(self) -> None:
        self._text: bytes | None = None
        self._block = FieldBlock([])

    def parse(self, head: bytes) -> RequestHead:
        """Return the request of ``head``: its lines, without the empty one that ends it.

        Raises :class:`MalformedRequest`.
        """
        line = _LINE.match(head)
        if line is None:
            if _OTHER_VERSION.match(head):
                raise MalformedRequest("another version of HTTP", status=505)
            raise MalformedRequest("no request line")
        method, target, minor = line.groups()
        text = head[line.end() :]
        if text != self._text:
            self._block = parse_fields(text)
            self._text = text
        block = self._block
        fields = list(block.fields)  # the application may change them
        if target[:1] != b"/":
            target, fields = _without_host(method, target, fields)
        if block.chunked and minor == b"0":
            raise MalformedRequest("HTTP/1.0 has no chunks")
        raw, _, query = target.partition(b"?")
        path = raw.decode("ascii")
        if "%" in path:
            path = unquote(path)
        version = "1.1" if minor == b"1" else "1.0"
        return RequestHead(method.decode("ascii"), path, raw, query, version, fields, block)


def parse_fields(text: bytes) -> FieldBlock:
    """Return the fields in ``text``: lines that each end in CRLF. Raises :class:`MalformedRequest`."""
    if _FIELDS.fullmatch(text) is None:
        raise MalformedRequest("a line that is no field")
    fields = [(name.lower(), value.rstrip(b" \t")) for name, value in _FIELD.findall(text)]
    if len(fields) > MOST_FIELDS:
        raise MalformedRequest("too many fields", status=431)
    block = FieldBlock(fields)
    if _FRAMING.isdisjoint(name for name, _ in fields):
        return block
    return _framed(block)


def _framed(block: FieldBlock) -> FieldBlock:
    values: dict[bytes, list[bytes]] = {name: [] for name in _FRAMING}
    for name, value in block.fields:
        if name in _FRAMING:
            values[name].append(value.lower())
    lengths, codings = values[b"content-length"], values[b"transfer-encoding"]
    options = {option.strip(b" \t") for value in values[b"connection"] for option in value.split(b",")}
    if codings:
        if codings != [b"chunked"]:
            raise MalformedRequest("a transfer coding other than chunked", status=501)
        if lengths:
            # A proxy between the client and this server may have used the other length (RFC 9112, section
            # 6.3).
            raise MalformedRequest("both a length and chunks")
    elif len(lengths) > 1 or any(not length.isdigit() or len(length) > _LONGEST_LENGTH for length in lengths):
        raise MalformedRequest("a length that is not one number")
    return block._replace(
        length=None if codings else int(lengths[0]) if lengths else 0,
        chunked=bool(codings),
        close=b"close" in options,
        keep_alive=b"keep-alive" in options,
        expects_continue=b"100-continue" in values[b"expect"],
    )


def _without_host(method: bytes, target: bytes, fields: Fields) -> tuple[bytes, Fields]:
    """Return a target that is not a path as one, and the fields with the host that it names."""
    if target == b"*" and method == b"OPTIONS":
        return target, fields
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise MalformedRequest("a target that is neither a path nor a URL")
    host, rest = absolute.groups()
    others = [field for field in fields if field[0] != b"host"]
    return rest if rest[:1] == b"/" else b"/" + rest, [(b"host", host), *others]
