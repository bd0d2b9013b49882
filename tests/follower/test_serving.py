"""The copy over HTTP, with the registry away: the same answers, marked as a copy's."""

from __future__ import annotations

import datetime
import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import InvalidConfiguration, RemoteNotFound
from digestry.follower.follower import Follower
from digestry.follower.http_server import serving
from digestry.follower.serving import CopyServer
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.model.timestamps import rfc3339
from digestry.translog.tiles import bundles_of, tiles_of
from digestry.verifier.history import verify_history
from digestry.verifier.log_view import LogVerifier, utc_now
from digestry.verifier.seen_logs import SeenLogs
from tests.client.liar import Reply
from tests.follower.conftest import Follow
from tests.support import free_port, wait_until
from tests.verifier.log_server import BEGAN, LogServer


@dataclass
class Copy:
    host: str
    follower: Follower
    served: CopyServer

    def get(self, path: str) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answer.read(), headers
        finally:
            connection.close()

    def json(self, path: str, status: int = 200) -> Any:
        found, body, headers = self.get(path)
        assert found == status, body
        assert "digestry-copy" in headers
        return json.loads(body)


def _listens(host: str) -> bool:
    connection = http.client.HTTPConnection(host, timeout=5)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture
def copy(server: LogServer, follow: Follow) -> Iterator[Copy]:
    server.sealed = {"team/secret"}
    server.fill(280)
    server.move("team/app", "1.5", 1)
    server.move("team/app", "1.6", 2)
    server.move("team/app", "1.5", 3)
    server.move("team/secret", "1", 4)
    follower = follow()
    follower.round()
    served = CopyServer(follower, utc_now)
    port = free_port()
    with serving(served.application(), "127.0.0.1", port):
        host = f"127.0.0.1:{port}"
        wait_until(lambda: _listens(host), what="the server")
        server.answers["/"] = Reply(hangs_up=True)
        yield Copy(host, follower, served)


def test_the_answers(copy: Copy, server: LogServer) -> None:
    mine = [event for event in server.events if event.repository == "team/app"]
    journal = copy.json("/v2/team/app/_digestry/journal")["entries"]
    assert [entry["toDigest"] for entry in journal] == [str(event.to_digest) for event in mine[::-1]]
    assert all(entry["withheld"] and "actor" not in entry for entry in journal)
    history = copy.json("/v2/team/app/_oci/tag-history/1.5")["manifests"]
    assert [entry["digest"] for entry in history] == [str(mine[2].to_digest), str(mine[0].to_digest)]
    assert copy.json("/v2/team/app/_digestry/tag/1.5")["span"]["digest"] == str(mine[2].to_digest)
    at = rfc3339(mine[0].at + datetime.timedelta(seconds=1))
    then = copy.json(f"/v2/team/app/_digestry/tag/1.5?at={at}")["span"]
    until = datetime.datetime.fromisoformat(then["until"])
    assert (then["digest"], until) == (str(mine[0].to_digest), mine[2].at)
    assert [span["tag"] for span in copy.json(f"/v2/team/app/_digestry/tags?at={at}")["tags"]] == ["1.5"]
    assert copy.json("/v2/team/app/tags/list")["tags"] == ["1.5", "1.6"]
    (span,) = copy.json(f"/v2/team/app/_digestry/whose/{mine[1].to_digest}")["spans"]
    assert (span["tag"], span["still"]) == ("1.6", True)
    anywhere = copy.json(f"/v2/_digestry/whose/{mine[1].to_digest}")["spans"]
    assert {span["repository"] for span in anywhere} == {"team/app", "others/2"}
    before = rfc3339(BEGAN)
    copy.json(f"/v2/team/app/_digestry/tag/1.5?at={before}", 404)


