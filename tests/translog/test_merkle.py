"""Roots and proofs, against RFC 6962's own recursive definitions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digestry.translog.merkle import (
    EMPTY_ROOT,
    Frontier,
    InvalidProof,
    Subtree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_from,
    root_of,
    subtrees_of,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(b"%d" % number) for number in range(200)]


def _split(size: int) -> int:
    half = 1
    while half * 2 < size:
        half *= 2
    return half


def _tree(leaves: Sequence[bytes]) -> bytes:
    """MTH of section 2.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    half = _split(len(leaves))
    return hashlib.sha256(b"\x01" + _tree(leaves[:half]) + _tree(leaves[half:])).digest()


def _path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(leaves) == 1:
        return []
    half = _split(len(leaves))
    if index < half:
        return [*_path(index, leaves[:half]), _tree(leaves[half:])]
    return [*_path(index - half, leaves[half:]), _tree(leaves[:half])]


def _proof(old: int, leaves: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF of section 2.1.2."""
    if old == len(leaves):
        return [] if whole else [_tree(leaves)]
    half = _split(len(leaves))
    if old <= half:
        return [*_proof(old, leaves[:half], whole=whole), _tree(leaves[half:])]
    return [*_proof(old - half, leaves[half:], whole=False), _tree(leaves[:half])]


def _read(subtrees: Sequence[Subtree]) -> dict[Subtree, bytes]:
    return {each: _tree(LEAVES[each.first : each.end]) for each in subtrees}


sizes = st.integers(0, len(LEAVES))


@given(sizes)
def test_root(size: int) -> None:
    wanted = _tree(LEAVES[:size])
    assert root_of(LEAVES[:size]) == wanted
    assert root_from(size, _read) == wanted
    parts = subtrees_of(size)
    grown = Frontier(size, [_tree(LEAVES[part.first : part.end]) for part in parts])
    assert grown.root() == wanted
    for leaf in LEAVES[size:]:
        grown.append(leaf)
    assert grown.root() == _tree(LEAVES)


def test_known_roots() -> None:
    # The tree of certificate-transparency-go's testdata: eight leaves.
    leaves = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in leaves]
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert root_of(hashes[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert root_of(hashes[:3]).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert root_of(hashes).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(st.data())
def test_inclusion(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, _read)
    assert proof == _path(index, LEAVES[:size])
    root = _tree(LEAVES[:size])
    verify_inclusion(LEAVES[index], index, size, root, proof)
    attempts: tuple[Callable[[], None], ...] = (
        (lambda: verify_inclusion(LEAVES[index - 1], index, size, root, proof)) if size > 1 else _fail,
        lambda: verify_inclusion(LEAVES[index], index, size, root[::-1], proof),
        lambda: verify_inclusion(LEAVES[index], index, size, root, [*proof, root]),
        (lambda: verify_inclusion(LEAVES[index], index, size, root, proof[:-1])) if proof else _fail,
        lambda: verify_inclusion(LEAVES[index], size, size, root, proof),
        lambda: (
            verify_inclusion(LEAVES[index], index, size, root, [b"short", *proof[1:]]) if proof else _fail()
        ),
    )
    for wrong in attempts:
        with pytest.raises(InvalidProof):
            wrong()


def _fail() -> None:
    raise InvalidProof("there is nothing to change")


@given(sizes, sizes)
def test_consistency(one: int, other: int) -> None:
    old, new = sorted((one, other))
    proof = consistency_proof(old, new, _read)
    assert proof == ([] if old in {0, new} else _proof(old, LEAVES[:new]))
    before, after = _tree(LEAVES[:old]), _tree(LEAVES[:new])
    verify_consistency(old, before, new, after, proof)
    assert len(proof) <= 63
    forked = _tree([*LEAVES[: old - 1], leaf_hash(b"other")]) if old else b"\0" * 32
    attempts: tuple[Callable[[], None], ...] = (
        lambda: verify_consistency(old, forked, new, after, proof),
        lambda: verify_consistency(old, before, new, after, [*proof, after]),
        (lambda: verify_consistency(old, before, new, after[::-1], proof)) if old else _fail,
        (lambda: verify_consistency(old, before, new, after, proof[:-1])) if proof else _fail,
        lambda: verify_consistency(new + 1, before, new, after, proof),
    )
    for wrong in attempts:
        with pytest.raises(InvalidProof):
            wrong()


@pytest.mark.long
@given(st.data())
def test_a_proof_with_one_changed_bit_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(3, len(LEAVES)))
    old = data.draw(st.integers(1, new - 1))
    proof = consistency_proof(old, new, _read)
    place = data.draw(st.integers(0, len(proof) - 1))
    proof[place] = bytes([proof[place][0] ^ 1]) + proof[place][1:]
    with pytest.raises(InvalidProof):
        verify_consistency(old, _tree(LEAVES[:old]), new, _tree(LEAVES[:new]), proof)
