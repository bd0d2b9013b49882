"""``pack`` as a user calls it: bases, archives, several platforms."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.images.making import Item, archive, tree
from tests.support import RegistryServer, digestry


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return tree(tmp_path / "app", program="#!/bin/sh\n")


def manifest(run: Run, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("inspect", "--raw", name).stdout)
    return found


@pytest.mark.long
def test_upon_a_base_of_a_registry(run: Run, registry: RegistryServer, app: Path, tmp_path: Path) -> None:
    base = f"{registry.host}/base/{secrets.token_hex(6)}:1"
    lower = tree(tmp_path / "lower", etc__os="base")
    run("pack", lower, "-t", base, "--user", "7:7", "--cmd", "sh", "--push")
    digest = run("digest", base).stdout.strip()
    run("rmi", base, f"{base.rpartition(':')[0]}@{digest}")
    made = run("pack", app, "-t", "app:1", "--base", base, "--annotation", "a=b", "--compress", "zstd")
    assert "pulling from" in made.stderr
    document = manifest(run, "app:1")
    assert document["annotations"] == {
        "a": "b",
        "org.opencontainers.image.base.digest": digest,
        "org.opencontainers.image.base.name": base,
    }
    assert [layer["mediaType"].rpartition("+")[2] for layer in document["layers"]] == ["gzip", "zstd"]
    image = json.loads(run("inspect", "app:1", "--format", "json").stdout)["image"]
    assert image["config"] == {"User": "7:7", "Cmd": ["sh"]}
    # It is here by now: nobody is asked.
    again = run("pack", app, "-t", "app:1", "--base", base, "-q", "--annotation", "a=b", "--compress", "zstd")
    assert again.stderr == ""
    assert again.stdout.strip() in made.stdout
    assert "404" in run("pack", app, "-t", "app:1", "--base", f"{registry.host}/no:1", status=4).stderr
    hint = run("pack", app, "-t", "app:1", "--base", "sha256:" + "0" * 64, status=4).stderr
    assert "needs its registry's name" in hint


def test_from_standard_input(run: Run, tmp_path: Path) -> None:
    environment = {**os.environ, "DIGESTRY_HOME": str(tmp_path / "home")}

    def pack(content: bytes) -> subprocess.CompletedProcess[bytes]:
        command = digestry("pack", "-", "-t", "app:1", "--compress", "gzip")
        return subprocess.run(command, input=content, env=environment, capture_output=True, check=False)

    content = archive([Item("bin", kind=tarfile.DIRTYPE), Item("bin/su", b"x", mode=0o4755)])
    done = pack(content)
    assert (done.returncode, done.stderr.startswith(b"2 entries,")) == (0, True)
    assert run("export", "app:1", "-o", tmp_path / "out.tar").stdout == ""
    with tarfile.open(tmp_path / "out.tar") as file:
        assert file.getmember("bin/su").mode == 0o4755
    for hostile, reason in (
        (archive([Item("../../etc/passwd", b"x")]), b"leads out of the image"),
        (b"", b"may have been cut off"),
        (content[:512], b"may have been cut off"),
        (os.urandom(5000), b"cannot be a layer"),
    ):
        done = pack(hostile)
        assert (done.returncode, reason in done.stderr, done.stdout) == (5, True, b""), done.stderr
        assert b"Traceback" not in done.stderr


@pytest.mark.long
def test_several_platforms_make_an_index(run: Run, registry: RegistryServer, tmp_path: Path) -> None:
    name = f"{registry.host}/many/{secrets.token_hex(6)}:1"
    one, two, three = (tree(tmp_path / text, file=text) for text in ("one", "two", "three"))
    options = ["--platform", f"linux/amd64={one}", "--platform", f"linux/arm64={two}"]
    made = run("pack", *options, "-t", name, "--push")
    assert "linux/arm64: 1 entry" in made.stderr

    def listed() -> dict[str, str]:
        return {
            entry["platform"]["architecture"]: entry["digest"] for entry in manifest(run, name)["manifests"]
        }

    both = listed()
    assert list(both) == ["amd64", "arm64"]
    added = run("pack", three, "--platform", "linux/s390x", "-t", name, "--index", "--push")
    assert "pointed to" in added.stderr
    assert listed() == {**both, "s390x": listed()["s390x"]}
    run("pack", three, "--platform", "linux/arm64", "-t", name, "--index")
    assert {key: value == both.get(key) for key, value in listed().items()} == {
        "amd64": True,
        "s390x": False,
        "arm64": False,
    }
    run("pack", three, "-t", "single:1", "--index")
    assert len(manifest(run, "single:1")["manifests"]) == 1
    run("pack", three, "-t", "image:1")
    assert "is an image, and not an index" in run("pack", one, "-t", "image:1", "--index", status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "Missing argument"),
        (("app", "--platform", "linux/amd64=app"), "every platform has its own"),
        (("--platform", "linux/amd64=app", "--platform", "linux/arm64"), "every platform has its own"),
        (("app", "--platform", "linux/amd64", "--platform", "linux/arm64"), "a directory each"),
        (("--platform", "linux/amd64=-", "--platform", "linux/arm64=-"), "Only one archive"),
        (("--platform", "linux/amd64=app", "--platform", "linux/amd64=app"), "is there twice"),
        (("app", "--compress", "gzip", "--level", "12"), "levels 1 to 9"),
        (("app", "--level", "1"), "has no levels"),
        (("app", "--annotation", "x"), "is not KEY=VALUE"),
    ],
)
def test_what_cannot_be_meant(run: Run, app: Path, arguments: tuple[str, ...], reason: str) -> None:
    said = [text.replace("app", str(app)) if text.endswith("app") else text for text in arguments]
    assert reason in run("pack", *said, "-t", "app:1", status=2).stderr
