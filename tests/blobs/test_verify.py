from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digestry.blobs.verify import Verifier, verified
from digestry.errors import DigestMismatch, SizeMismatch
from digestry.model.digest import Digest


@given(st.lists(st.binary(max_size=20)), st.sampled_from(["sha256", "sha512"]))
def test_right_bytes_pass_unchanged(chunks: list[bytes], algorithm: str) -> None:
    content = b"".join(chunks)
    digest = Digest.of(content, algorithm)
    assert b"".join(verified(chunks, digest, len(content))) == content
    assert b"".join(verified(chunks, digest)) == content


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1), st.data())
def test_no_wrong_content_is_ever_whole(chunks: list[bytes], data: st.DataObject) -> None:
    content = b"".join(chunks)
    digest = Digest.of(data.draw(st.binary().filter(lambda other: other != content)))
    got: list[bytes] = []
    with pytest.raises(DigestMismatch):
        got.extend(verified(chunks, digest))
    assert sum(map(len, got)) < len(content)


def test_an_endless_stream_is_stopped_at_the_declared_size() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 10

    got: list[bytes] = []
    with pytest.raises(SizeMismatch, match="longer than its declared 25"):
        got.extend(verified(endless(), Digest.of(b"x" * 25), 25))
    assert sum(map(len, got)) <= 25


def test_a_stream_that_ends_early() -> None:
    with pytest.raises(SizeMismatch, match="ended after 3 of its declared 5"):
        list(verified([b"abc"], Digest.of(b"abcde"), 5))


def test_a_verifier_counts_bytes_of_a_wide_view() -> None:
    verifier = Verifier(Digest.of(b"abcdefgh"), 8)
    verifier.update(memoryview(b"abcdefgh").cast("I"))
    verifier.finish()
    assert verifier.seen == 8
