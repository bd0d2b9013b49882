"""Protocol buffers' wire format, as far as the runtimes' APIs need it.

A message is read field by field, by number; unknown fields are skipped. Wire types are those of protobuf's
encoding: varints, eight and four fixed bytes, and counted bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from digestry.errors import ProtocolViolation

_VARINT: Final = 0
_EIGHT: Final = 1
_COUNTED: Final = 2
_FOUR: Final = 5
_LONGEST_VARINT: Final = 10
_NANO: Final = 1_000_000_000


class Message:
    """A message that was received. Fields that are not there have protobuf's defaults.

    Raises :class:`ProtocolViolation` for bytes that are no message, here and where a part is read.
    """

    __slots__ = ("_fields",)

    def __init__(self, raw: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        for number, value in _read(raw):
            self._fields.setdefault(number, []).append(value)

    def raw(self, number: int) -> bytes:
        value = self._last(number)
        return value if isinstance(value, bytes) else b""

    def text(self, number: int) -> str:
        return self.raw(number).decode(errors="replace")

    def texts(self, number: int) -> tuple[str, ...]:
        values = self._fields.get(number, ())
        return tuple(value.decode(errors="replace") for value in values if isinstance(value, bytes))

    def number(self, number: int) -> int:
        value = self._last(number)
        return value if isinstance(value, int) else 0

    def message(self, number: int) -> Message:
        return Message(self.raw(number))

    def messages(self, number: int) -> tuple[Message, ...]:
        return tuple(Message(value) for value in self._fields.get(number, ()) if isinstance(value, bytes))

    def mapping(self, number: int) -> Mapping[str, Message]:
        """Return a map from strings to messages."""
        return {entry.text(1): entry.message(2) for entry in self.messages(number)}

    def labels(self, number: int) -> Mapping[str, str]:
        """Return a map from strings to strings."""
        return {entry.text(1): entry.text(2) for entry in self.messages(number)}

    def nanoseconds(self, number: int) -> int:
        """Return a ``google.protobuf.Timestamp`` in nanoseconds since 1970; 0 if it is missing."""
        stamp = self.message(number)
        return stamp.number(1) * _NANO + stamp.number(2)

    def _last(self, number: int) -> int | bytes | None:
        values = self._fields.get(number)
        return values[-1] if values else None


def encode_string(number: int, value: str) -> bytes:
    """Encode a field that is a string."""
    return encode_nested(number, value.encode())


def encode_nested(number: int, value: bytes) -> bytes:
    """Encode a field that is a message or bytes."""
    return _varint(number << 3 | _COUNTED) + _varint(len(value)) + value


def encode_integer(number: int, value: int) -> bytes:
    """Encode a field that is a number of at least 0, a boolean or an enum."""
    return _varint(number << 3 | _VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    position = 0
    while position < len(raw):
        key, position = _read_varint(raw, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _read_varint(raw, position)
            yield number, value
            continue
        if wire == _COUNTED:
            size, position = _read_varint(raw, position)
        elif wire in {_EIGHT, _FOUR}:
            size = 8 if wire == _EIGHT else 4
        else:
            raise ProtocolViolation(f"a message of protocol buffers has the unknown wire type {wire}")
        end = position + size
        if end > len(raw):
            raise _cut_short()
        yield number, raw[position:end]
        position = end


def _read_varint(raw: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(_LONGEST_VARINT):
        if position + shift >= len(raw):
            raise _cut_short()
        byte = raw[position + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value & (1 << 64) - 1, position + shift + 1
    raise ProtocolViolation("a number in a message of protocol buffers has no end")


def _cut_short() -> ProtocolViolation:
    return ProtocolViolation("a message of protocol buffers is cut short")
