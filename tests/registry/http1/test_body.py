"""Bodies of requests, however the network cuts them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digestry.registry.http1.body import ChunkedBody, LengthBody
from digestry.registry.http1.head import MalformedRequest


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


def read(body: LengthBody | ChunkedBody, *pieces: bytes) -> tuple[bytes, bytes]:
    """The body, and what followed it."""
    found = after = b""
    for piece in pieces:
        part, rest = body.feed(piece) if not body.ended else (b"", piece)
        found += part
        after += rest
    return found, after


def test_a_length() -> None:
    body = LengthBody(5)
    assert body.feed(b"123") == (b"123", b"")
    assert not body.ended
    assert body.feed(b"45next") == (b"45", b"next")
    assert body.ended


@pytest.mark.long
@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.sampled_from([b"", b"X: y\r\n"]),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_chunks_cut_anywhere(chunks: list[bytes], trailers: bytes, cuts: list[int]) -> None:
    whole = chunked(*chunks, trailers=trailers) + b"next"
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(places)]
    body = ChunkedBody()
    assert read(body, *pieces) == (b"".join(chunks), b"next")
    assert body.ended


def test_sizes_may_have_extensions() -> None:
    assert read(ChunkedBody(), b'3;a="b"\r\nabc\r\n0;x\r\n\r\n') == (b"abc", b"")


@pytest.mark.parametrize(
    "content",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\na\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1" * 16 + b"\r\n",
        b"1;" + b"x" * 5000,
        b"0\r\n" + b"X: y\r\n" * 1000,
        b"1 1\r\na\r\n",
    ],
)
def test_what_is_no_chunk(content: bytes) -> None:
    for pieces in [content], [bytes([byte]) for byte in content]:
        with pytest.raises(MalformedRequest):
            read(ChunkedBody(), *pieces)
