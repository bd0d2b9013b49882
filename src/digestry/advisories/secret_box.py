"""Opening NaCl's secret boxes (XSalsa20 and Poly1305), in which cosign keeps private keys.

The cipher is in no library that digestry uses, and a key is a few hundred bytes long; so it is written out
here, for opening alone. Salsa20 is described in "The Salsa20 family of stream ciphers", its long nonces in
"Extending the Salsa20 nonce" (D. J. Bernstein).
"""

from __future__ import annotations

import struct
from typing import Final

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 24

_TAG_SIZE: Final = 16
_BLOCK: Final = 64
_CONSTANTS: Final = struct.unpack("<4I", b"expand 32-byte k")
_MASK: Final = 0xFFFFFFFF
_COLUMNS: Final = ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11))
_ROWS: Final = ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14))


def open_box(key: bytes, nonce: bytes, box: bytes) -> bytes:
    """Return what is in ``box``. Raises ``ValueError`` if the key is another one, or the box was changed."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    if len(key) != KEY_SIZE or len(nonce) != NONCE_SIZE or len(box) < _TAG_SIZE:
        raise ValueError("it is not a secret box")
    tag, hidden = box[:_TAG_SIZE], box[_TAG_SIZE:]
    stream = _stream(_long_nonce_key(key, nonce[:16]), nonce[16:], KEY_SIZE + len(hidden))
    try:
        Poly1305.verify_tag(stream[:KEY_SIZE], hidden, tag)
    except InvalidSignature as error:
        raise ValueError("the secret box cannot be opened with this key") from error
    return bytes(one ^ other for one, other in zip(hidden, stream[KEY_SIZE:], strict=True))


def _long_nonce_key(key: bytes, nonce: bytes) -> bytes:
    """Return the key for the rest of a long nonce (HSalsa20)."""
    mixed = _rounds(_state(key, struct.unpack("<4I", nonce)))
    return struct.pack("<8I", *(mixed[place] for place in (0, 5, 10, 15, 6, 7, 8, 9)))


def _stream(key: bytes, nonce: bytes, size: int) -> bytes:
    """Return the first ``size`` bytes of the key stream (Salsa20)."""
    first, second = struct.unpack("<2I", nonce)
    blocks = []
    for number in range(-(-size // _BLOCK)):
        state = _state(key, (first, second, number & _MASK, number >> 32))
        mixed = _rounds(state)
        blocks.append(
            struct.pack("<16I", *((one + other) & _MASK for one, other in zip(mixed, state, strict=True)))
        )
    return b"".join(blocks)[:size]


def _state(key: bytes, middle: tuple[int, ...]) -> list[int]:
    words = struct.unpack("<8I", key)
    one, two, three, four = _CONSTANTS
    return [one, *words[:4], two, *middle, three, *words[4:], four]


def _rounds(state: list[int]) -> list[int]:
    """Return ``state`` after the twenty rounds."""
    mixed = list(state)
    for _ in range(10):
        for places in (*_COLUMNS, *_ROWS):
            _quarter(mixed, places)
    return mixed


def _quarter(state: list[int], places: tuple[int, int, int, int]) -> None:
    a, b, c, d = places
    for target, one, other, turn in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
        total = (state[one] + state[other]) & _MASK
        state[target] ^= ((total << turn) | (total >> (32 - turn))) & _MASK
