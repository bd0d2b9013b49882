"""Merkle trees as RFC 6962 defines them: hashes, roots, and proofs of inclusion and of consistency.

A tree of any size is made of whole subtrees, each of a power of two of leaves. Proofs are made from the
hashes of such subtrees, which the caller reads from wherever it keeps them (:data:`ReadHashes`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from digestry.errors import ContentError

HASH_SIZE: Final = 32
"""The length of each hash in bytes: SHA-256."""
EMPTY_ROOT: Final = hashlib.sha256().digest()
"""The root of a tree without leaves (section 2.1)."""
LARGEST_SIZE: Final = (1 << 63) - 1
MOST_PROOF_HASHES: Final = 63
"""No proof in a tree of up to :data:`LARGEST_SIZE` leaves has more hashes."""


class InvalidProof(ContentError):
    """A proof that does not show what it is to show."""


class Subtree(NamedTuple):
    """A whole subtree: ``2 ** level`` leaves, from the leaf ``position * 2 ** level`` on."""

    level: int
    position: int

    @property
    def first(self) -> int:
        """The index of its first leaf."""
        return self.position << self.level

    @property
    def end(self) -> int:
        """The index after its last leaf."""
        return (self.position + 1) << self.level


ReadHashes = Callable[[Sequence[Subtree]], Mapping[Subtree, bytes]]
"""Return the hashes of whole subtrees."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf (section 2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node with two children (section 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaf_hashes: Iterable[bytes]) -> bytes:
    """Return the root of the tree with these leaves' hashes."""
    growing = Frontier()
    for each in leaf_hashes:
        growing.append(each)
    return growing.root()


class Frontier:
    """A tree that grows leaf by leaf, as the hashes of the whole subtrees that it is made of.

    It knows the root, and none of the leaves.
    """

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Begin with a tree of ``size`` leaves, ``hashes`` being of the subtrees of :func:`subtrees_of`."""
        parts = subtrees_of(size)
        if len(parts) != len(hashes):
            raise ValueError(f"a tree of {size} leaves has {len(parts)} whole subtrees, not {len(hashes)}")
        self.size = size
        self._stack = [(part.level, each) for part, each in zip(parts, hashes, strict=True)]

    def append(self, leaf: bytes) -> None:
        """Add the hash of the next leaf."""
        level, joined = 0, leaf
        while self._stack and self._stack[-1][0] == level:
            joined = node_hash(self._stack.pop()[1], joined)
            level += 1
        self._stack.append((level, joined))
        self.size += 1

    @property
    def hashes(self) -> list[bytes]:
        """The hashes of the subtrees of :func:`subtrees_of`."""
        return [each for _, each in self._stack]

    def root(self) -> bytes:
        """Return the tree's root."""
        return _join(self.hashes)


def subtrees_of(size: int) -> list[Subtree]:
    """Return the whole subtrees that a tree is made of, the largest and first one first."""
    return _cover(0, size)


def root_from(size: int, read: ReadHashes) -> bytes:
    """Return the root of the tree of the first ``size`` leaves."""
    parts = subtrees_of(size)
    hashes = read(parts) if parts else {}
    return _join([hashes[part] for part in parts])


def inclusion_proof(index: int, size: int, read: ReadHashes) -> list[bytes]:
    """Return the audit path of the leaf ``index`` in the tree of ``size`` leaves (section 2.1.1).

    Raises ``ValueError`` unless the leaf is in the tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    return _read_ranges(_inclusion_ranges(index, size), read)


def consistency_proof(old: int, new: int, read: ReadHashes) -> list[bytes]:
    """Return the proof that the tree of ``old`` leaves is the beginning of that of ``new`` (section 2.1.2).

    It is empty if one of them is, or they are the same. Raises ``ValueError`` unless 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves is not the beginning of one of {new}")
    if old in {0, new}:
        return []
    return _read_ranges(_consistency_ranges(old, new), read)


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root that an audit path leads to from a leaf's hash. Raises :class:`InvalidProof`."""
    if not 0 <= index < size:
        raise InvalidProof(f"leaf {index} is not in a tree of {size} leaves")
    _check_hashes([leaf, *proof])
    here, last, joined = index, size - 1, leaf
    for number, other in enumerate(proof):
        if last == 0:
            raise InvalidProof(
                f"the proof for leaf {index} of {size} has {len(proof)} hashes, and {number} are enough"
            )
        if here & 1 or here == last:
            joined = node_hash(other, joined)
            while here and not here & 1:
                here >>= 1
                last >>= 1
        else:
            joined = node_hash(joined, other)
        here >>= 1
        last >>= 1
    if last:
        raise InvalidProof(f"the proof for leaf {index} of {size} has only {len(proof)} hashes")
    return joined


