"""Every row goes with a registry that moves, and comes back from its backup; also if commands are killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from digestry.backend import open_backend
from tests.cluster.nodes import campaign
from tests.fleet.support import SimulatedAgent
from tests.observer.support import HOST, Observing
from tests.registry.migration.full import OWN, all_rows, make_full
from tests.registry.migration.support import MakePlace, Place, content, migrate, root_of
from tests.registry.migration.test_log import push_and_sign, served
from tests.registry.pull_through.support import upstream
from tests.registry.test_transparency import verified_by_go
from tests.stores import needs_disk
from tests.support import PATIENCE, run_digestry, start_digestry, wait_until

pytestmark = pytest.mark.long

_LONGEST_SECONDS: Final = 1.0
"""The longest time until the first kill: how long a command takes on a busy machine is not known."""
_LOCKED: Final = "is being collected, backed up or moved already"
"""What a command says in the seconds in which a node's lock outlives it."""
_OBSERVED: Final = """
[observe-registry."{host}"]
url = "{url}"
[observe."{host}/own/app"]
every = "1s"
keep = true
"""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a registry whose tables all have rows."""
    directory = tmp_path_factory.mktemp("full")
    make_full(directory)
    return directory / "root"


@pytest.fixture
def whole(full: Path, tmp_path: Path) -> Iterator[Place]:
    """A copy of it that nobody serves."""
    root = needs_disk(Path(shutil.copytree(full, tmp_path / "root")))
    file = tmp_path / "old.toml"
    file.write_text(f'root = "{root}"\n')
    place = Place(file)
    yield place
    place.close()


def _verified(place: Place) -> None:
    done = run_digestry("journal", "verify", "--config", place.file, env=dict(os.environ))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", ["disk", "both"])
def test_every_row_goes_there_and_back(whole: Place, new_place: MakePlace, kind: str) -> None:
    before, bytes_before = all_rows(whole.backend), content(whole.backend)
    new, home = new_place(kind), new_place("disk")
    migrate(whole, new)
    assert all_rows(new.backend) == before
    assert content(new.backend) == bytes_before
    _verified(new)
    migrate(new.read_only(), home)
    assert all_rows(home.backend) == before
    assert content(home.backend) == bytes_before
    _verified(home)


def test_the_jobs_go_on_with_what_was_moved(whole: Place, new_place: MakePlace) -> None:
    """What is written after the move gets other numbers than what was moved."""
    before = all_rows(whole.backend)
    new = new_place("both")
    migrate(whole, new)
    with upstream() as up:
        moved = up.image("own/app", "1.5", layer=b"after the move")
        text = f'hosts = ["{OWN}"]\n{new.file.read_text()}{_OBSERVED.format(host=HOST, url=up.url)}'
        new.file.write_text(text)
        with served(new) as server:
            observing = Observing(server)
            wait_until(lambda: observing.moves("1.5")[-1:] == [("moved", str(moved))], what="the move")
            found = server.request("GET", "/v2/team/app/manifests/1").headers["docker-content-digest"]
            SimulatedAgent(server, "h3").start({"c": f"{OWN}/team/app:1@{found}"})
            verified_by_go(server, push_and_sign(server, "after"))
    after = all_rows(new.backend)
    for table in ("journal", "log_entries", "log_nodes", "age_overrides", "kept_observations"):
        assert set(before[table]) <= set(after[table]), table
    for table in ("journal", "observations", "observed_moves", "fleet_runs", "fleet_agents"):
        assert len(after[table]) > len(before[table]), table


@pytest.mark.parametrize("kind", ["disk", "both"])
@pytest.mark.parametrize("seed", range(campaign(1, 8)))
def test_a_migration_is_killed_there_and_back(
    whole: Place, new_place: MakePlace, kind: str, seed: int
) -> None:
    chance = random.Random(seed)
    before, bytes_before = all_rows(whole.backend), content(whole.backend)
    new, home = new_place(kind), new_place("disk")
    kills = _until_done(chance, "migrate-storage", "--from", whole.file, "--to", new.file)
    assert all_rows(new.backend) == before
    new.read_only()
    kills += _until_done(chance, "migrate-storage", "--from", new.file, "--to", home.file)
    assert all_rows(home.backend) == before
    assert content(home.backend) == bytes_before
    _verified(home)
    print(f"{kills} kills")


@pytest.mark.parametrize("seed", range(campaign(1, 8)))
def test_a_backup_and_its_restoration_are_killed(whole: Place, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    root, again = root_of(whole), tmp_path / "again"
    before, bytes_before = all_rows(whole.backend), content(whole.backend)
    kills = _until_done(chance, "backup", "--root", root, tmp_path / "backup")
    kills += _until_done(chance, "restore-backup", tmp_path / "backup", "--root", again)
    listed = run_digestry("backup", "--root", root, tmp_path / "other")
    assert "log-head.json" not in listed.stdout  # nobody is told to copy it: it is of what was signed since
    restored = open_backend(again)
    # It signs nothing until somebody knows that nothing more was signed; what was damaged was looked at anew.
    others = ("jobs", "damaged")
    assert _without(all_rows(restored), others) == _without(before, others)
    assert content(restored) == bytes_before
    done = run_digestry("journal", "verify", "--root", again)
    assert done.returncode == 0, done.stdout
    print(f"{kills} kills")


def _without(tables: dict[str, list[tuple[object, ...]]], names: tuple[str, ...]) -> dict[str, object]:
    return {name: rows for name, rows in tables.items() if name not in names}


def _until_done(chance: random.Random, *line: str | Path) -> int:
    """Call a command until it gets to its end, and kill it at some moment before; return how many kills."""
    kills = 0
    while True:
        with start_digestry(*line, env=dict(os.environ), stderr=subprocess.PIPE) as process:
            longest = _LONGEST_SECONDS * 1.4**kills
            try:
                code = process.wait(timeout=chance.uniform(0.02, longest))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait(timeout=PATIENCE)
                kills += 1
                continue
            assert process.stderr is not None
            said = process.stderr.read().decode()
            if code and _LOCKED in said:
                time.sleep(0.5)
                continue
            assert code == 0, said
            return kills
