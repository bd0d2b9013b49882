from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import ProtocolViolation, Unauthorized
from digestry.model.digest import Digest
from tests.client.liar import Liar, Reply
from tests.registry.access.support import PASSWORDS, guarded, of

DIGEST = Digest.of(b"whose")


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_a_registry_that_tells_everybody_something(tmp_path: Path, scheme: str) -> None:
    with guarded(auth=f'challenge = "{scheme}"') as server:
        for name in ("team/app", "public/base", "secret/x"):
            assert of(server, "carol").push_image(name, "t").status == 201
        head = of(server, "carol").request("HEAD", "/v2/public/base/manifests/t")
        digest = Digest.parse(head.headers["docker-content-digest"])

        def seen(directory: Path) -> list[str]:
            with Session(ClientOptions(docker_config=directory)) as session:
                spans = session.registry(server.host).tags_for_digest(digest)
            assert spans is not None
            return [span.repository for span in spans]

        pair = base64.b64encode(f"alice:{PASSWORDS['alice']}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": pair}}}))
        # The registry would answer without a login, too.
        assert seen(tmp_path) == ["public/base", "team/app"]
        assert seen(tmp_path / "nobody") == ["public/base"]
        wrong = base64.b64encode(b"alice:wrong").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": wrong}}}))
        with pytest.raises(Unauthorized):
            seen(tmp_path)


def _spans(sequences: range) -> bytes:
    spans: list[dict[str, Any]] = [
        {
            "tag": "t",
            "digest": str(DIGEST),
            "since": f"2026-11-21T00:00:00.{sequence:06}Z",
            "still": False,
            "repository": "app",
            "sequence": sequence,
        }
        for sequence in sequences
    ]
    return json.dumps({"digest": str(DIGEST), "spans": spans}).encode()


def test_pages(liar: Liar, session: Session) -> None:
    first, second = Reply(200, _spans(range(1010, 10, -1))), Reply(200, _spans(range(10, 0, -1)))
    end = ["2026-11-21T00:00:00.000011Z"]
    liar.answer = lambda request: second if request.query.get("before") == end else first
    spans = session.registry(liar.host).tags_for_digest(DIGEST)
    assert spans is not None
    assert [span.sequence for span in spans] == list(range(1010, 0, -1))


def test_a_list_that_never_ends(liar: Liar, session: Session) -> None:
    liar.answer = lambda _: Reply(200, _spans(range(1000, 0, -1)))
    with pytest.raises(ProtocolViolation, match="not in order"):
        session.registry(liar.host).tags_for_digest(DIGEST)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_registry_that_cannot_tell(liar: Liar, session: Session, status: int) -> None:
    liar.answer = lambda _: Reply(status, b"{}")
    assert session.registry(liar.host).tags_for_digest(DIGEST) is None