def verify_inclusion(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Raise :class:`InvalidProof` unless a leaf with the hash ``leaf`` is at ``index`` in the tree."""
    if root_from_inclusion(leaf, index, size, proof) != root:
        raise InvalidProof(f"leaf {index} is not in the tree of {size} leaves with the root {root.hex()}")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise :class:`InvalidProof` unless the old tree is the beginning of the new one."""
    if not 0 <= old <= new:
        raise InvalidProof(f"a tree of {old} leaves is not the beginning of one of {new}")
    _check_hashes([old_root, new_root, *proof])
    if old in {0, new}:
        if proof:
            raise InvalidProof(f"no hashes are needed from {old} to {new} leaves, and {len(proof)} are there")
        if old == new and old_root != new_root:
            raise InvalidProof(
                f"two trees of {old} leaves have the roots {old_root.hex()} and {new_root.hex()}"
            )
        if old == 0 and old_root != EMPTY_ROOT:
            raise InvalidProof("a tree without leaves has another root")
        return
    found_old, found_new = _consistency_roots(old, new, old_root, proof)
    if found_old != old_root or found_new != new_root:
        raise InvalidProof(
            f"the tree of {new} leaves with the root {new_root.hex()} does not continue that of {old} with"
            f" the root {old_root.hex()}"
        )


def _consistency_roots(old: int, new: int, old_root: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    here, last = old - 1, new - 1
    while here & 1:
        here >>= 1
        last >>= 1
    rest = list(proof)
    if here == 0:  # the old tree is a whole subtree of the new one, and in no proof
        rest.insert(0, old_root)
    if not rest:
        raise InvalidProof(f"the proof from {old} to {new} leaves has no hashes")
    found_old = found_new = rest[0]
    for other in rest[1:]:
        if last == 0:
            raise InvalidProof(f"the proof from {old} to {new} leaves has too many hashes: {len(proof)}")
        if here & 1 or here == last:
            found_old, found_new = node_hash(other, found_old), node_hash(other, found_new)
            while here and not here & 1:
                here >>= 1
                last >>= 1
        else:
            found_new = node_hash(found_new, other)
        here >>= 1
        last >>= 1
    if last:
        raise InvalidProof(f"the proof from {old} to {new} leaves has only {len(proof)} hashes")
    return found_old, found_new


def _check_hashes(hashes: Iterable[bytes]) -> None:
    for each in hashes:
        if len(each) != HASH_SIZE:
            raise InvalidProof(f"a hash has {len(each)} bytes, not {HASH_SIZE}")


_Range = tuple[int, int]
"""Leaves from the first index to the one before the second."""


def _split(size: int) -> int:
    """Return the largest power of two below ``size``, which is 2 or more."""
    return 1 << ((size - 1).bit_length() - 1)


def _inclusion_ranges(index: int, size: int) -> list[_Range]:
    ranges: list[_Range] = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((first, middle))
            first = middle
    return ranges[::-1]


def _consistency_ranges(old: int, new: int) -> list[_Range]:
    ranges: list[_Range] = []
    first, end, is_root = 0, new, True
    while old != end:
        middle = first + _split(end - first)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((first, middle))
            first, is_root = middle, False
    if not is_root:
        ranges.append((first, end))
    return ranges[::-1]


def _cover(first: int, end: int) -> list[Subtree]:
    """Return the whole subtrees that the subtree of these leaves is made of, from left to right.

    ``first`` is a multiple of the largest of them, as it is in each part of a proof.
    """
    parts = []
    while first < end:
        level = (end - first).bit_length() - 1
        parts.append(Subtree(level, first >> level))
        first += 1 << level
    return parts


def _read_ranges(ranges: Sequence[_Range], read: ReadHashes) -> list[bytes]:
    covers = [_cover(first, end) for first, end in ranges]
    hashes = read([part for cover in covers for part in cover])
    return [_join([hashes[part] for part in cover]) for cover in covers]


def _join(hashes: Sequence[bytes]) -> bytes:
    """Return the root over whole subtrees, from left to right."""
    if not hashes:
        return EMPTY_ROOT
    joined = hashes[-1]
    for each in reversed(hashes[:-1]):
        joined = node_hash(each, joined)
    return joined