def test_it_is_marked_as_a_copy(copy: Copy, server: LogServer) -> None:
    at = copy.follower.status.verified_at
    assert at is not None
    _, __, headers = copy.get("/v2/team/app/_digestry/journal")
    mark = headers["digestry-copy"]
    assert mark.startswith(f"of={server.host}; size=284; verified={rfc3339(at)}; age=")
    copy.served.heard("away")
    assert copy.json("/healthz") == {
        "copyOf": server.host,
        "size": 284,
        "verifiedAt": rfc3339(at),
        "alarm": None,
        "problem": "away",
    }
    metrics = copy.get("/metrics")[1].decode()
    assert f'digestry_follow_size{{registry="{server.host}"}} 284.0' in metrics
    assert f'digestry_follow_failing{{registry="{server.host}"}} 1.0' in metrics
    assert copy.get("/v2/nothing")[0] == 404
    assert "digestry-copy" in copy.get("/v2/nothing")[2]


def test_what_not_everybody_may_read_is_not_served(copy: Copy) -> None:
    assert copy.follower.history.unopened(0) == 0
    copy.json("/v2/team/secret/_digestry/journal", 404)
    assert "team/secret" not in copy.json("/v2/_catalog")["repositories"]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/team/app/_digestry/journal?n=x",
        "/v2/team/app/_digestry/journal?before=yesterday",
        "/v2/team/app/_digestry/age/1.5?min-age=long",
        "/v2/team/app/_digestry/tag/..",
        "/v2/TEAM/_digestry/journal",
        "/v2/_digestry/whose/sha256:1",
        "/v2/_digestry/log/tile/0/../../../checkpoint",
        "/v2/_digestry/log/tile/0/1",
    ],
)
def test_what_is_asked_wrongly(copy: Copy, path: str) -> None:
    assert "errors" in copy.json(path, 400)


def test_pages(copy: Copy) -> None:
    _, body, headers = copy.get("/v2/team/app/_digestry/journal?n=2")
    assert len(json.loads(body)["entries"]) == 2
    following = headers["link"].partition("<")[2].partition(">")[0]
    assert [entry["number"] for entry in copy.json(following)["entries"]] == [1]


def test_a_least_age(copy: Copy, server: LogServer) -> None:
    """Its present is when the copy was verified last: how long a digest stood after that, nobody knows."""
    mine = [event for event in server.events if (event.repository, event.tag) == ("team/app", "1.5")]
    found = copy.json("/v2/team/app/_digestry/age/1.5?min-age=1h")
    assert found["stood"]["digest"] == str(mine[1].to_digest)
    assert datetime.datetime.fromisoformat(found["at"]) == copy.follower.status.verified_at
    older = copy.json("/v2/team/app/_digestry/age/1.5?min-age=3650d")
    assert older["refusal"] == "young"
    copy.json("/v2/team/app/_digestry/age/9?min-age=1h", 404)


def test_a_tag_resolves_and_has_no_content(copy: Copy, server: LogServer) -> None:
    newest = server.tags["team/app", "1.5"]
    with Session(ClientOptions(timeout=20.0, retries=0)) as session:
        repository = session.repository(Reference(copy.host, "team/app"))
        found = repository.resolve("1.5")
        assert (found.digest, found.size) == (Digest.of(newest), len(newest))
        age = repository.tag_age("1.5", 3600)
        assert age is not None
        assert age.stood is not None
        assert age.stood.digest == Digest.of(newest)
        with pytest.raises(RemoteNotFound):
            repository.resolve("9")
        with pytest.raises(RemoteNotFound, match="this is a copy of the history of"):
            repository.pull_manifest("1.5")


def test_a_client_verifies_the_copy_as_it_does_the_log(copy: Copy, tmp_path: Path) -> None:
    for tile in [*tiles_of(284), *bundles_of(284)]:
        status, body, _ = copy.get(f"/v2/_digestry/log/{tile.path}")
        assert (status, body) == (200, copy.follower.copy.read(tile))
    with Session(ClientOptions(timeout=20.0, retries=0)) as session:
        repository = session.repository(Reference(copy.host, "team/app"))
        assert [event.number for event in repository.journal() or ()] == [3, 2, 1]
        report = verify_history(LogVerifier(SeenLogs(tmp_path / "home")), repository)
        assert report.problems == []
        assert report.completeness.known is False  # the last entry of all is sealed


def test_an_address_that_is_taken(copy: Copy) -> None:
    port = int(copy.host.rpartition(":")[2])
    with (
        pytest.raises(InvalidConfiguration, match="cannot listen at"),
        serving(copy.served.application(), "127.0.0.1", port),
    ):
        time.sleep(0)
