"""Uploads that broke off, or whose command was killed: the registry is asked how much came."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import random
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.client.upload_records import open_record
from digestry.errors import DigestMismatch, DigestryError
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request
from tests.support import PATIENCE

SIZE = 9 << 20
CONTENT = random.Random(6).randbytes(SIZE)
BLOB = Descriptor(media_types.OCI_LAYER, Digest.of(CONTENT), SIZE)


class Keeper:
    """A registry that keeps what came of an upload, and says so.

    ``breaks`` are the numbers of bytes after which it hangs up, one for each part.
    """

    def __init__(self, liar: Liar) -> None:
        self.liar = liar
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.breaks: list[int] = []
        self.taken = 0
        self.status: Reply | None = None
        liar.answer = self.answer

    def answer(self, request: Request) -> Reply:
        name = request.path.rpartition("/")[2]
        if request.method == "HEAD":
            return Reply(200, self.blobs[name]) if name in self.blobs else Reply(404)
        if request.method == "POST":
            name = str(len(self.uploads))
            self.uploads[name] = b""
            return Reply(202, headers={"Location": f"/v2/team/app/blobs/uploads/{name}"})
        if name not in self.uploads:
            return Reply(404)
        if request.method == "GET" and self.status is not None:
            return self.status
        if request.method == "PATCH":
            first, _ = re.fullmatch(r"(\d+)-(\d+)", request.headers["Content-Range"]).groups()  # type: ignore[union-attr]
            if int(first) != len(self.uploads[name]):
                return Reply(416)
            kept = request.body[: self.breaks.pop(0)] if self.breaks else request.body
            self.uploads[name] += kept
            self.taken += len(kept)
            if len(kept) < len(request.body):
                return Reply(hangs_up=True)
        if request.method == "PUT":
            content = self.uploads.pop(name) + request.body
            self.taken += len(request.body)
            if str(Digest.of(content)) != request.query["digest"][0]:
                return Reply(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
            self.blobs[request.query["digest"][0]] = content
            return Reply(201)
        said = {"Range": f"0-{max(0, len(self.uploads[name]) - 1)}"}
        return Reply(204 if request.method == "GET" else 202, headers=said)


@pytest.fixture
def keeper(liar: Liar) -> Keeper:
    return Keeper(liar)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def remote(liar: Liar, home: Path) -> Iterator[Repository]:
    with Session(ClientOptions(timeout=PATIENCE, retries=1, uploads=home)) as session:
        yield session.repository(Reference(liar.host, "team/app"))


def push(repository: Repository, content: bytes = CONTENT) -> None:
    steps: list[int] = []
    assert repository.push_blob(BLOB, lambda: io.BytesIO(content), progress=steps.append) == "sent"
    assert sum(steps) == SIZE


def left_by_a_kill(keeper: Keeper, home: Path, content: bytes) -> None:
    """An upload that is at the registry, and in the records, as after a kill."""
    keeper.uploads["left"] = content
    with open_record(home, f"{keeper.liar.host}/team/app", BLOB.digest) as record:
        record.keep(f"http://{keeper.liar.host}/v2/team/app/blobs/uploads/left")


def test_the_next_command_goes_on(keeper: Keeper, remote: Repository, home: Path) -> None:
    left_by_a_kill(keeper, home, CONTENT[:5_000_000])
    push(remote)
    assert keeper.blobs[str(BLOB.digest)] == CONTENT
    assert keeper.taken == SIZE - 5_000_000
    assert not any(request.method == "POST" for request in keeper.liar.seen)
    assert list(home.iterdir()) == []


def test_what_came_whole_is_not_sent_again(keeper: Keeper, remote: Repository, home: Path) -> None:
    left_by_a_kill(keeper, home, CONTENT)
    push(remote)
    assert keeper.taken == 0
    assert keeper.blobs[str(BLOB.digest)] == CONTENT


@pytest.mark.long
@pytest.mark.parametrize(
    "status",
    [
        Reply(404), Reply(500), Reply(403), Reply(204), Reply(204, headers={"Range": "0-0"}),
        Reply(204, headers={"Range": f"0-{SIZE}"}), Reply(204, headers={"Range": "0-" + "9" * 40}),
        Reply(204, headers={"Range": "-1"}), Reply(204, headers={"Range": "nonsense"}),
        Reply(307, headers={"Location": "http://169.254.169.254/x"}), Reply(204, headers={"Range": "0-99"}),
        Reply(204, headers={"Range": "0-99", "Location": "ftp://elsewhere/"}),
    ],
)  # fmt: skip
def test_an_upload_that_is_gone_or_says_nonsense_is_begun_anew(
    keeper: Keeper, remote: Repository, home: Path, status: Reply
) -> None:
    left_by_a_kill(keeper, home, CONTENT[:5_000_000])
    keeper.status = status
    push(remote)
    assert keeper.blobs[str(BLOB.digest)] == CONTENT
    assert keeper.taken == SIZE


def test_what_came_before_and_is_wrong_is_sent_again(keeper: Keeper, remote: Repository, home: Path) -> None:
    left_by_a_kill(keeper, home, bytes(5_000_000))
    push(remote)
    assert keeper.blobs[str(BLOB.digest)] == CONTENT
    assert keeper.taken == 2 * SIZE - 5_000_000


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.long)])
def test_a_connection_that_breaks_at_random_bytes(keeper: Keeper, remote: Repository, rounds: int) -> None:
    chance = random.Random(rounds)
    for _ in range(rounds):
        keeper.blobs.clear()
        keeper.taken = 0
        keeper.breaks = [chance.randrange(2, SIZE // 5) for _ in range(4)]
        push(remote)
        assert keeper.blobs[str(BLOB.digest)] == CONTENT
        assert keeper.taken == SIZE  # no byte came twice


def test_an_answer_that_was_lost(keeper: Keeper, remote: Repository) -> None:
    """The blob is there, and is not sent a second time."""
    taken = keeper.answer
    keeper.liar.answer = lambda request: (
        (Reply(hangs_up=True) if taken(request).status == 201 else Reply(500))
        if request.method == "PUT"
        else taken(request)
    )
    push(remote)
    assert keeper.taken == SIZE


def test_a_registry_that_does_not_take_parts(keeper: Keeper, remote: Repository) -> None:
    taken = keeper.answer
    keeper.liar.answer = lambda request: Reply(405) if request.method == "PATCH" else taken(request)
    push(remote)
    assert keeper.blobs[str(BLOB.digest)] == CONTENT
    assert sum(request.method == "PUT" for request in keeper.liar.seen) == 1


def test_a_damaged_blob_leaves_no_record(keeper: Keeper, remote: Repository, home: Path) -> None:
    with pytest.raises(DigestMismatch):
        push(remote, CONTENT[:-1] + b"?")
    assert not keeper.blobs
    assert list(home.iterdir()) == []


def test_a_record_is_for_its_owner_alone(keeper: Keeper, remote: Repository, home: Path) -> None:
    """Addresses of uploads may have tokens in them."""
    keeper.breaks = [1000] * 10
    keeper.status = Reply(500)
    with pytest.raises(DigestryError):
        push(remote)
    (record,) = home.iterdir()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert "/blobs/uploads/" in json.loads(record.read_bytes())["location"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"[" * 60_000, b'{"blob":1,"location":"x"}', b'{"location":"http://x/"}']
)
def test_a_record_that_cannot_be_read(keeper: Keeper, remote: Repository, home: Path, content: bytes) -> None:
    left_by_a_kill(keeper, home, CONTENT[:1000])
    (record,) = home.iterdir()
    record.write_bytes(content)
    push(remote)
    assert keeper.taken == SIZE


def test_another_upload_of_the_same_blob_has_the_record(
    keeper: Keeper, remote: Repository, home: Path
) -> None:
    left_by_a_kill(keeper, home, CONTENT[:1000])
    with open_record(home, f"{keeper.liar.host}/team/app", BLOB.digest) as record:
        push(remote)
        assert keeper.taken == SIZE
        assert record.location.endswith("/left")


def test_an_address_on_a_host_of_the_machine_is_not_asked(
    keeper: Keeper, remote: Repository, home: Path
) -> None:
    with open_record(home, f"{keeper.liar.host}/team/app", BLOB.digest) as record:
        record.keep("file:///etc/passwd")
    push(remote)
    assert keeper.taken == SIZE


@pytest.mark.peer("docker-registry")
@pytest.mark.parametrize("left", [1, 5_000_000])
def test_a_registry_that_drops_what_was_cut(docker_registry: str, home: Path, left: int) -> None:
    """Distribution ends an upload whose bytes are not those of its address."""
    name = f"continued/{left}"
    url = urlsplit(upload_at(docker_registry, name))
    connection = http.client.HTTPConnection(url.netloc, timeout=PATIENCE)
    connection.putrequest("PATCH", f"{url.path}?{url.query}")
    connection.putheader("Content-Length", str(SIZE))
    connection.endheaders(CONTENT[:left])
    connection.close()
    with open_record(home, f"{docker_registry}/{name}", BLOB.digest) as record:
        record.keep(url.geturl())
    with Session(ClientOptions(timeout=PATIENCE, uploads=home)) as session:
        remote = session.repository(Reference(docker_registry, name))
        push(remote)
        assert b"".join(remote.stream_blob(BLOB)) == CONTENT


@pytest.mark.peer("docker-registry")
def test_whole_parts_are_continued_there(docker_registry: str, home: Path) -> None:
    url = urlsplit(upload_at(docker_registry, "continued/whole"))
    connection = http.client.HTTPConnection(url.netloc, timeout=PATIENCE)
    connection.request("PATCH", f"{url.path}?{url.query}", CONTENT[:5_000_000])
    response = connection.getresponse()
    with open_record(home, f"{docker_registry}/continued/whole", BLOB.digest) as record:
        record.keep(response.headers["Location"])
    connection.close()
    with Session(ClientOptions(timeout=PATIENCE, uploads=home)) as session:
        remote = session.repository(Reference(docker_registry, "continued/whole"))
        steps: list[int] = []
        remote.push_blob(BLOB, lambda: io.BytesIO(CONTENT), progress=steps.append)
        assert steps[0] == 5_000_000
        assert b"".join(remote.stream_blob(BLOB)) == CONTENT


def upload_at(host: str, name: str) -> str:
    """The address of a new upload."""
    with contextlib.closing(http.client.HTTPConnection(host, timeout=PATIENCE)) as connection:
        connection.request("POST", f"/v2/{name}/blobs/uploads/")
        return str(connection.getresponse().headers["Location"])


@pytest.mark.long
def test_a_registry_that_is_busy_for_a_moment(keeper: Keeper, remote: Repository) -> None:
    taken, answers = keeper.answer, [Reply(503, headers={"Retry-After": "1"}), Reply(201)]
    keeper.liar.answer = lambda request: (
        answers.pop(0) if request.method == "PATCH" and len(answers) > 1 else taken(request)
    )
    push(remote)
    assert keeper.blobs[str(BLOB.digest)] == CONTENT
