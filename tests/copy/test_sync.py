"""Declared copies: a file, its schema, and what moves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from digestry.copy import sync_file
from digestry.copy.places import Surroundings
from digestry.copy.sync import sync
from digestry.errors import InvalidConfiguration, RemoteNotFound
from digestry.model.reference import Reference
from tests.support import RegistryServer, run_digestry

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "sync-file.json"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_only_what_changed_moves_and_a_failure_keeps_out_nothing(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    digests = [registry.push_image(repository, tag, tag.encode()) for tag in ("1.0", "1.1", "2.0")]
    host = registry.host
    file = written(
        tmp_path / "sync.toml",
        f'[[copy]]\nsource = "{host}/{repository}/absent:1"\ntarget = "local:x:1"\n'
        f'[[copy]]\nsource = "{host}/{repository}"\ntarget = "{host}/{repository}/to"\ntags = ["1.*"]\n'
        f'[[copy]]\nsource = "{host}/{repository}:2.0"\ntarget = "oci:{tmp_path}/layout:2"\n'
        "referrers = true\n",
    )
    copies = sync_file.read_sync_file(file, Reference.parse)
    dry = list(sync(copies, around, dry_run=True))
    assert [one.moved for one in dry] == [0, 2, 1]
    assert registry.request("GET", f"/v2/{repository}/to/manifests/1.0").status == 404
    first = list(sync(copies, around))
    assert isinstance(first[0].error, RemoteNotFound)
    assert [one.moved for one in first] == [0, 2, 1]
    registry.push_image(repository, "1.1", b"another")
    second = list(sync(copies, around))
    assert [one.moved for one in second] == [0, 1, 0]
    assert second[1].result is not None
    assert {image.before for image in second[1].result.images} == set(digests[:2])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "missing required field `copy`"),
        ("copy = []", "length >= 1"),
        ("[[copy]]\nsource = 'x:1'", "missing required field `target`"),
        ("[[copy]]\nsource = 'x:1'\ntarget = 'y'\nall-tag = true", "Did you mean all-tags"),
        ("[[copy]]\nsource = 'x:1'\ntarget = 'oci:'", "copy 1 (x:1): 'oci:' names no file"),
        ("[[copy]]\nsource = 'x:1'\ntarget = 'y'\nall-tags = true", "the source x:1 names one"),
        ("[[copy]]\nsource = 'x:1'\ntarget = 'y'\nplatforms = ['a/b/c/d']", "copy 1"),
        ("[[copy]\n", "not valid TOML"),
    ],
)
def test_files_that_say_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        sync_file.read_sync_file(written(tmp_path / "sync.toml", text), Reference.parse)
    assert says in raised.value.message


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "sync.toml"
    file.write_text("[[copy]]\nsource = 'a/b'\ntarget = 'c/d'\ntags = ['1.*']", encoding="utf-8-sig")
    ((request, _),) = sync_file.read_sync_file(file, Reference.parse)
    assert request.tags == ("1.*",)


def test_yaml_is_the_same(tmp_path: Path) -> None:
    file = written(
        tmp_path / "sync.yaml",
        "copy:\n- source: a/b\n  target: c/d\n  tags: ['1.*']\n  platforms: [linux/amd64]",
    )
    ((request, options),) = sync_file.read_sync_file(file, Reference.parse)
    assert (request.tags, [str(platform) for platform in options.platforms]) == (("1.*",), ["linux/amd64"])
    for text in ("copy: [", "copy: &a [*a]", "[1, 2]", "!!python/object:os.system {}"):
        with pytest.raises(InvalidConfiguration):
            sync_file.read_sync_file(written(file, text), Reference.parse)


def test_yaml_that_stands_for_more_than_memory_holds(tmp_path: Path) -> None:
    merged = (f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 4)}]}}" for n in range(1, 30))
    lines = ["m0: &m0 {k: 1}", *merged]
    with pytest.raises(InvalidConfiguration, match="merge keys"):
        sync_file.read_sync_file(written(tmp_path / "sync.yaml", "\n".join(lines)), Reference.parse)


def test_the_published_schema_is_the_one_in_force() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(sync_file.schema()))


def test_the_command(registry: RegistryServer, repository: str, tmp_path: Path) -> None:
    digest = registry.push_image(repository, "1")
    environment = dict(os.environ, DIGESTRY_HOME=str(tmp_path / "home"), DOCKER_CONFIG=str(tmp_path))
    name = f"{registry.host}/{repository}"
    file = written(
        tmp_path / "sync.toml",
        f'[[copy]]\nsource = "{name}:1"\ntarget = "local:kept:1"\n'
        f'[[copy]]\nsource = "{name}:2"\ntarget = "local:kept:2"\n',
    )
    done = run_digestry("sync", file, env=environment)
    assert done.returncode == 4
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["STATE", "copied", "failed"]
    assert f"{name}:2" in done.stderr
    again = run_digestry("sync", file, "--format", "json", env=environment)
    found = json.loads(again.stdout)["copies"]
    assert [(one["bytes_sent"], one["error"] is None) for one in found] == [(0, True), (0, False)]
    assert found[0]["images"][0]["previous_digest"] == str(digest)
