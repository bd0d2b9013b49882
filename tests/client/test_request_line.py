"""What a person is told of each request, and what must not be in it."""

from __future__ import annotations

from digestry.client.options import ClientOptions
from digestry.client.request_line import request_line
from digestry.client.session import Session
from digestry.model.reference import Reference
from tests.support import running_registry


def test_what_may_be_a_secret_is_not_told() -> None:
    line = request_line(
        "GET",
        "https://user:pass@store.example/a/b?X-Amz-Signature=abc&X-Amz-Credential=me&n=5&last=team%2Fapp&_state=s",
        "200",
        0.0123,
    )
    assert line == (
        "GET https://store.example/a/b?X-Amz-Signature=…&X-Amz-Credential=…&n=5&last=team/app&_state=…"
        ": 200, 12 ms"
    )


def test_each_request_is_told() -> None:
    told: list[str] = []
    with running_registry() as server, Session(ClientOptions(tell_request=told.append)) as session:
        digest = server.push_image("app", "1", b"one")
        repository = session.repository(Reference.parse(f"{server.host}/app:1"))
        assert repository.resolve("1").digest == digest
    assert told[-1].startswith(f"HEAD http://{server.host}/v2/app/manifests/1: 200, ")
