"""The journal as a transparency log, over HTTP: against this project's formats, and those of another one."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from collections.abc import Iterator

import msgspec
import pytest

from digestry.translog.checkpoints import SignedCheckpoint, open_checkpoint
from digestry.translog.entries import Entry, Opening, Openings, Sealed, open_leaf, parse_leaf
from digestry.translog.merkle import leaf_hash, root_of
from digestry.translog.notes import VerifierKey, parse_verifier_key
from digestry.translog.tiles import Tile, bundles_of, decode_bundle
from tests.e2e.peers import built
from tests.registry.access.support import As, basic, guarded
from tests.support import PATIENCE, RegistryServer, Response, running_registry, start_registry, wait_until

LOG = "/v2/_digestry/log"


def get(registry: RegistryServer | As, path: str) -> Response:
    answer = registry.request("GET", f"{LOG}/{path}")
    assert answer.status == 200, answer.body
    return answer


def keys_of(registry: RegistryServer | As) -> tuple[str, list[VerifierKey]]:
    wait_until(lambda: registry.request("GET", f"{LOG}/keys").status == 200, what="the beginning of the log")
    found = get(registry, "keys").json()
    return found["origin"], [parse_verifier_key(key["key"]) for key in found["keys"]]


def checkpoint(registry: RegistryServer | As, *, least: int = 0) -> SignedCheckpoint:
    """The newest checkpoint, once it has so many entries."""
    origin, keys = keys_of(registry)
    until = time.monotonic() + PATIENCE
    while True:
        answer = registry.request("GET", f"{LOG}/checkpoint")
        if answer.status == 200:
            signed = open_checkpoint(answer.body, origin, keys)
            if signed.checkpoint.size >= least:
                return signed
        assert time.monotonic() < until, answer.body
        time.sleep(0.02)


def leaves_of(registry: RegistryServer | As, size: int) -> list[bytes]:
    return [leaf for tile in bundles_of(size) for leaf in decode_bundle(tile, get(registry, tile.path).body)]


def verified_by_go(registry: RegistryServer, older: SignedCheckpoint | None = None) -> tuple[int, str]:
    """Let another implementation verify all of the log; what it says of its size and root."""
    origin, (key, *_) = keys_of(registry)
    line = [str(built("tlogverify")), f"http://{registry.host}{LOG}", str(key), origin]
    if older is not None:
        line += [str(older.checkpoint.size), base64.b64encode(older.checkpoint.root).decode()]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    size, root = done.stdout.split()
    return int(size), root


@pytest.fixture(scope="module")
def logged() -> Iterator[RegistryServer]:
    with running_registry() as server:
        yield server


@pytest.mark.long
def test_a_push_is_in_the_log_within_a_second(logged: RegistryServer) -> None:
    before = checkpoint(logged).checkpoint.size
    digest = logged.push_image("log/app", "1.0", os.urandom(8))
    began = time.monotonic()
    signed = checkpoint(logged, least=before + 1)
    assert time.monotonic() - began < 10  # a second, on a machine that has nothing else to do
    leaves = leaves_of(logged, signed.checkpoint.size)
    assert root_of(map(leaf_hash, leaves)) == signed.checkpoint.root
    entry = parse_leaf(leaves[before])
    assert isinstance(entry, Entry)
    assert (entry.repository, entry.tag, entry.to_digest) == ("log/app", "1.0", digest)
    answer = logged.request("GET", "/v2/log/app/_digestry/log/openings?tag=1.0")
    openings = Openings(**answer.json()).openings
    assert len(openings) == 1


@pytest.mark.long
def test_another_implementation_verifies_it(logged: RegistryServer) -> None:
    older = checkpoint(logged)
    for number in range(300):
        logged.push_image("log/many", f"t{number % 7}", b"%d" % (number % 11))
    newer = checkpoint(logged, least=older.checkpoint.size + 290)
    size, root = verified_by_go(logged, older)
    assert size >= newer.checkpoint.size
    assert size > 256
    assert root


def test_headers(logged: RegistryServer) -> None:
    logged.push_image("log/app", "2.0", os.urandom(8))
    size = checkpoint(logged, least=1).checkpoint.size
    found = get(logged, "checkpoint").headers
    assert (found["content-type"], found["cache-control"]) == ("text/plain; charset=utf-8", "no-cache")
    tile = Tile(0, 0, min(size, 255)) if size < 256 else Tile(0, 0)
    found = get(logged, tile.path).headers
    assert found["content-type"] == "application/octet-stream"
    assert found["cache-control"] == "public, max-age=31536000, immutable"
    assert logged.request("HEAD", f"{LOG}/{tile.path}").headers["content-length"] == str(32 * tile.width)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tile/0/999", 404),
        ("tile/7/000", 404),
        ("tile/entries/x001/000", 404),
        ("tile/0/1", 400),
        ("tile/64/000", 400),
        ("tile/0/000.p/256", 400),
        ("tile/entries/000/000", 400),
        ("tile/", 404),
        ("tile", 404),
        ("none", 404),
    ],
)
def test_what_there_is_not(logged: RegistryServer, path: str, status: int) -> None:
    assert logged.request("GET", f"{LOG}/{path}").status == status


@pytest.mark.long
def test_the_openings_have_pages(logged: RegistryServer) -> None:
    for number in range(5):
        logged.push_image("log/pages", f"t{number}", os.urandom(8))
    size = checkpoint(logged, least=1).checkpoint.size
    wait_until(
        lambda: len(logged.request("GET", "/v2/log/pages/_digestry/log/openings").json()["openings"]) == 5,
        what="the last entry in the log",
    )
    size = checkpoint(logged).checkpoint.size
    leaves = leaves_of(logged, size)
    path: str | None = "/v2/log/pages/_digestry/log/openings?n=2"
    found: list[Opening] = []
    while path is not None:
        answer = logged.request("GET", path)
        assert answer.status == 200, answer.body

        page = msgspec.json.decode(answer.body, type=Openings)
        found += page.openings
        link = answer.headers.get("link")
        path = None if link is None else link.partition(">")[0].removeprefix("<")
    opened = [open_leaf(leaves[opening.index], opening) for opening in found]
    assert [one.entry.tag for one in opened] == [f"t{number}" for number in range(5)]
    assert all(one.rest is not None and one.rest.actor == "anonymous" for one in opened)
    for wrong in ("index=x", "from=-1", "index=1&index=2", "tag=!"):
        assert logged.request("GET", f"/v2/log/pages/_digestry/log/openings?{wrong}").status == 400


@pytest.mark.long
def test_entries_that_not_all_may_read_are_sealed() -> None:
    with guarded() as server:
        alice, bob, nobody = As(server, basic("alice")), As(server, basic("bob")), As(server, {})
        carol = As(server, basic("carol"))
        assert carol.push_image("public/app", "1.0").status == 201
        assert alice.push_image("team/app", "1.0", os.urandom(8)).status == 201
        # The rules let everybody pull from a part of the registry, so that everybody may read the log.
        signed = checkpoint(bob, least=2)
        leaves = leaves_of(bob, 2)
        assert root_of(map(leaf_hash, leaves)) == signed.checkpoint.root
        first, second = map(parse_leaf, leaves)
        assert isinstance(first, Entry)
        assert first.repository == "public/app"
        assert isinstance(second, Sealed)
        assert b"team" not in leaves[1]
        assert "private" in get(bob, "tile/0/000.p/2").headers["cache-control"]

        path = "/v2/team/app/_digestry/log/openings"
        (shown,) = msgspec.json.decode(alice.request("GET", path).body, type=Openings).openings
        assert shown.index == 1
        rest = open_leaf(leaves[1], shown).rest
        assert rest is not None
        assert rest.actor == "alice"
        (shown,) = msgspec.json.decode(bob.request("GET", path).body, type=Openings).openings
        opened = open_leaf(leaves[1], shown)
        assert opened.entry.repository == "team/app"
        assert opened.rest is None
        assert nobody.request("GET", path).status == 401
        assert bob.request("GET", "/v2/carol/x/_digestry/log/openings").json()["openings"] == []


@pytest.mark.long
def test_a_log_that_is_turned_off() -> None:
    with running_registry() as server:
        root = server.root
        server.push_image("a", "t")
        server.stop()
        config = root.parent / "registry.toml"
        config.write_text("[transparency]\nenabled = false\n")
        again = start_registry(root, "--config", str(config))
        try:
            answer = again.request("GET", f"{LOG}/checkpoint")
            assert answer.status == 404
            assert b"its configuration says so" in answer.body
        finally:
            again.stop()


@pytest.mark.long
def test_what_a_killed_writer_left_is_removed() -> None:
    with running_registry() as server:
        checkpoint(server)
        server.stop()
        left = server.root / ".log-head.json.0123456789abcdef"
        left.write_bytes(b"{")
        again = start_registry(server.root)
        try:
            wait_until(lambda: not left.exists(), what="the removal")
        finally:
            again.stop()
