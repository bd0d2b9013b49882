"""Digests as they are printed, short, given back to every command that takes one."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.cli.conftest import Run
from tests.client.docker_registry import running_docker_registry
from tests.support import RegistryServer


@pytest.fixture
def full(registry: RegistryServer) -> str:
    return f"{registry.host}/short/{secrets.token_hex(6)}"


def pushed(registry: RegistryServer, full: str, *tags: str) -> list[Digest]:
    name = full.removeprefix(f"{registry.host}/")
    return [registry.push_image(name, tag, os.urandom(8)) for tag in tags]


@pytest.mark.long
def test_commands_that_ask_the_registry(run: Run, registry: RegistryServer, full: str) -> None:
    old, new = pushed(registry, full, "1.5", "1.5")
    for short in (old.encoded[:7], f"sha256:{old.short}"):
        found = run("digest", f"{full}@{short}")
        assert (found.stdout, found.stderr) == (f"{old}\n", f"{short} is {old}\n")
        assert f"{full}@{old}" in run("pull", "-q", f"{full}@{short}").stdout
        assert json.loads(run("inspect", "--remote", "--format", "json", f"{full}@{short}").stdout)[
            "digest"
        ] == str(old)
        assert run("whose", f"{full}@{short}").stdout.splitlines()[1].split()[0] == "1.5"
        assert (
            full
            in f"{registry.host}/{run('whose', short, '--registry', registry.host).stdout.splitlines()[1]}"
        )
        restored = run("restore", f"{full}:1.5", "--to", short)
        assert f"Digest: {old}" in restored.stdout
        assert f"{full}:1.5 is {old}" in run("whose", f"{full}:1.5").stderr
        run("restore", f"{full}:1.5", "--to", new.short)
    said = run(
        "advisory",
        "add",
        f"{full}@{old.short}",
        "--status",
        "affected",
        "--id",
        "CVE-1",
        "--fixed-by",
        new.short,
    )
    assert f"CVE-1: affected: {full}@{old}" in said.stdout
    assert new.short in run("advisory", "list", f"{full}@{old.short}").stdout
    assert "CVE-1" in run("advisory", "show", f"{full}@{old.short}").stdout


def test_what_is_not_there_says_where_was_looked(run: Run, registry: RegistryServer, full: str) -> None:
    pushed(registry, full, "1")
    for command in ("digest", "pull", "whose", "inspect"):
        missing = run(command, f"{full}@0000000", status=4)
        assert f"no digest begins with 0000000 in {full} and its history" in missing.stderr
    assert "in what you may see of" in run("whose", "0000000", "--registry", registry.host, status=4).stderr
    assert "no digest or image ID in the local store" in run("rmi", "0000000", status=4).stderr
    for text in ("abc", "sha256:abc", f"{full}@abc", f"{full}@sha256:ABCDEF01"):
        assert run("whose", text, "--registry", registry.host, status=2).stderr if "@" not in text else True


def test_another_registry_is_asked_for_what_its_tags_point_to(run: Run, tmp_path: Path) -> None:
    with running_docker_registry() as host:
        app = tmp_path / "app"
        app.mkdir()
        for text in ("one", "two"):
            (app / "file").write_text(text)
            run("pack", app, "-t", f"{host}/app:{text}", "--push", "-q")
        digest = Digest.parse(run("digest", f"{host}/app:one").stdout.strip())
        assert run("digest", f"{host}/app@{digest.short}").stdout == f"{digest}\n"
        missing = run("digest", f"{host}/app@0000000", status=4)
        assert (
            f"what the tags of {host}/app point to now, which is all that {host} can be asked"
            in missing.stderr
        )
        assert "cannot be asked" in run("whose", digest.short, "--registry", host, status=3).stderr


@pytest.mark.long
def test_commands_of_the_local_store(run: Run, registry: RegistryServer, full: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    made = []
    for text in ("1", "2", "3"):
        (app / "file").write_text(text)
        made.append(Digest.parse(run("pack", app, "-t", f"{full}:1", "-q").stdout.strip()))
    listed = [line.split() for line in run("images", "--digests").stdout.splitlines()[1:]]
    assert [line[2] for line in listed] == [str(digest) for digest in (made[2], *made[:2])]
    (image_id,) = {line[3] for line in listed if line[2] == str(made[0])}
    for short in (made[0].short, image_id, str(made[0])):
        assert f"Digest:      {made[0]}" in run("inspect", short).stdout
        assert run("digest", "--local", short).stdout == f"{made[0]}\n"
        assert len(run("images", short).stdout.splitlines()) == 2
    assert f"{full}:old@{made[0]}" in run("tag", image_id, f"{full}:old").stdout
    assert f"Digest: {made[1]}" in run("push", f"{full}@{made[1].short}").stdout
    assert f"Digest: {made[0]}" in run("push", image_id).stdout
    run("tag", image_id, f"{registry.host}/short/elsewhere:1")
    assert "does not say where to push it" in run("push", image_id, status=2).stderr
    quiet = run("images", "-q").stdout.split()
    assert {str(digest) for digest in made} == set(quiet)
    removed = run("rmi", *quiet).stdout
    assert all(f"Deleted: {digest}" in removed for digest in made)
    assert run("images", "-q").stdout == ""


def test_content_of_a_root(run: Run, registry: RegistryServer, full: str) -> None:
    (digest,) = pushed(registry, full, "1")
    done = run("scrub", "--root", registry.root, digest.short)
    assert f"{digest.short} is {digest}" in done.stderr
    assert "1 blob" in done.stdout
    assert (
        "no digest begins with 0000000 in the registry in"
        in run("scrub", "--root", registry.root, "0000000", status=4).stderr
    )


def test_what_is_too_short_for_a_prefix_says_how_much_is_enough(
    run: Run, registry: RegistryServer, full: str
) -> None:
    pushed(registry, full, "1.5")
    for command in (["whose"], ["digest"], ["inspect"], ["images"]):
        said = run(*command, f"{full}@dead", status=2).stderr
        assert "'dead' is neither a digest nor the beginning of one" in said
        assert "7 hex digits" in said
