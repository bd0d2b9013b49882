"""What changed in a registry, for clients that keep answers."""

from __future__ import annotations

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


@pytest.mark.parametrize("token", ["x", "1", "1-2", "1-2-xyz", "-1-2-00000000", "1-2-00000000%0A", "9" * 40])
def test_what_is_no_token_is_refused(registry: RegistryServer, token: str) -> None:
    answer = registry.request("GET", f"/v2/_digestry/changes?since={token}")
    assert answer.status == 400
    assert "token of an earlier answer" in answer.json()["errors"][0]["message"]


def test_of_another_catalog_or_another_user_everything_may_have_changed(registry: RegistryServer) -> None:
    position, at, user = changes(registry)["token"].split("-")
    assert changes(registry, f"{int(position) + 10**9}-{at}-{user}")["everything"] is True
    assert changes(registry, f"{position}-{int(at) + 10**15}-{user}")["everything"] is True
    assert changes(registry, f"{position}-{at}-0123abcd")["everything"] is True
    assert "everything" not in changes(registry, f"{position}-{at}-{user}")


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
