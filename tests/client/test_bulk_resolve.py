"""Many questions at once: asked of a registry that offers it, and believed only so far."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import ProtocolViolation, Refused, Unauthorized
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.model.resolution import LARGEST_REQUEST, MOST_QUERIES, MOST_THINGS, ResolveQuery, batch
from digestry.model.sightings import SightingReport
from tests.client.liar import Liar, Reply, Request
from tests.registry.access.support import PASSWORDS, guarded, of
from tests.support import RegistryServer

OFFER = {"extensions": [{"name": "_digestry", "endpoints": ["_digestry/resolve"]}]}
QUERY = ResolveQuery("team/app", tags=("t",))


def offering(answer: Callable[[Request], Reply], offer: Any = OFFER) -> Callable[[Request], Reply]:
    def reply(request: Request) -> Reply:
        if request.path.endswith("/_oci/ext/discover"):
            return Reply(200, offer if isinstance(offer, bytes) else json.dumps(offer).encode())
        return answer(request)

    return reply


def saying(value: Any) -> Callable[[Request], Reply]:
    return lambda _: Reply(200, json.dumps(value).encode())


def test_a_real_registry(registry: RegistryServer, session: Session) -> None:
    image = registry.push_image("bulk/app", "t", os.urandom(10))
    queries = [ResolveQuery("bulk/app", (image,), ("t",)), ResolveQuery("bulk/never", (image,))]
    found = session.resolve_many(registry.host, queries, contents=True)
    assert found is not None
    known, never = found.resolutions
    assert known.holders[str(image)] == (image,)
    assert known.tags[0].target is not None
    assert known.tags[0].target.digest == image
    assert never.holders == {str(image): ()}


def test_as_many_as_one_request_takes(registry: RegistryServer, session: Session) -> None:
    queries = [ResolveQuery(f"bulk/r{number}", tags=("t",)) for number in range(MOST_QUERIES + 10)]
    found = session.resolve_many(registry.host, queries)
    assert found is not None
    assert len(found.resolutions) == MOST_QUERIES


def test_batches_fit_into_a_request() -> None:
    digests = tuple(Digest.of(str(number).encode(), "sha512") for number in range(1500))
    assert batch([ResolveQuery("a", digests)] * 3) == 2
    assert batch([ResolveQuery("a", tags=("t",) * (MOST_THINGS * 2))] * 2) == 1
    assert batch([ResolveQuery("x" * 255, tags=("t" * 128,) * 10)] * MOST_QUERIES) * 1600 < LARGEST_REQUEST
    assert batch([]) == 0


@pytest.mark.parametrize(
    "offer",
    [b"", b"[]", b"\xff", b'{"extensions": null}', b'{"extensions": [{"name": "_oci", "endpoints": null}]}'],
)
def test_who_does_not_offer_it_is_not_sent_what_runs(liar: Liar, session: Session, offer: bytes) -> None:
    liar.answer = offering(saying({}), offer)
    for _ in range(2):
        assert session.resolve_many(liar.host, [QUERY]) is None
    assert liar.paths() == ["GET /v2/_oci/ext/discover"]


def test_another_registry(docker_registry: str, session: Session) -> None:
    assert session.resolve_many(docker_registry, [QUERY]) is None


@pytest.mark.parametrize("offer", [Reply(404, b"{}"), Reply(403, b"{}"), Reply(200, b'{"extensions": []}')])
def test_who_has_no_extension_is_asked_for_none(liar: Liar, session: Session, offer: Reply) -> None:
    liar.answer = lambda _: offer
    repository = session.repository(Reference(liar.host, "team/app"))
    digest = Digest.of(b"x")
    assert session.resolve_many(liar.host, [QUERY]) is None
    for _ in range(2):
        assert repository.holders(digest) is None
        assert repository.tags_for_digest(digest) is None
        assert repository.sightings(digest) is None
    assert session.record_sightings(liar.host, [SightingReport("team/app", digest, "n1", 1)]) is None
    assert liar.paths() == ["GET /v2/_oci/ext/discover"]


@pytest.mark.parametrize("status", [401, 429, 500])
def test_who_does_not_tell_what_it_has_is_asked(session: Session, liar: Liar, status: int) -> None:
    digest = Digest.of(b"x")
    found = json.dumps({"digest": str(digest), "holders": []}).encode()
    liar.answer = lambda request: Reply(200, found) if "/holders/" in request.path else Reply(status, b"{}")
    assert session.resolve_many(liar.host, [QUERY]) is None
    known = session.repository(Reference(liar.host, "team/app")).holders(digest)
    assert known is not None
    assert known.holders == ()


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 501])
def test_a_refusal_is_not_asked_for_twice(liar: Liar, session: Session, status: int) -> None:
    liar.answer = offering(lambda _: Reply(status, b"{}"))
    for _ in range(2):
        assert session.resolve_many(liar.host, [QUERY]) is None
    assert len(liar.seen) == 2


def test_an_error_is_one(liar: Liar, session: Session) -> None:
    liar.answer = offering(lambda _: Reply(500, b"{}"))
    with pytest.raises(Refused):
        session.resolve_many(liar.host, [QUERY])


@pytest.mark.parametrize(
    "answer",
    [
        [], {}, {"resolutions": []}, {"resolutions": [{"repository": "team/other"}]},
        {"resolutions": [{"repository": "team/app"}] * 2},
        {"resolutions": [{"repository": "team/app", "holders": {"x": ["y"]}}]},
        {"resolutions": [{"repository": "team/app"}], "contents": {str(Digest.of(b"a")): "b"}},
        {"resolutions": [{"repository": "team/app"}], "contents": {"x": "x"}},
    ],
)  # fmt: skip
def test_what_was_not_asked_is_not_believed(liar: Liar, session: Session, answer: Any) -> None:
    liar.answer = offering(saying(answer))
    with pytest.raises(ProtocolViolation):
        session.resolve_many(liar.host, [QUERY], contents=True)


def test_an_endless_answer(liar: Liar, session: Session) -> None:
    liar.answer = offering(lambda _: Reply(endless=True))
    with pytest.raises(ProtocolViolation):
        session.resolve_many(liar.host, [QUERY])


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_a_registry_with_users(tmp_path: Path, scheme: str) -> None:
    with guarded(auth=f'challenge = "{scheme}"') as server:
        pair = base64.b64encode(f"alice:{PASSWORDS['alice']}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": pair}}}))
        assert of(server, "carol").push_image("team/app/0", "t").status == 201
        assert of(server, "carol").push_image("secret/x", "t").status == 201
        names = [f"team/app/{number}" for number in range(MOST_QUERIES - 1)]
        queries = [ResolveQuery(name, tags=("t",)) for name in [*names, "secret/x"]]
        with Session(ClientOptions(docker_config=tmp_path)) as session:
            found = session.resolve_many(server.host, queries)
        assert found is not None
        targets = [one.tags[0].target for one in found.resolutions]
        assert len(targets) == MOST_QUERIES
        assert targets[0] is not None
        assert targets[-1] is None  # as for any single question of hers
        with Session(ClientOptions(docker_config=tmp_path / "nobody")) as session:
            # Who is not known is not told that it can be asked; each single question says what to do.
            assert session.resolve_many(server.host, queries) is None
            with pytest.raises(Unauthorized):
                session.repository(Reference(server.host, "team/app/0")).resolve("t")
