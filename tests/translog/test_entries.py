"""Leaves of journal entries: what they say, what they hide, and how they are opened."""

from __future__ import annotations

import datetime
import hashlib

import msgspec
import pytest

from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.translog.entries import (
    Entry,
    InvalidEntry,
    Opening,
    Sealed,
    make_leaf,
    open_leaf,
    parse_leaf,
)

AT = datetime.datetime(2026, 11, 27, 2, 34, 31, 5, tzinfo=datetime.UTC)
SECRET = bytes(range(16))
EVENT = TagEvent(
    at=AT,
    repository="golftrack",
    tag="1.5",
    event="created",
    to_digest=Digest.parse("sha256:" + "a" * 64),
    media_type="application/vnd.oci.image.manifest.v1+json",
    size=123,
    actor="alice",
    address="192.0.2.7",
    client="docker/27",
    number=1,
    sequence=9,
    previous_hash="0" * 64,
    hash="b" * 64,
    reason="because",
)


def test_a_leaf_in_clear() -> None:
    leaf = make_leaf(EVENT, SECRET, sealed=False)
    rest = hashlib.sha256(bytes.fromhex(leaf.opening(8, audits=True).rest_salt) + leaf.rest).hexdigest()
    assert leaf.content.decode() == (
        '{"format":"digestry-entry/v1","repository":"golftrack","tag":"1.5","event":"created",'
        f'"toDigest":"sha256:{"a" * 64}","mediaType":"application/vnd.oci.image.manifest.v1+json","size":123,'
        f'"at":"2026-11-27T02:34:31.000005Z","number":1,"rest":"{rest}"}}'
    )
    found = parse_leaf(leaf.content)
    assert isinstance(found, Entry)
    assert found.to_digest == EVENT.to_digest
    assert found.at == AT
    for private in (b"alice", b"192.0.2.7", b"docker", b"because", b"bbbb"):
        assert private not in leaf.content
    opened = open_leaf(leaf.content, leaf.opening(8, audits=False))
    assert opened.rest is None
    audited = open_leaf(leaf.content, leaf.opening(8, audits=True))
    assert audited.rest is not None
    assert (audited.rest.actor, audited.rest.hash, audited.rest.reason) == ("alice", "b" * 64, "because")


def test_a_sealed_leaf() -> None:
    leaf = make_leaf(EVENT, SECRET, sealed=True)
    assert isinstance(parse_leaf(leaf.content), Sealed)
    assert b"golftrack" not in leaf.content
    assert len(leaf.content) == len(
        make_leaf(msgspec.structs.replace(EVENT, tag="x" * 99), SECRET, sealed=True).content
    )
    opening = leaf.opening(8, audits=False)
    opened = open_leaf(leaf.content, opening)
    assert opened.entry.repository == "golftrack"
    assert opened.rest is None
    assert b"alice" not in msgspec.json.encode(opening)
    assert open_leaf(leaf.content, leaf.opening(8, audits=True)).rest is not None


def test_the_same_values_make_the_same_bytes_and_other_secrets_others() -> None:
    assert make_leaf(EVENT, SECRET, sealed=True) == make_leaf(EVENT, SECRET, sealed=True)
    other = make_leaf(EVENT, bytes(16), sealed=True)
    assert other.content != make_leaf(EVENT, SECRET, sealed=True).content


@pytest.mark.parametrize("sealed", [False, True])
def test_an_opening_of_another_entry_is_refused(sealed: bool) -> None:
    leaf = make_leaf(EVENT, SECRET, sealed=sealed)
    moved = make_leaf(msgspec.structs.replace(EVENT, tag="1.6"), SECRET, sealed=sealed)
    with pytest.raises(InvalidEntry):
        open_leaf(leaf.content, moved.opening(8, audits=True))
    other = make_leaf(msgspec.structs.replace(EVENT, actor="mallory"), SECRET, sealed=sealed)
    right, wrong = leaf.opening(8, audits=True), other.opening(8, audits=True)
    for opening in (
        Opening(8, right.entry, right.salt, wrong.rest, right.rest_salt),
        Opening(8, right.entry, right.salt, right.rest, "00"),
        Opening(8, right.entry, right.salt, right.rest, "x"),
        Opening(8, right.entry + " ", right.salt, right.rest, right.rest_salt),
    ):
        with pytest.raises(InvalidEntry):
            open_leaf(leaf.content, opening)


def test_a_mirror_is_named_and_an_entry_that_is_too_long_is_sealed() -> None:
    observed = make_leaf(msgspec.structs.replace(EVENT, actor="mirror:docker.io"), SECRET, sealed=False)
    found = parse_leaf(observed.content)
    assert isinstance(found, Entry)
    assert found.actor == "mirror:docker.io"
    long = make_leaf(msgspec.structs.replace(EVENT, media_type="x" * 66_000), SECRET, sealed=False)
    assert long.is_sealed
    assert open_leaf(long.content, long.opening(8, audits=False)).entry.size == 123


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"format":"digestry-entry/v2"}',
        b'{"format":"digestry-entry/v1"}',
        b'{"format":"digestry-sealed/v1"}',
        b"\xff",
        b"[" * 10_000,
    ],
)
def test_a_leaf_of_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidEntry):
        parse_leaf(content)
