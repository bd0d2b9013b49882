"""Every form of ``Range`` that RFC 9110 has: one, several, open, from the end, and what is none."""

from __future__ import annotations

import email.parser
import email.policy
import random
import re

import pytest

from digestry.registry import ranges
from digestry.registry.error_responses import ErrorResponse
from tests.registry.support import raw_exchange, statuses
from tests.support import RegistryServer, Response

BIG = 1_500_000
"""Larger than what is read and sent at once."""


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def ask(registry: RegistryServer, content: bytes, wanted: str | None, **headers: str) -> Response:
    digest = registry.push_blob("ranges/blob", content)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if wanted is not None:
        headers["Range"] = wanted
    return registry.request("GET", f"/v2/ranges/blob/blobs/{digest}", headers=headers)


def parts_of(answer: Response) -> list[tuple[str, bytes]]:
    """``Content-Range`` and bytes of each part of a multipart/byteranges, which must be well-formed."""
    assert answer.headers["content-length"] == str(len(answer.body))
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + answer.body)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    boundary = message.get_boundary()
    assert boundary is not None
    pieces = re.split(rb"\r\n--" + boundary.encode() + rb"(?:--)?\r\n", answer.body)
    assert (pieces[0], pieces[-1]) == (b"", b"")
    found = []
    for piece in pieces[1:-1]:
        lines, _, body = piece.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in lines.decode().split("\r\n"))
        assert fields.keys() == {"Content-Type", "Content-Range"}
        assert fields["Content-Type"] == "application/octet-stream"
        found.append((fields["Content-Range"], body))
    assert len(found) == len(list(message.iter_parts()))
    return found


SINGLE = [
    ("bytes=0-0", 0, 0),
    ("bytes=0-9", 0, 9),
    ("bytes=5-", 5, -1),
    ("bytes=0-", 0, -1),
    ("bytes=-7", -7, -1),
    ("bytes=-99999999", 0, -1),
    ("bytes=-" + "9" * 5000, 0, -1),
    ("bytes=3-99999999", 3, -1),
    ("bytes=3-" + "9" * 5000, 3, -1),
    ("bytes=" + "0" * 5000 + "3-3", 3, 3),
    ("bytes=3-3", 3, 3),
    ("BYTES=1-2", 1, 2),
    ("bytes= 1 - 2", 1, 2),
    ("bytes=,, 1-2 ,", 1, 2),
    ("bytes=0-5,3-9", 0, 9),  # they overlap
    ("bytes=5-9,0-5", 0, 9),
    ("bytes=0-4,-100000000", 0, -1),
    ("bytes=2-3,99999999-", 2, 3),  # of which one is there
]


@pytest.mark.parametrize("size", [100, BIG])
@pytest.mark.parametrize(("header", "first", "last"), SINGLE)
def test_one_range(registry: RegistryServer, size: int, header: str, first: int, last: int) -> None:
    content = content_of(size)
    first, last = first % size if first < 0 else first, last % size
    answer = ask(registry, content, header)
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
    assert answer.headers["content-length"] == str(last - first + 1)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.body == content[first : last + 1]


SEVERAL = [
    ("bytes=0-1,5-6", [(0, 1), (5, 6)]),
    ("bytes=0-1, 2-3", [(0, 1), (2, 3)]),  # neighbours stay two
    ("bytes=50-60,0-9", [(50, 60), (0, 9)]),  # in the order that was asked for
    ("bytes=-5,0-0", [(-5, -1), (0, 0)]),
    ("bytes=0-3,90-,2-8", [(0, 8), (90, -1)]),
    ("bytes=1-1,99999999-,3-3,-0", [(1, 1), (3, 3)]),
    ("bytes=\t7-7\t,\t9-9", [(7, 7), (9, 9)]),
]


@pytest.mark.parametrize("size", [100, BIG])
@pytest.mark.parametrize(("header", "wanted"), SEVERAL)
def test_several_ranges(
    registry: RegistryServer, size: int, header: str, wanted: list[tuple[int, int]]
) -> None:
    content = content_of(size)
    answer = ask(registry, content, header)
    assert answer.status == 206
    assert "content-range" not in answer.headers
    assert parts_of(answer) == [
        (f"bytes {first % size}-{last % size}/{size}", content[first % size : last % size + 1])
        for first, last in wanted
    ]


@pytest.mark.parametrize("size", [0, 100, BIG])
@pytest.mark.parametrize(
    "header",
    [
        "bytes={size}-",
        "bytes={more}-",
        "bytes={more}-{most}",
        "bytes=-0",
        "bytes=50-10",
        "bytes=0-1,50-10",
        "bytes={size}-{more},{most}-",
        "bytes=1" + "0" * 30 + "-",
        "bytes=1" + "0" * 5000 + "-",
    ],
)
def test_what_is_not_there(registry: RegistryServer, size: int, header: str) -> None:
    answer = ask(registry, bytes(size), header.format(size=size, more=size + 1, most=size + 10))
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize("size", [100, BIG])
@pytest.mark.parametrize(
    "header",
    [
        "bytes=-",
        "bytes=",
        "bytes=,",
        "bytes=a-b",
        "bytes=0-1,a-b",
        "bytes=1 2-3",
        "bytes=+1-2",
        "bytes=1-2-3",
        "bytes=\u0663-\u0664",
        "chapters=1-2",
        "bytes",
        "=0-1",
        "none",
    ],
)
def test_what_is_no_range_gets_the_whole(registry: RegistryServer, size: int, header: str) -> None:
    content = content_of(size)
    digest = registry.push_blob("ranges/blob", content)
    headers = {"Range": header.encode().decode("latin-1")}
    answer = registry.request("GET", f"/v2/ranges/blob/blobs/{digest}", headers=headers)
    assert (answer.status, answer.body) == (200, content)
    assert "content-range" not in answer.headers


