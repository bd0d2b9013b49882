"""A real registry whose owner rewrites the past: who saw its log before finds that; so does a follower."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.forked_process import ForkedProcess
from tests.registry.support import edit_catalog
from tests.registry.test_transparency import checkpoint
from tests.support import RegistryServer, digestry, free_port, run_digestry, start_registry

NAME = "team/app"


class Home:
    """A user with a home, and a follower."""

    def __init__(self, place: Path, host: str) -> None:
        self.place = place
        self.host = host
        self.environment = {"DIGESTRY_HOME": str(place)}

    def run(self, *words: str | Path) -> tuple[int, str, str]:
        done = run_digestry(*words, env=self.environment)
        return done.returncode, done.stdout, done.stderr

    def verify(self, *, status: int = 0, name: str = NAME) -> dict[str, object]:
        found, out, err = self.run("log", "verify", f"{self.host}/{name}", "--format", "json")
        assert found == status, out + err
        document: dict[str, object] = json.loads(out)
        return document

    def follow(self, *, status: int = 0) -> str:
        found, out, err = self.run("follow", f"http://{self.host}", "--once", "-C", self.place / "copy")
        assert found == status, out + err
        return out + err


def push(registry: RegistryServer, number: int, tag: str = "1.5") -> Digest:
    config = registry.push_blob(NAME, b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(config), "size": 2},
        "layers": [],
        "annotations": {"number": str(number)},
    }
    return registry.push_manifest(NAME, tag, manifest)


class Registry:
    """A registry at one address, whose directory is replaced while it is stopped."""

    def __init__(self, place: Path) -> None:
        self.root = place / "root"
        self.port = free_port()
        self.server = start_registry(self.root, port=self.port)
        self.pushed = 0

    def push(self, count: int = 1) -> Digest:
        for _ in range(count):
            self.pushed += 1
            digest = push(self.server, self.pushed)
        return digest

    def signed(self, entries: int) -> None:
        assert checkpoint(self.server, least=entries).checkpoint.size == entries

    def start(self) -> None:
        self.server = start_registry(self.root, port=self.port)

    def stop(self) -> None:
        if self.server.process.poll() is None:
            self.server.stop()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    running = Registry(tmp_path)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def home(tmp_path: Path, registry: Registry) -> Home:
    return Home(tmp_path / "home", registry.server.host)


@pytest.mark.long
def test_the_history_of_an_honest_registry(registry: Registry, home: Home, tmp_path: Path) -> None:
    digest = registry.push(3)
    registry.signed(3)
    document = home.verify()
    assert (document["complete"], document["problems"]) == (True, [])
    entries = document["entries"]
    assert isinstance(entries, list)
    assert [entry["state"] for entry in entries] == ["included"] * 3
    name = f"{home.host}/{NAME}:1.5"
    assert home.run("pull", "--verify-log", name)[0] == 0
    assert home.run("copy", "--verify-log", name, f"oci:{tmp_path / 'layout'}")[0] == 0
    proof = tmp_path / "app.tlog-proof"
    assert home.run("log", "bundle", name, "-o", proof)[1].strip() == str(digest)
    registry.stop()
    status, out, _ = home.run("log", "verify", f"{name}@{digest}", "--bundle", proof)
    assert (status, f"came to {digest}" in out) == (0, True)
    status, _, err = home.run("log", "verify", f"{home.host}/{NAME}:1.6", "--bundle", proof)
    assert (status, "of the tag 1.5, not of 1.6" in err) == (1, True)


@pytest.mark.long
def test_a_database_that_was_edited_by_hand(registry: Registry, home: Home) -> None:
    registry.push(3)
    registry.signed(3)
    home.verify()
    home.follow()
    registry.stop()
    edit_catalog(
        registry.root,
        "UPDATE journal SET actor = 'mallory', to_digest = from_digest WHERE number = 2",
    )
    registry.start()
    problems = home.verify(status=1)["problems"]
    assert isinstance(problems, list)
    assert any("entry 1 of the log" in str(problem) for problem in problems), problems
    registry.push()
    registry.signed(4)
    assert "ALARM" in home.follow(status=1)  # the bundle with the new entry has the old one, too


@pytest.mark.long
def test_a_registry_that_was_restored_from_yesterday(registry: Registry, home: Home, tmp_path: Path) -> None:
    registry.push(2)
    registry.signed(2)
    registry.stop()
    shutil.copytree(registry.root, tmp_path / "yesterday")
    registry.start()
    registry.push(3)
    registry.signed(5)
    home.verify()
    home.follow()
    registry.stop()
    shutil.rmtree(registry.root)
    shutil.copytree(tmp_path / "yesterday", registry.root)
    registry.start()
    document = home.verify(status=1)
    assert "was rolled back: it has 2 entries" in str(document["problems"])
    assert "was rolled back" in home.follow(status=1)
    status, _, err = home.run("pull", "--verify-log", f"{home.host}/{NAME}:1.5")
    assert (status, "was rolled back" in err) == (5, True)
    registry.pushed = 100
    registry.push(6)
    registry.signed(8)
    document = home.verify(status=1)
    assert "was forked: its first 5 entries are others" in str(document["problems"])
    assert (Path(str(document["evidence"])) / "seen.checkpoint").exists()
    assert "was forked" in home.follow(status=1)
    # Somebody who trusts it anew, and knows why, goes on.
    status, out, err = home.run("log", "verify", f"{home.host}/{NAME}", "--trust-anew")
    assert (status, "is now in" in err) == (0, True), out + err


@pytest.mark.long
def test_a_follower_that_is_killed_goes_on(registry: Registry, home: Home) -> None:
    """It is killed again and again while entries arrive; in the end its copy is the log."""
    place = home.place / "copy"
    for count in range(1, 13):
        registry.push(30)
        words = ("follow", f"http://{home.host}", "-C", place, "--interval", "1")
        process = ForkedProcess(digestry(*words), env=home.environment, start_new_session=True)
        try:
            process.wait(timeout=0.05 * count)
        except Exception:  # noqa: BLE001 - it runs on, until it is killed
            process.kill()
        process.wait(timeout=30)
    registry.signed(360)
    home.follow()
    registry.stop()
    size = int((place / "checkpoint").read_text().split("\n")[1])
    assert size == 360
    with sqlite3.connect(place / "history.db") as database:
        assert database.execute("SELECT count(*) FROM entries").fetchone() == (360,)
    database.close()


@pytest.mark.long
def test_two_verifications_at_once(registry: Registry, home: Home) -> None:
    registry.push(2)
    registry.signed(2)
    words = digestry("log", "verify", f"{home.host}/{NAME}")
    running = [ForkedProcess(words, env=home.environment) for _ in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    home.verify()


def test_a_repository_with_the_name_of_a_command(home: Home) -> None:
    for words in (["verify"], ["--", "verify"], ["verify:1"]):
        status, _, err = home.run("log", *words)
        assert (status, "docker.io" in err or "registry" in err) in {(3, True), (4, True)}, err
    reference = Reference(home.host, "verify")
    status, _, err = home.run("log", str(reference))
    assert (status, "NAME_UNKNOWN" in err) == (4, True)
