"""gRPC on a unix socket: answers, refusals, and what is no gRPC at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from digestry.errors import (
    DigestryError,
    ProtocolViolation,
    Refused,
    RemoteNotFound,
    TooLarge,
    Unauthorized,
    Unreachable,
)
from digestry.inventory.engines.grpc import Channel, Unimplemented
from digestry.inventory.engines.protobuf import (
    Message,
)
from digestry.inventory.engines.protobuf import (
    encode_integer as integer,
)
from digestry.inventory.engines.protobuf import (
    encode_nested as nested,
)
from digestry.inventory.engines.protobuf import (
    encode_string as string,
)
from tests.inventory.grpc_server import Answer, Status, listening, serving

METHOD = "/some.v1.Service/Method"


def test_one_connection_serves_many_questions_and_large_answers() -> None:
    def answers(namespace: str, method: str, message: bytes) -> Answer:
        assert (namespace, method) == ("k8s.io", METHOD)
        return [message * 1_000_000]

    with serving(answers) as path:
        channel = Channel(path)
        for letter in (b"a", b"b"):
            assert channel.unary(METHOD, letter, (("containerd-namespace", "k8s.io"),)) == letter * 1_000_000
        channel.close()
        assert len(channel.unary(METHOD, b"c", (("containerd-namespace", "k8s.io"),))) == 1_000_000
        channel.close()


def test_a_stream_of_messages() -> None:
    with serving(lambda *_: [b"one", b"", b"three"]) as path:
        channel = Channel(path)
        assert list(channel.stream(METHOD)) == [b"one", b"", b"three"]
        with pytest.raises(ProtocolViolation, match="3 messages where there should be one"):
            channel.unary(METHOD)
        channel.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (5, RemoteNotFound),
        (7, Unauthorized),
        (16, Unauthorized),
        (12, Unimplemented),
        (14, Unreachable),
        (4, Unreachable),
        (2, Refused),
        (8, Refused),
    ],
)
def test_a_refusal_is_told_and_the_next_question_answered(code: int, kind: type[DigestryError]) -> None:
    answers: list[Answer] = [Status(code, "no%20way: \u00e9".encode().decode("latin-1")), [b"yes"]]
    with serving(lambda *_: answers.pop(0)) as path:
        channel = Channel(path)
        with pytest.raises(kind, match="no way"):
            channel.unary(METHOD)
        assert channel.unary(METHOD) == b"yes"
        channel.close()


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no such socket"):
        Channel(str(tmp_path / "none")).unary(METHOD)
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable, match="does not answer"):
        Channel(str(tmp_path / "file")).unary(METHOD)
    with pytest.raises(Unreachable, match="too long"):
        Channel("/" + "x" * 200).unary(METHOD)


def _says(*parts: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def each(link: socket.socket) -> None:
        link.recv(1 << 16)
        for part in parts:
            link.sendall(part)
            time.sleep(pause)

    return each


FRAME = b"\0\0\0\4\0\0\0\0\0"  # the settings that every server begins with


@pytest.mark.parametrize(
    ("each", "kind"),
    [
        (_says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), ProtocolViolation),
        (_says(b"SSH-2.0-OpenSSH_9.2\r\n" * 9), ProtocolViolation),
        (_says(b"\xff" * 4096), ProtocolViolation),
        (_says(b""), Unreachable),
        (_says(FRAME), Unreachable),
        # a farewell before anything was asked, and a stream that is given up
        (_says(FRAME + b"\0\0\x08\7\0\0\0\0\0" + bytes(8)), Unreachable),
        (_says(FRAME + b"\0\0\4\3\0\0\0\0\1\0\0\0\2"), Unreachable),
    ],
)
def test_what_is_no_answer(each: Callable[[socket.socket], None], kind: type[DigestryError]) -> None:
    with listening(each) as path, pytest.raises(kind):
        Channel(path, timeout=5).unary(METHOD)


@pytest.mark.long
def test_a_server_that_says_nothing_or_drips() -> None:
    for each in (_says(b"", pause=3), _says(*[FRAME] * 60, pause=0.05)):
        with listening(each) as path, pytest.raises(Unreachable, match=r"within 0\.4 s"):
            Channel(path, timeout=0.4).unary(METHOD)


def test_too_much() -> None:
    with (
        serving(lambda *_: [b"x" * 5000]) as path,
        pytest.raises(TooLarge, match="longer than 4000 bytes"),
    ):
        Channel(path, largest_answer=4000).unary(METHOD)


# -- protocol buffers ---------------------------------------------------------------------------


def test_messages_are_read_as_they_are_written() -> None:
    inner = string(1, "a") + string(2, "b")
    message = Message(
        string(1, "ü") + integer(2, 300) + nested(3, inner) + nested(3, inner) + integer(4, (1 << 63) - 1)
    )
    assert message.text(1) == "ü"
    assert message.number(2) == 300
    assert message.labels(3) == {"a": "b"}
    assert message.number(4) == (1 << 63) - 1
    assert (message.text(9), message.number(9), message.labels(9), message.texts(9)) == ("", 0, {}, ())
    # of another type than was expected: as if it were not there
    assert (message.number(1), message.text(2)) == (0, "")


@pytest.mark.parametrize(
    "raw", [b"\x0a", b"\x0a\x05abc", b"\x80" * 20, b"\x0b", b"\x09abc", b"\x0a" + b"\xff" * 9 + b"\x01"]
)
def test_what_is_no_message(raw: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Message(raw)
