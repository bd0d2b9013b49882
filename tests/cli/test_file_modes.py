"""The client's files: what holds content or logins is its owner's alone, whatever the umask."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.making import tree
from tests.support import RegistryServer, digestry


def reachable(top: Path) -> Iterator[str]:
    """What somebody else than the owner can list, read or change at and below ``top``."""
    mode = stat.S_IMODE(top.lstat().st_mode)
    if top.is_dir():
        if mode & 0o066:
            yield str(top)
        if mode & 0o011:
            for path in top.iterdir():
                yield from reachable(path)
    elif mode & 0o077:
        yield str(top)


@pytest.mark.long
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_content_and_logins_are_private_whatever_the_umask(
    registry: RegistryServer, tmp_path: Path, mask: int
) -> None:
    home, docker = tmp_path / "home", tmp_path / "docker"
    environment = {**os.environ, "DIGESTRY_HOME": str(home), "DOCKER_CONFIG": str(docker)}
    name = f"{registry.host}/modes/{mask}:1"
    old = tmp_path / "old.tar"

    def run(*arguments: str | Path, given: str = "") -> None:
        subprocess.run(
            digestry(*arguments),
            env=environment,
            input=given,
            text=True,
            check=True,
            capture_output=True,
            preexec_fn=lambda: os.umask(mask),
        )

    run("login", registry.host, "--username", "me", "--password-stdin", given="secret")
    run("pack", tree(tmp_path / "app", a="x" * 2_000_000), "-t", name, "--push")
    run("rmi", name)
    run("pull", name)
    run("save", "-o", old, name)
    run("load", "-i", old)
    run("copy", name, f"{registry.host}/modes/{mask}:2")
    run("copy", f"docker-archive:{old}", f"oci:{tmp_path / 'layout'}:1")
    for made in (home / "images", home / "transfers", home / "uploads", docker):
        if made.exists():
            assert list(reachable(made)) == []
    assert (home / "images").is_dir()
    assert (docker / "config.json").is_file()
    # A layout that a copy makes is the user's own file, as the umask says.
    assert stat.S_IMODE((tmp_path / "layout").stat().st_mode) == 0o777 & ~mask
