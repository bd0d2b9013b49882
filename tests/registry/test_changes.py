"""What changed in a registry, for clients that keep answers."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest

from tests.registry.access.support import guarded, nobody, of
from tests.support import RegistryServer


def changes(registry: RegistryServer, token: str = "") -> dict[str, Any]:
    query = f"?since={token}" if token else ""
    answer = registry.request("GET", f"/v2/_digestry/changes{query}")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


def test_tokens_lead_from_answer_to_answer(registry: RegistryServer) -> None:
    first = changes(registry)
    assert first["everything"] is True
    registry.push_image("changes/a", "1", b"changes a")
    second = changes(registry, first["token"])
    assert "changes/a" in second["repositories"]
    assert "everything" not in second
    registry.push_image("changes/b", "1", b"changes b")
    assert "changes/b" in changes(registry, second["token"])["repositories"]
    assert {"changes/a", "changes/b"} <= set(changes(registry, first["token"])["repositories"])


@pytest.mark.parametrize("token", ["x", "1", "1-2-00000000", "A" * 42, "A" * 44, "A" * 43 + "%0A", "+" * 43])
def test_what_is_no_token_is_refused(registry: RegistryServer, token: str) -> None:
    answer = registry.request("GET", f"/v2/_digestry/changes?since={token}")
    assert answer.status == 400
    assert "token of an earlier answer" in answer.json()["errors"][0]["message"]


def test_a_token_that_was_changed_tells_nothing(registry: RegistryServer) -> None:
    token = changes(registry)["token"]
    assert "everything" not in changes(registry, token)
    for at in range(0, len(token) - 1, 3):
        other = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        assert changes(registry, other)["everything"] is True, at


def test_a_token_does_not_count_what_others_do() -> None:
    """The journal's positions count the moves in all repositories."""
    with guarded() as registry:
        admin, anybody = of(registry, "carol"), nobody(registry)
        for number in range(3):
            assert admin.push_image("secret/app", str(number), os.urandom(8)).status == 201
        entries = admin.request("GET", "/v2/secret/app/_digestry/journal?n=1").json()["entries"]
        position = entries[0]["sequence"]
        token = anybody.request("GET", "/v2/_digestry/changes").json()["token"]
        raw = base64.urlsafe_b64decode(token + "=")
        assert len(raw) == 32
        assert position.to_bytes(8, "big") not in raw
        assert str(position) not in token.split("-")


def test_a_token_of_another_user_or_another_registry_tells_nothing() -> None:
    path = "/v2/_digestry/changes"
    with guarded() as registry, guarded() as other:
        token = of(registry, "carol").request("GET", path).json()["token"]
        for asking in (of(registry, "alice"), of(other, "carol")):
            answer = asking.request("GET", f"{path}?since={token}").json()
            assert answer["everything"] is True
            assert answer["token"] != token
        assert "everything" not in of(registry, "carol").request("GET", f"{path}?since={token}").json()


def test_only_what_one_may_pull_from() -> None:
    with guarded() as registry:
        admin, anybody = of(registry, "carol"), nobody(registry)
        path = "/v2/_digestry/changes"
        before = anybody.request("GET", path).json()["token"], admin.request("GET", path).json()["token"]
        assert admin.push_image("public/app", "1", b"open").status == 201
        assert admin.push_image("secret/app", "1", b"closed").status == 201
        seen = anybody.request("GET", f"{path}?since={before[0]}").json()
        assert seen["repositories"] == ["public/app"]
        seen = admin.request("GET", f"{path}?since={before[1]}").json()
        assert seen["repositories"] == ["public/app", "secret/app"]
        # With the token of who saw less, nothing is known of the rest.
        assert admin.request("GET", f"{path}?since={before[0]}").json()["everything"] is True