def test_the_end_of_nothing_is_the_whole(registry: RegistryServer) -> None:
    answer = ask(registry, b"", "bytes=-5")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("size", [10, BIG])
@pytest.mark.parametrize(
    ("condition", "holds"),
    [("{etag}", True), ('"other"', False), ("W/{etag}", False), ("Sat, 01 Jan 2028 00:00:00 GMT", False)],
)
@pytest.mark.parametrize("wanted", ["bytes=2-3", "bytes=2-2,5-5", "bytes=99999999-"])
def test_if_range(registry: RegistryServer, size: int, condition: str, holds: bool, wanted: str) -> None:
    content = content_of(size)
    etag = ask(registry, content, None).headers["etag"]
    answer = ask(registry, content, wanted, If_Range=condition.format(etag=etag))
    if not holds:  # also where the range is not there: it was not asked for
        assert (answer.status, answer.body) == (200, content)
    elif wanted == "bytes=2-3":
        assert (answer.status, answer.body) == (206, content[2:4])
    else:
        assert answer.status == (416 if "9999" in wanted else 206)


@pytest.mark.parametrize("size", [100, BIG])
def test_conditions_go_before_a_range(registry: RegistryServer, size: int) -> None:
    content = content_of(size)
    digest = registry.push_blob("ranges/blob", content)
    path, etag = f"/v2/ranges/blob/blobs/{digest}", f'"{digest}"'
    for method in ("GET", "HEAD"):
        for value in (etag, f"W/{etag}", f'"a", {etag}', "*"):
            answer = registry.request(method, path, headers={"If-None-Match": value, "Range": "bytes=0-1"})
            assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
        for value, status in ((etag, 200), (f"W/{etag}", 412), ('"a"', 412), ("*", 200)):
            answer = registry.request(method, path, headers={"If-Match": value})
            assert answer.status == status
        assert registry.request(method, path, headers={"If-None-Match": "nonsense"}).status == 200


@pytest.mark.parametrize("size", [0, 100, BIG])
@pytest.mark.parametrize("wanted", ["bytes=0-1", "bytes=0-1,4-5", "bytes=99999999-", "nonsense"])
def test_head_knows_no_range(registry: RegistryServer, size: int, wanted: str) -> None:
    digest = registry.push_blob("ranges/blob", content_of(size))
    answer = registry.request("HEAD", f"/v2/ranges/blob/blobs/{digest}", headers={"Range": wanted})
    assert (answer.status, answer.headers["content-length"]) == (200, str(size))
    assert "content-range" not in answer.headers


def test_as_many_ranges_as_the_clients_of_chunked_layers_ask_for(registry: RegistryServer) -> None:
    content = content_of(BIG)
    wanted = [(place, place + 99) for place in range(0, 1024 * 1000, 1000)]
    answer = ask(registry, content, "bytes=" + ",".join(f"{first}-{last}" for first, last in wanted))
    assert [body for _, body in parts_of(answer)] == [content[first : last + 1] for first, last in wanted]
    one_more = ",".join(f"{place}-{place}" for place in range(0, 1025 * 2, 2))
    assert ask(registry, content, f"bytes={one_more}").status == 416


@pytest.mark.parametrize("size", [1000, BIG])
def test_no_answer_has_more_than_the_whole_and_its_frames(registry: RegistryServer, size: int) -> None:
    """What is asked for a thousand times is sent once; a part costs at most 200 bytes beside its content."""
    content = content_of(size)
    for header in (
        "bytes=" + ",".join(["0-"] * 1024),
        "bytes=" + ",".join(f"{place}-" for place in range(999)),
        "bytes=" + ",".join(f"-{place}" for place in range(1, 1000)),
    ):
        answer = ask(registry, content, header)
        assert answer.status == 206
        assert len(answer.body) <= size
    tiny = "bytes=" + ",".join(f"{place}-{place}" for place in range(0, 1000, 2))
    assert len(ask(registry, content, tiny).body) <= 500 * 201


@pytest.mark.parametrize("size", [2**53 - 1, 2**53 + 1, 2**63 - 1])
def test_sizes_that_a_float_has_no_place_for(size: int) -> None:
    assert ranges.parse(f"bytes={size - 1}-", size) == [(size - 1, size - 1)]
    assert ranges.parse("bytes=-1", size) == [(size - 1, size - 1)]
    assert ranges.parse(f"bytes=0-{size}", size) == [(0, size - 1)]
    assert ranges.parse(f"bytes=0-0,{size - 2}-{size - 2}", size) == [(0, 0), (size - 2, size - 2)]
    with pytest.raises(ErrorResponse) as caught:
        ranges.parse(f"bytes={size}-", size)
    assert caught.value.headers["Content-Range"] == f"bytes */{size}"


def test_two_lines_are_no_range(registry: RegistryServer) -> None:
    digest = registry.push_blob("ranges/blob", content_of(100))
    request = f"GET /v2/ranges/blob/blobs/{digest} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    request += "Range: bytes=0-1\r\nRange: bytes=4-5\r\n\r\n"
    received = raw_exchange(registry, request.encode())
    assert statuses(received) == [200]
    assert received.endswith(content_of(100))
