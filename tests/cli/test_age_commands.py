"""``digestry resolve``, ``--min-age`` and ``digestry age``, against real registries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.catalog import clock
from digestry.catalog.journal import Origin
from digestry.model.digest import Digest
from tests.registry.pull_through.support import upstream
from tests.registry.test_min_age import DAY, HOUR, catalog_at, image, tag_at
from tests.support import RegistryServer, run_digestry, running_registry


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    """A registry with a tag that moved three hours ago; without any rules."""
    with running_registry() as started:
        for name, ago in (("old", 30 * DAY), ("new", 3 * HOUR)):
            tag_at(started, "app", "1.5", image(started, "app", name), ago)
        yield started


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIGESTRY_HOME", str(tmp_path / "home"))
    return tmp_path


def digests(server: RegistryServer) -> list[Digest]:
    with catalog_at(server, clock.now()) as catalog:
        return [
            event.to_digest
            for event in reversed(catalog.journal("app", tag="1.5", limit=9))
            if event.to_digest
        ]


@pytest.mark.long
def test_resolve(server: RegistryServer, home: Path) -> None:
    old, new = digests(server)
    name = f"{server.host}/app:1.5"
    done = run_digestry("resolve", name, "--min-age", "7d")
    assert (done.returncode, done.stdout) == (0, f"{old}\n"), done.stderr
    assert f"{old} stood under 1.5 for 29 days 21 hours, from " in done.stderr
    assert f"the newer {new} stood for 3 hours" in done.stderr
    assert run_digestry("resolve", name, "--min-age", "90min").stdout == f"{new}\n"
    found = json.loads(run_digestry("resolve", name, "--min-age", "7d", "--format", "json").stdout)
    assert (found["stood"]["digest"], found["newer"][0]["digest"]) == (str(old), str(new))
    assert (found["basis"], found["refusal"], found["least_seconds"]) == ("journal", None, 7 * 86400)


def test_nothing_is_old_enough(server: RegistryServer, home: Path) -> None:
    name = f"{server.host}/app:1.5"
    done = run_digestry("resolve", name, "--min-age", "100d")
    assert (done.returncode, done.stdout) == (1, "")
    assert "has stood under this tag for 100 days" in done.stderr
    done = run_digestry("resolve", name, "--min-age", "100d", "--format", "json")
    assert (done.returncode, json.loads(done.stdout)["refusal"]) == (1, "young")
    assert run_digestry("pull", name, "--min-age", "100d").returncode == 1
    assert run_digestry("resolve", f"{server.host}/app:2", "--min-age", "7d").returncode == 4
    assert run_digestry("resolve", f"{server.host}/nothing:1", "--min-age", "7d").returncode == 4
    for wrong in ("7", "x", "0d", "4000d"):
        assert run_digestry("resolve", name, "--min-age", wrong).returncode == 2
    done = run_digestry("resolve", f"{server.host}/app@{digests(server)[0]}", "--min-age", "7d")
    assert (done.returncode, "is for a tag" in done.stderr) == (2, True)


def test_a_registry_without_history_is_no_reason_to_guess(home: Path) -> None:
    with upstream() as other:
        other.image("team/app", "1")
        for command in (("resolve",), ("pull",), ("copy",)):
            target = ("oci:" + str(home / "layout"),) if command == ("copy",) else ()
            done = run_digestry(*command, f"{other.liar.host}/team/app:1", *target, "--min-age", "7d")
            assert done.returncode == 3
            assert "keeps no history of its tags" in done.stderr
        assert run_digestry("resolve", f"{other.liar.host}/team/app:2", "--min-age", "7d").returncode == 4


def test_pull_stores_the_aged_image_under_its_tag(server: RegistryServer, home: Path) -> None:
    old, new = digests(server)
    name = f"{server.host}/app:1.5"
    done = run_digestry("pull", name, "--min-age", "7d", "--all-platforms")
    assert done.returncode == 0, done.stderr
    assert f"the newer {new} stood for 3 hours" in done.stderr
    assert f"Digest: {old}" in done.stdout
    assert run_digestry("digest", "--local", name).stdout == f"{old}\n"
    assert run_digestry("pull", name, "--at", "1h", "--min-age", "7d").returncode == 2


def test_copy_and_sync(server: RegistryServer, home: Path) -> None:
    old, new = digests(server)
    source = f"{server.host}/app"
    done = run_digestry("copy", f"{source}:1.5", f"{server.host}/copied:1.5", "--min-age", "7d")
    assert done.returncode == 0, done.stderr
    assert str(new) in done.stderr
    assert run_digestry("digest", f"{server.host}/copied:1.5").stdout == f"{old}\n"
    many = ("copy", "--all-tags", source, f"{server.host}/many", "--min-age", "7d")
    assert run_digestry(*many).returncode == 0
    assert run_digestry("digest", f"{server.host}/many:1.5").stdout == f"{old}\n"
    assert run_digestry("copy", f"{source}@{old}", f"{server.host}/x:1", "--min-age", "7d").returncode == 2
    file = home / "sync.toml"
    file.write_text(
        f'[[copy]]\nsource = "{source}:1.5"\ntarget = "{server.host}/synced:1.5"\nmin-age = "7d"\n'
        f'[[copy]]\nsource = "{source}:1.5"\ntarget = "{server.host}/synced:later"\nmin-age = "1h"\n'
    )
    assert run_digestry("sync", str(file)).returncode == 0
    assert run_digestry("digest", f"{server.host}/synced:1.5").stdout == f"{old}\n"
    assert run_digestry("digest", f"{server.host}/synced:later").stdout == f"{new}\n"
    file.write_text(f'[[copy]]\nsource = "{source}:1.5"\ntarget = "{server.host}/synced:default"\n')
    assert run_digestry("sync", str(file), "--min-age", "7d").returncode == 0
    assert run_digestry("digest", f"{server.host}/synced:default").stdout == f"{old}\n"


def test_allow_list_revoke(server: RegistryServer, home: Path) -> None:
    _, new = digests(server)
    name = f"{server.host}/app"
    done = run_digestry(
        "age", "allow", f"{name}:1.5", "--reason", "CVE-2026-1 is fixed", "--until", "2099-01-01"
    )
    assert done.returncode == 0, done.stderr
    assert f"Let through: app:1.5@{new}" in done.stdout
    assert run_digestry("resolve", f"{name}:1.5", "--min-age", "7d").stdout == f"{new}\n"
    (row,) = json.loads(run_digestry("age", "list", name, "--format", "json").stdout)
    assert (row["tag"], row["digest"], row["reason"]) == ("1.5", str(new), "CVE-2026-1 is fixed")
    assert row["until"].startswith("2099-01-01")
    here = run_digestry("age", "list", "--root", server.root, "--format", "json")
    assert json.loads(here.stdout) == [row]
    ended = run_digestry("age", "revoke", name, str(row["number"]), "--reason", "it was not")
    assert ended.returncode == 0, ended.stderr
    assert run_digestry("resolve", f"{name}:1.5", "--min-age", "7d").stdout != f"{new}\n"
    assert run_digestry("age", "revoke", name, str(row["number"]), "--reason", "again").returncode == 4
    assert json.loads(run_digestry("age", "list", name, "--format", "json").stdout) == []
    (row,) = json.loads(run_digestry("age", "list", name, "--ended", "--format", "json").stdout)
    assert row["ended_at"] is not None
    # In the registry's own files, by who may write them.
    made = run_digestry("age", "allow", f"app@{new}", "--reason", "by hand", "--root", server.root)
    assert made.returncode == 0, made.stderr
    number = made.stdout.partition("Number: ")[2].split()[0]
    assert run_digestry("resolve", f"{name}:1.5", "--min-age", "7d").stdout == f"{new}\n"
    gone = run_digestry("age", "revoke", "app", number, "--reason", "by hand", "--root", server.root)
    assert gone.returncode == 0, gone.stderr
    assert run_digestry("age", "allow", name, "--reason", "all of it").returncode == 3
    assert run_digestry("age", "allow", f"{name}:9", "--reason", "x").returncode == 4
    assert run_digestry("age", "allow", f"{name}:1.5").returncode == 2
    assert run_digestry("journal", "verify", "--root", server.root).returncode == 0


def test_readers_of_the_journal_do_not_take_an_act_for_a_move(server: RegistryServer, home: Path) -> None:
    """What tells where a tag pointed is the same before an override and after it."""
    name = f"{server.host}/app"
    old, new = digests(server)

    def told() -> list[str]:
        commands = (
            ("log", f"{name}:1.5", "--format", "json"),
            ("tags", name, "--format", "json"),
            ("whose", f"{name}@{new}", "--format", "json"),
            ("whose", f"{name}@{old}", "--format", "json"),
        )
        http = (
            "/v2/app/_oci/tag-history/1.5",
            "/v2/app/tags/list",
            f"/v2/app/_digestry/whose/{new}",
            f"/v2/app/_digestry/digests/{str(new)[:20]}",
        )
        return [run_digestry(*command).stdout for command in commands] + [
            server.request("GET", path).body.decode() for path in http
        ]

    before = told()
    assert all(before)
    with catalog_at(server, clock.now()) as catalog:
        for wanted in ({"tag": "1.5"}, {"digest": new}, {"ends_at": clock.now() + DAY}):
            made, _ = catalog.age_overrides.allow("app", origin=Origin("alice", reason="urgent"), **wanted)
            catalog.age_overrides.revoke("app", made.number, origin=Origin("alice", reason="done"))
        spans = catalog.tag_history.tags_at("app", clock.now(), limit=10)
        assert [span.tag for span in spans] == ["1.5"]
        assert catalog.verify_journal() is None
        restored = catalog.restore_tag("app", "1.5", old, origin=Origin("alice"))
        assert restored.from_digest == new
        catalog.restore_tag("app", "1.5", new, origin=Origin("alice"))
    assert len(json.loads(told()[0])) == len(json.loads(before[0])) + 2
