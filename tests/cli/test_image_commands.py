"""The verbs of images, as a user calls them: a real process, a real registry."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from tests.client.docker_registry import running_docker_registry
from tests.support import RegistryServer, digestry, run_digestry

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a verb with a home of its own; ``status`` is the exit code that it must have."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("DIGESTRY_", "SOURCE_DATE"))
    }
    environment |= {"DIGESTRY_HOME": str(tmp_path / "home"), "DOCKER_CONFIG": str(tmp_path / "docker")}

    def run(*arguments: str | Path, status: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        done = run_digestry(*arguments, env=environment | more)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def name(registry: RegistryServer) -> str:
    return f"{registry.host}/cli/{secrets.token_hex(6)}"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    root.mkdir()
    (root / "program").write_text("#!/bin/sh\n")
    (root / "program").chmod(0o755)
    return root


def documents(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


@pytest.mark.long
def test_the_story_of_one_moved_tag(run: Run, name: str, app: Path) -> None:
    tag = f"{name}:1.5"
    made = run("pack", app, "-t", tag, "--entrypoint", "/program --serve", "--push").stdout.splitlines()
    old = Digest.parse(made[0].removeprefix("Digest: "))
    assert made[1:] == ["Status: 1.5 is new", tag]
    assert run("digest", tag).stdout == f"{old}\n"
    assert run("digest", "--local", tag).stdout == f"{old}\n"
    again = run("push", tag).stdout.splitlines()
    assert again == [f"Digest: {old}", "Status: 1.5 was already there, with this digest", tag]

    (app / "fix").write_text("fixed")
    packed = run("pack", app, "-t", tag)
    new = Digest.parse(packed.stdout.splitlines()[0].removeprefix("Digest: "))
    assert packed.stdout.splitlines()[1] == tag
    assert f"pointed to {old} before" in packed.stderr
    assert f"Status: 1.5 has moved, from {old}" in run("push", tag).stdout

    listed = run("images", "--digests").stdout.splitlines()
    assert listed[0].split() == ["REPOSITORY", "TAG", "DIGEST", "IMAGE", "ID", "CREATED", "SIZE"]
    assert [line.split()[:3] for line in listed[1:]] == [
        [name, "1.5", str(new)],
        [name, "<none>", str(old)],
    ]

    events = run("log", tag).stdout.splitlines()
    assert events[0].split() == ["WHEN", "EVENT", "FROM", "TO", "BY", "CLIENT"]
    assert events[1].split()[1:4] == ["moved", f"sha256:{old.short}", f"sha256:{new.short}"]
    assert events[2].split()[1:4] == ["created", "-", f"sha256:{old.short}"]
    assert "digestry/" in events[1]
    log = documents(run("log", tag, "--format", "json"))
    assert [(event["event"], event["from_digest"], event["to_digest"]) for event in log] == [
        ("moved", str(old), str(new)),
        ("created", None, str(old)),
    ]
    assert len(documents(run("log", name, "-n", "1", "--format", "json"))) == 1
    assert run("log", tag, "--no-trunc").stdout.count(str(old)) == 2

    tags = documents(run("tags", name, "--format", "json"))
    assert [(row["tag"], row["digest"]) for row in tags] == [("1.5", str(new))]
    assert tags[0]["updated_at"].endswith("Z")
    assert f"sha256:{new.short}" in run("tags", name).stdout

    removed = run("rmi", tag, f"{name}@{old}").stdout
    assert f"Untagged: {tag}" in removed
    assert f"Deleted: {old}" in removed
    assert documents(run("images", "--format", "json")) == []

    pulled = run("pull", f"{name}@{old}")
    assert pulled.stdout.splitlines() == [f"Digest: {old}", "Status: pulled", f"{name}@{old}"]
    both = run("pull", f"{tag}@{old}")
    assert f"now points to {new}" in both.stderr
    (row,) = documents(run("images", "--format", "json"))
    assert (row["repository"], row["tag"], row["digest"]) == (name, None, str(old))
    assert set(row) == {
        "repository",
        "tag",
        "digest",
        "image_id",
        "created_at",
        "size",
        "media_type",
        "platforms",
        "absent_platforms",
        "problem",
    }


@pytest.mark.long
def test_pull_and_tag(run: Run, name: str, registry: RegistryServer) -> None:
    repository = name.partition("/")[2]
    digest = registry.push_image(repository, "latest")
    first = run("pull", name)
    assert first.stdout.splitlines() == [f"Digest: {digest}", "Status: pulled", f"{name}:latest"]
    assert "latest: pulling from" in first.stderr
    assert ": pulled (" in first.stderr
    assert "Status: up to date" in run("pull", name).stdout
    quiet = run("pull", "-q", name)
    assert (quiet.stdout, quiet.stderr) == (f"{name}:latest\n", "")
    assert run("tag", name, f"{name}:copy").stdout == f"{name}:copy@{digest}\n"
    assert {row["tag"] for row in documents(run("images", name, "--format", "json"))} == {"latest", "copy"}
    assert run("images", "-q").stdout == f"{digest}\n"
    assert len(run("images", f"{name}:copy").stdout.splitlines()) == 2
    newer = registry.push_image(repository, "latest", b"newer")
    assert f"Status: latest has moved, from {digest}" in run("pull", name).stdout
    run("tag", f"{name}@{newer}", f"{name}:{'x' * 129}", status=2)
    run("tag", name, f"{name}:t@{newer}", status=2)


@pytest.mark.long
def test_platforms(run: Run, name: str, registry: RegistryServer) -> None:
    repository = name.partition("/")[2]
    host = Platform.of_host()
    mine = registry.push_image(repository, "mine", b"mine")
    other = registry.push_image(repository, "other", b"other")
    entries = [
        {
            "mediaType": media_types.OCI_MANIFEST,
            "digest": str(digest),
            "size": int(
                registry.request("HEAD", f"/v2/{repository}/manifests/{digest}").headers["content-length"]
            ),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for digest, architecture in ((other, "s390x"), (mine, host.architecture))
    ]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    top = registry.push_manifest(repository, "1", index)
    assert f"Digest: {top}" in run("pull", f"{name}:1").stdout
    (row,) = documents(run("images", f"{name}:1", "--format", "json"))
    assert row["absent_platforms"] == ["linux/s390x"]
    local = documents(run("inspect", f"{name}:1", "--format", "json"))
    remote = documents(run("inspect", "--remote", f"{name}:1", "--format", "json"))
    assert (local.pop("source"), remote.pop("source")) == ("local", "registry")
    assert local == remote
    assert local["image"]["digest"] == str(mine)
    assert [entry["platform"] for entry in local["manifests"]] == ["linux/s390x", str(host)]
    assert "Manifest:" in run("inspect", f"{name}:1").stdout
    run("inspect", "--platform", "linux/s390x", f"{name}:1", status=4)
    run("pull", "--platform", "linux/riscv64", f"{name}:1", status=4)
    run("pull", "--platform", "linux/s390x", "--all-platforms", f"{name}:1", status=2)
    run("pull", "--all-platforms", f"{name}:1")
    assert run("inspect", "--platform", "linux/s390x", f"{name}:1").stdout.count(str(other)) == 2


def test_inspect_raw_is_exact(run: Run, name: str, registry: RegistryServer, app: Path) -> None:
    repository = name.partition("/")[2]
    manifest = registry.image(repository)
    raw = json.dumps(manifest, indent=7).encode() + b"\n\n"
    digest = registry.push_manifest(repository, "1", raw)
    done = subprocess.run(digestry("inspect", "--raw", f"{name}:1"), capture_output=True, check=True)
    assert done.stdout == raw
    assert Digest.of(done.stdout) == digest
    text = run("inspect", f"{name}:1").stdout
    assert f"Digest:      {digest}" in text
    assert "Platform:    linux/amd64" in text


@pytest.mark.long
def test_pack_options(run: Run, name: str, app: Path) -> None:
    arguments = [
        "pack",
        app,
        "-t",
        name,
        "-e",
        "A=1",
        "-l",
        "x=y",
        "-w",
        "/srv",
        "-u",
        "1:1",
        "--expose",
        "80",
    ]
    run(*arguments, "--entrypoint", '["/program", "a b"]', "--cmd", "'c d' e", "--platform", "linux/arm64")
    image = documents(run("inspect", name, "--platform", "linux/arm64", "--format", "json"))["image"]
    assert image["platform"] == "linux/arm64"
    assert image["config"] == {
        "User": "1:1",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["A=1"],
        "Entrypoint": ["/program", "a b"],
        "Cmd": ["c d", "e"],
        "WorkingDir": "/srv",
        "Labels": {"x": "y"},
    }
    first = run("pack", app, "-q", "-t", name).stdout
    assert run("pack", app, "-q", "-t", name).stdout == first
    assert run("pack", app, "-q", "-t", name, SOURCE_DATE_EPOCH="1").stdout != first
    bad = run("pack", app, "-t", name, SOURCE_DATE_EPOCH="yesterday", status=2)
    assert "SOURCE_DATE_EPOCH" in bad.stderr
    assert "hint:" in bad.stderr
    run("pack", app / "nowhere", "-t", name, status=4)
    run("pack", app, "-t", name, "--entrypoint", "'open", status=2)
    run("pack", app, "-t", name, "--label", "x", status=2)
    os.mkfifo(app / "pipe")
    assert "pipe is a FIFO" in run("pack", app, "-t", name, status=2).stderr


@pytest.mark.long
def test_what_is_not_there(run: Run, name: str, registry: RegistryServer) -> None:
    for verb in ("pull", "push", "rmi", "inspect", "digest", "log", "tags"):
        done = run(verb, f"{name}:nope" if verb != "tags" else name, status=4)
        assert name in done.stderr or registry.host in done.stderr
        assert done.stdout == ""
    assert run("images", name).stdout.splitlines()[1:] == []
    assert "127.0.0.1:1" in run("digest", "127.0.0.1:1/a", status=3).stderr
    run("digest", "UPPER:case:", status=2)
    run("log", f"{name}@{Digest.of(b'x')}", status=2)


def test_damage_in_the_store(run: Run, name: str, app: Path, tmp_path: Path) -> None:
    made = run("pack", app, "-q", "-t", f"{name}:1")
    digest = Digest.parse(made.stdout.strip())
    (tmp_path / "home/images/blobs/sha256" / digest.encoded).write_text("damaged")
    listed = run("images", status=5)
    assert "is damaged" in listed.stderr
    assert "digestry rmi" in listed.stderr
    (row,) = documents(run("images", "--format", "json", status=5))
    assert row["digest"] == str(digest)
    assert row["problem"]
    assert run("push", f"{name}:1", status=5).stderr
    (tmp_path / "home/images/index.json").write_text("{")
    assert "index.json" in run("images", status=5).stderr


@pytest.mark.long
@pytest.mark.peer("docker-registry")
def test_a_registry_without_history(run: Run, app: Path) -> None:
    with running_docker_registry() as host:
        run("pack", app, "-t", f"{host}/cli/app:1", "--push")
        assert "keeps no history" in run("log", f"{host}/cli/app:1", status=3).stderr
        assert "UPDATED" not in run("tags", f"{host}/cli/app").stdout
        run("log", f"{host}/cli/app:2", status=4)


@pytest.mark.long
def test_inspect_by_a_template(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    options = ("--env", "MODE=fast", "--label", "a.b=c", "--platform", "linux/arm64")
    run("pack", tmp_path / "app", "-t", "app:1", *options)
    shown = json.loads(run("inspect", "app:1", "--format", "json").stdout)

    def by(template: str) -> str:
        return run("inspect", "app:1", "--format", template).stdout.rstrip("\n")

    assert by("{{.Digest}} {{.Id}}") == f"{shown['digest']} {shown['image']['image_id']}"
    assert by("{{.Platform}}") == "linux/arm64"
    assert json.loads(by("{{json .Config.Env}}")) == json.loads(by("{{.Config.env}}")) == ["MODE=fast"]
    assert json.loads(by("{{json .Config.Labels}}")) == {"a.b": "c"}
    assert by("{{.Config.Nothing.Here}}") == ""
    assert json.loads(by("{{json .}}"))["image"] == shown["image"]
    assert "Did you mean" in run("inspect", "app:1", "--format", "{{.Digst}}", status=2).stderr
