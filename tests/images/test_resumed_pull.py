"""Pulls that are cut off, killed, or find something that is no beginning of the blob."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.blobs.disk import DiskBlobs
from digestry.blobs.ingests import Ingest
from digestry.blobs.protocols import FullSpeed
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import DigestMismatch, Refused, StorageFull
from digestry.images.blob_fetch import Progress, fetch_blob
from digestry.images.pull import pull
from digestry.images.store import ImageStore
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request, lying
from tests.support import PATIENCE, descriptor, wait_until

_SIZE = 3 << 20
_CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'


class Source:
    """A registry with one image, of one layer, of which each request gets as much as ``most`` says."""

    def __init__(self, server: Liar) -> None:
        self.layer = random.Random(1).randbytes(_SIZE)
        self.digest = Digest.of(self.layer)
        self.raw = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_MANIFEST,
                "config": descriptor(media_types.OCI_CONFIG, Digest.of(_CONFIG), len(_CONFIG)),
                "layers": [descriptor(media_types.OCI_LAYER, self.digest, _SIZE)],
            }
        ).encode()
        self.name = Reference(server.host, "team/app", "1")
        self.server = server
        self.most: Callable[[], int] = lambda: _SIZE
        self.hold: threading.Event | None = None
        self.refuses_ranges = False
        self.served = 0
        self.ranges: list[int] = []
        server.answer = self._answer

    def _answer(self, request: Request) -> Reply:
        if "/manifests/" in request.path:
            said = {
                "Content-Type": media_types.OCI_MANIFEST,
                "Docker-Content-Digest": str(Digest.of(self.raw)),
            }
            if request.method == "HEAD":
                said["Content-Length"] = str(len(self.raw))
            return Reply(200, self.raw, said)
        if str(self.digest) not in request.path:
            return Reply(200, _CONFIG)
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", "bytes=0-"))
        assert asked is not None
        start = int(asked[1])
        if start and self.refuses_ranges:
            return Reply(500)
        self.ranges.append(start)
        part = self.layer[start : start + max(1, self.most())]
        self.served += len(part)
        said = {"Content-Range": f"bytes {start}-{_SIZE - 1}/{_SIZE}"} if start else {}
        return Reply(206 if start else 200, part, said, length=_SIZE - start, gate=self.hold)


@pytest.fixture
def source() -> Iterator[Source]:
    with lying() as server:
        yield Source(server)


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(ClientOptions(timeout=PATIENCE, retries=3)) as opened:
        yield opened


def is_whole(store: ImageStore, source: Source) -> bool:
    """Whether the layer is there, with the right bytes, and no beginning of it is left over."""
    return store.blobs.verify(source.digest, _SIZE, FullSpeed()).problem is None and not any(
        name.startswith("pull-") for name in store.blobs.ingests()
    )


def test_what_is_here_costs_one_head(source: Source, store: ImageStore, session: Session) -> None:
    pull(session, source.name, store)
    assert source.server.paths()[0] == "GET /v2/team/app/manifests/1"
    source.server.seen.clear()
    index = store.root / "index.json"
    before = index.stat()
    for name in (source.name, source.name.repository_only().with_digest(Digest.of(source.raw))):
        again = pull(session, name, store)
        assert again.fetched == ()
        assert again.descriptor.digest == Digest.of(source.raw)
    assert [path.split()[0] for path in source.server.paths()] == ["HEAD", "HEAD"]
    assert index.stat().st_ino == before.st_ino  # it was not written again


def test_what_is_here_and_damaged_is_fetched_again(
    source: Source, store: ImageStore, session: Session
) -> None:
    pull(session, source.name, store)
    path = store.blobs.local_path(Digest.of(source.raw))
    assert path is not None
    path.write_bytes(b"damaged")
    pull(session, source.name, store)
    assert path.read_bytes() == source.raw


def test_a_config_here_that_has_its_size_and_other_bytes_is_fetched_again(
    source: Source, store: ImageStore, session: Session
) -> None:
    pull(session, source.name, store)
    path = store.blobs.local_path(Digest.of(_CONFIG))
    assert path is not None
    path.write_bytes(bytes(len(_CONFIG)))
    pull(session, source.name, store)
    assert path.read_bytes() == _CONFIG


@pytest.mark.parametrize("rounds", [8, pytest.param(100, marks=pytest.mark.long)])
def test_cuts_at_random_bytes(source: Source, tmp_path: Path, session: Session, rounds: int) -> None:
    chance = random.Random(rounds)
    for number in range(rounds):
        store = ImageStore(tmp_path / str(number))
        source.served = 0
        source.most = lambda: chance.randrange(_SIZE // 3)
        pull(session, source.name, store)
        assert is_whole(store, source)
        assert source.served == _SIZE  # no byte came twice


def test_the_next_command_goes_on_where_this_one_gave_up(source: Source, store: ImageStore) -> None:
    source.most = lambda: _SIZE // 2
    source.refuses_ranges = True
    with Session(ClientOptions(timeout=PATIENCE, retries=0)) as session, pytest.raises(Refused, match="500"):
        pull(session, source.name, store)
    source.most, source.refuses_ranges = lambda: _SIZE, False
    with Session(ClientOptions(timeout=PATIENCE)) as session:
        result = pull(session, source.name, store)
    assert source.digest in [one.digest for one in result.fetched]
    assert source.ranges[-1] == _SIZE // 2
    assert source.served == _SIZE
    assert is_whole(store, source)


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.long)])
def test_killed_at_random_bytes(source: Source, tmp_path: Path, session: Session, rounds: int) -> None:
    chance = random.Random(rounds)
    for number in range(rounds):
        home = tmp_path / str(number)
        begun = kill_in(source, home, chance.randrange(1 << 20, _SIZE))
        assert source.served == 2 * begun or source.served == 2 * begun + 1
        store = ImageStore(home / "images")
        pull(session, source.name, store)
        assert source.ranges[-1] == begun
        assert is_whole(store, source)


def kill_in(source: Source, home: Path, part: int) -> int:
    """Kill a pull when half of ``part`` has come, and return how many bytes it leaves."""
    program = (
        "import sys\nfrom digestry.cli.main import main\n"
        "sys.argv = ['digestry', 'pull', '-q', sys.argv[1]]\nmain()"
    )
    # The server sends half of the part, and holds the rest back.
    source.served, source.hold, source.most = 0, threading.Event(), lambda: part
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(source.name)],
        env={**os.environ, "DIGESTRY_HOME": str(home)},
        stdout=subprocess.DEVNULL,
    )
    arrived = home / "images/ingest" / f"pull-{source.digest.encoded}"
    wait_until(lambda: arrived.exists() and arrived.stat().st_size >= part // 2, what="half of the part")
    process.send_signal(signal.SIGKILL)
    process.wait()
    source.hold.set()
    source.hold, source.most = None, lambda: _SIZE
    return arrived.stat().st_size


def test_a_beginning_of_something_else_is_not_kept(
    source: Source, store: ImageStore, session: Session
) -> None:
    for beginning in (bytes(1000), bytes(_SIZE + 1), bytes(_SIZE)):
        with store.adding():
            (store.root / "ingest" / f"pull-{source.digest.encoded}").write_bytes(beginning)
            store.blobs.delete(source.digest)
        pull(session, source.name, store)
        assert is_whole(store, source)


def test_nothing_of_a_lie_is_kept(source: Source, store: ImageStore, session: Session) -> None:
    source.layer = bytes(_SIZE)
    with pytest.raises(DigestMismatch):
        pull(session, source.name, store)
    assert list(store.blobs.ingests()) == []
    assert store.entries() == []


def test_two_commands_fetch_the_same_blob(source: Source, store: ImageStore, session: Session) -> None:
    with store.adding(), store.blobs.ingest(f"pull-{source.digest.encoded}") as other:
        other.write(source.layer[:1000])
        pull(session, source.name, store)
        assert store.blobs.verify(source.digest, _SIZE, FullSpeed()).problem is None
        assert other.offset == 1000


def test_a_full_disk_gets_its_room_back(tmp_path: Path) -> None:
    blobs, content = DiskBlobs(tmp_path), os.urandom(1 << 20)
    wanted = Descriptor(media_types.OCI_LAYER, Digest.of(content), len(content))

    def fetch(sink: Ingest, progress: Progress) -> None:
        sink.write(content[: len(content) // 2])
        raise StorageFull("cannot write: No space left on device")

    with pytest.raises(StorageFull):
        fetch_blob(fetch, blobs, wanted, lambda _: None)
    assert sum(path.stat().st_size for path in tmp_path.rglob("pull-*")) == 0
