"""The engine's HTTP: limits of time and size, and refusals, as errors that say what happened."""

from __future__ import annotations

import socket
from typing import Any, BinaryIO

import pytest

from digestry.errors import (
    DigestryError,
    InvalidConfiguration,
    ProtocolViolation,
    Refused,
    RemoteNotFound,
    TooLarge,
    Unauthorized,
    Unreachable,
)
from digestry.inventory.engines.client import Engine
from tests.inventory.fakes import dripping, engine, flooding


def ask(answer: Any, **options: Any) -> Any:
    with engine({"/info": answer}) as (url, _):
        return Engine(url, **options).get("/info")


def test_reads_json() -> None:
    assert ask({"status": 200, "body": {"Name": "vm"}}) == {"Name": "vm"}


@pytest.mark.parametrize(
    ("status", "kind"), [(404, RemoteNotFound), (401, Unauthorized), (403, Unauthorized), (500, Refused)]
)
def test_a_refusal_says_what_the_engine_said(status: int, kind: type[DigestryError]) -> None:
    with pytest.raises(kind, match="not for you"):
        ask({"status": status, "body": {"message": "not for you"}})


@pytest.mark.parametrize("body", [b"<html>", b"[" * 200_000, b"\xff\xfe"])
def test_what_is_not_json_is_a_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        ask({"status": 200, "raw": body})


def test_an_answer_that_ends_early_is_none() -> None:
    def cut(reply: BinaryIO) -> None:
        reply.write(b"HTTP/1.0 200 OK\r\nContent-Length: 500\r\n\r\n[]")

    with pytest.raises(ProtocolViolation, match="cut short"):
        ask(cut)


def test_an_endless_answer_is_cut() -> None:
    with pytest.raises(TooLarge, match="1000 bytes"):
        ask(flooding, largest_answer=1000)


def test_a_dripping_answer_has_an_end() -> None:
    # Every single read succeeds in time; only the whole takes too long.
    with pytest.raises(Unreachable, match=r"within 0\.3 s"):
        ask(dripping, timeout=0.3)


def test_a_silent_engine_has_an_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"within 0\.2 s"):
            Engine(url, timeout=0.2).get("/info")


def test_no_socket_and_no_listener() -> None:
    with pytest.raises(Unreachable, match="no such socket"):
        Engine("unix:///nowhere/docker.sock").get("/info")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="refused"):
        Engine(f"tcp://127.0.0.1:{port}").get("/info")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ssh://",
        "ssh://me:secret@host",
        "ssh://host/x?y",
        "ssh://-oProxyCommand=x",
        "ssh://-l@host",
        "unix://",
        "tcp://",
        "tcp://h:99999",
        "/var/run/docker.sock",
        "npipe:////./pipe/docker_engine",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InvalidConfiguration):
        Engine(url)
