"""A verifier of signed logs that shares nothing with this project's: written from C2SP's texts alone.

It reads the resources of a log (tlog-tiles), opens its checkpoint (signed-note, tlog-checkpoint), verifies
cosignatures (tlog-cosignature), builds the whole tree anew by the recursive definition of RFC 6962, 2.1, and
makes and verifies proofs by 2.1.1 and 2.1.2.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Get = Callable[[str], bytes | None]
"""Returns a resource below the log's prefix; None if there is none."""


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def split(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << ((count - 1).bit_length() - 1)


class Tree:
    """A tree over leaves' hashes, with each subtree hashed once."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self._known: dict[tuple[int, int], bytes] = {}

    def mth(self, first: int, end: int) -> bytes:
        if end == first:
            return sha256()
        if end - first == 1:
            return self.leaves[first]
        if (first, end) not in self._known:
            middle = first + split(end - first)
            self._known[first, end] = sha256(b"\1", self.mth(first, middle), self.mth(middle, end))
        return self._known[first, end]

    def path(self, index: int, first: int, end: int) -> list[bytes]:
        """PATH(m, D[n])."""
        if end - first == 1:
            return []
        middle = first + split(end - first)
        if index < middle:
            return [*self.path(index, first, middle), self.mth(middle, end)]
        return [*self.path(index, middle, end), self.mth(first, middle)]

    def proof(self, old: int, first: int, end: int, *, whole: bool = True) -> list[bytes]:
        """SUBPROOF(m, D[n], b), where ``old`` counts from the beginning of the log."""
        if old == end:
            return [] if whole else [self.mth(first, end)]
        middle = first + split(end - first)
        if old <= middle:
            return [*self.proof(old, first, middle, whole=whole), self.mth(middle, end)]
        return [*self.proof(old, middle, end, whole=False), self.mth(first, middle)]


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Fold a path from the leaf up."""
    rest = list(path)

    def fold(index: int, size: int) -> bytes:
        if size == 1:
            return leaf
        half, last = split(size), rest.pop()
        if index < half:
            return sha256(b"\1", fold(index, half), last)
        return sha256(b"\1", last, fold(index - half, size - half))

    try:
        return fold(index, size) == root and not rest
    except IndexError:
        return False


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Fold a proof into both roots."""
    if old == 0:
        return not proof
    rest = list(proof)

    def fold(old: int, new: int, *, whole: bool) -> tuple[bytes, bytes]:
        if old == new:
            found = old_root if whole else rest.pop(0)
            return found, found
        half = split(new)
        if old <= half:
            before, after = fold(old, half, whole=whole)
            return before, sha256(b"\1", after, rest.pop(0))
        before, after = fold(old - half, new - half, whole=False)
        left = rest.pop(0)
        return sha256(b"\1", left, before), sha256(b"\1", left, after)

    try:
        return fold(old, new, whole=True) == (old_root, new_root) and not rest
    except IndexError:
        return False


@dataclass(frozen=True)
class Signed:
    """A checkpoint whose signature was verified, and the seconds of each witness's cosignature."""

    origin: str
    size: int
    root: bytes
    cosigned: dict[str, int]


def key_of(text: str) -> tuple[str, bytes, int, Ed25519PublicKey]:
    """Read a verifier key: name, ID, type and key."""
    name, identifier, encoded = text.split("+", 2)
    content = base64.b64decode(encoded, validate=True)
    assert content[0] in {1, 4}
    assert len(content) == 33
    assert sha256(name.encode(), b"\n", content)[:4].hex() == identifier
    return name, bytes.fromhex(identifier), content[0], Ed25519PublicKey.from_public_bytes(content[1:])


def opened(note: bytes, keys: Sequence[str], witnesses: Sequence[str] = ()) -> Signed:
    """Open a checkpoint that one of ``keys`` must have signed. Raises if a signature of a key is wrong."""
    assert all(byte >= 0x20 or byte == 0x0A for byte in note)
    place = note.rindex(b"\n\n") + 1
    text, lines = note[:place], note[place + 1 :].decode().split("\n")
    assert lines.pop() == ""
    origin, size, root, *more = text.decode().removesuffix("\n").split("\n")
    assert origin
    assert all(more)
    assert size == str(int(size))
    known = {found[:2]: found[2:] for found in map(key_of, (*keys, *witnesses))}
    signers, cosigned = 0, {}
    for line in lines:
        dash, name, encoded = line.split(" ")
        assert dash == "\u2014"
        content = base64.b64decode(encoded, validate=True)
        if (name, content[:4]) not in known:
            continue
        kind, key = known[name, content[:4]]
        if kind == 1:
            key.verify(content[4:], text)
            signers += 1
        else:
            (seconds,) = struct.unpack(">Q", content[4:12])
            key.verify(content[12:], f"cosignature/v1\ntime {seconds}\n".encode() + text)
            cosigned[name] = seconds
    assert signers
    content = base64.b64decode(root, validate=True)
    assert len(content) == 32
    return Signed(origin, int(size), content, cosigned)


def place_of(index: int, width: int) -> str:
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
    return path if width == 256 else f"{path}.p/{width}"


def tiles_at(count: int) -> list[tuple[str, int, int]]:
    """The tiles of a level of ``count`` hashes: path, first, end."""
    return [
        (place_of(first // 256, min(256, count - first)), first, min(first + 256, count))
        for first in range(0, count, 256)
    ]


def whole(get: Get, size: int, root: bytes) -> Tree:
    """Read each entry and each tile of a log, and compare all with the tree of the entries, and its root."""
    leaves: list[bytes] = []
    for path, first, end in tiles_at(size):
        content = get(f"tile/entries/{path}")
        assert content is not None, path
        at = 0
        while at < len(content):
            (length,) = struct.unpack(">H", content[at : at + 2])
            assert at + 2 + length <= len(content)
            leaves.append(sha256(b"\0", content[at + 2 : at + 2 + length]))
            at += 2 + length
        assert len(leaves) == end, (path, first)
    tree = Tree(leaves)
    assert tree.mth(0, size) == root
    level, span = 0, 1
    while size // span:
        for path, first, end in tiles_at(size // span):
            expected = b"".join(tree.mth(each * span, (each + 1) * span) for each in range(first, end))
            assert get(f"tile/{level}/{path}") == expected, (level, path)
        level, span = level + 1, span * 256
    assert get(f"tile/{level}/000.p/1") is None
    return tree
