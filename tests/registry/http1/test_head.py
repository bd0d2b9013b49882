"""Heads of requests: what is understood, and what is refused because others may understand it differently."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from digestry.registry.http1.head import HeadParser, MalformedRequest, RequestHead


def parse(*lines: str) -> RequestHead:
    return HeadParser().parse("".join(f"{line}\r\n" for line in lines).encode("latin-1"))


def status(*lines: str) -> int:
    with pytest.raises(MalformedRequest) as caught:
        parse(*lines)
    return caught.value.status


def test_a_request() -> None:
    head = parse(
        "PUT /v2/a%2Fb/blobs/x?digest=sha256%3Aab HTTP/1.1",
        "Host: a:5000",
        "X-Empty:",
        "X-Padded: \t two words \t ",
        "Content-Length: 17",
    )
    assert head.method == "PUT"
    assert head.path == "/v2/a/b/blobs/x"
    assert head.raw_path == b"/v2/a%2Fb/blobs/x"
    assert head.query == b"digest=sha256%3Aab"
    assert head.fields == [
        (b"host", b"a:5000"),
        (b"x-empty", b""),
        (b"x-padded", b"two words"),
        (b"content-length", b"17"),
    ]
    assert (head.block.length, head.block.chunked, head.persistent) == (17, False, True)


@pytest.mark.parametrize(
    ("line", "fields", "persistent"),
    [
        ("GET / HTTP/1.1", (), True),
        ("GET / HTTP/1.1", ("Connection: Close",), False),
        ("GET / HTTP/1.1", ("Connection: x, close",), False),
        ("GET / HTTP/1.0", (), False),
        ("GET / HTTP/1.0", ("Connection: keep-alive",), True),
        ("GET / HTTP/1.0", ("Connection: keep-alive", "Connection: close"), False),
    ],
)
def test_whether_the_connection_goes_on(line: str, fields: tuple[str, ...], *, persistent: bool) -> None:
    assert parse(line, *fields).persistent == persistent


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (("GET  / HTTP/1.1",), 400),
        (("GET / HTTP/1.1 ",), 400),
        (("GET /",), 400),
        (("GET /\u00e4 HTTP/1.1",), 400),
        (("PRI * HTTP/2.0",), 505),
        (("GET / HTTP/3.0",), 505),
        (("CONNECT a:1 HTTP/1.1",), 400),
        (("GET a HTTP/1.1",), 400),
        (("GET ftp://a/ HTTP/1.1",), 400),
        (("GET http://user@a/ HTTP/1.1",), 400),
        (("G(T / HTTP/1.1",), 400),
        (("GET / HTTP/1.1", "Host : a"), 400),
        (("GET / HTTP/1.1", "Host"), 400),
        (("GET / HTTP/1.1", ": a"), 400),
        (("GET / HTTP/1.1", "X: a", " folded"), 400),
        (("GET / HTTP/1.1", "X: a\x00b"), 400),
        (("GET / HTTP/1.1", "X: a\rb"), 400),
        (("GET / HTTP/1.1", "X: a\nY: b"), 400),
        (("PUT / HTTP/1.1", "Content-Length: +1"), 400),
        (("PUT / HTTP/1.1", "Content-Length: 1, 1"), 400),
        (("PUT / HTTP/1.1", "Content-Length: 1", "Content-Length: 1"), 400),
        (("PUT / HTTP/1.1", f"Content-Length: {'1' * 19}"), 400),
        (("PUT / HTTP/1.1", "Content-Length: \u00b2"), 400),
        (("PUT / HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (("PUT / HTTP/1.1", "Transfer-Encoding: gzip, chunked"), 501),
        (("PUT / HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 501),
        (("PUT / HTTP/1.0", "Transfer-Encoding: chunked"), 400),
        (("GET / HTTP/1.1", *(f"X: {number}" for number in range(101))), 431),
    ],
)
def test_what_is_refused(lines: tuple[str, ...], answer: int) -> None:
    assert status(*lines) == answer


def test_a_url_for_a_target_names_the_host() -> None:
    head = parse("GET http://Other:80/v2/?a=b HTTP/1.1", "Host: a", "X: y")
    assert (head.path, head.query) == ("/v2/", b"a=b")
    assert head.fields == [(b"host", b"Other:80"), (b"x", b"y")]
    assert parse("GET https://other HTTP/1.1").path == "/"
    assert parse("GET https://other?a HTTP/1.1").query == b"a"


def test_the_fields_of_one_request_are_not_those_of_the_next() -> None:
    parser = HeadParser()
    one = b"GET /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    first = parser.parse(one)
    first.fields.clear()  # as an application may
    again = parser.parse(one)
    assert again.fields == [(b"host", b"a"), (b"content-length", b"1")]
    assert again.block.length == 1
    other = parser.parse(b"GET /1 HTTP/1.1\r\nHost: a\r\n")
    assert (other.fields, other.block.length) == ([(b"host", b"a")], 0)


@given(st.binary(max_size=200))
@example(b"GET / HTTP/1.1\r\nX: \xff\r\n")
def test_any_bytes_are_a_request_or_malformed(head: bytes) -> None:
    try:
        fields = HeadParser().parse(head).fields
    except MalformedRequest:
        fields = []
    assert not any(b"\n" in part or b"\r" in part for field in fields for part in field)
