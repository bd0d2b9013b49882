"""``unpack`` as a user calls it."""

from __future__ import annotations

import os
import secrets
import tarfile
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.images.making import Item, archive, tree
from tests.support import RegistryServer


def test_from_the_local_store_and_from_a_registry(run: Run, registry: RegistryServer, tmp_path: Path) -> None:
    name = f"{registry.host}/unpack/{secrets.token_hex(6)}:1"
    run("pack", tree(tmp_path / "app", etc__motd="hello"), "-t", name, "--push")
    digest = run("digest", name).stdout.strip()
    done = run("unpack", name, tmp_path / "local")
    assert (done.stdout.strip(), done.stderr) == (digest, "2 entries\n")
    run("unpack", name, tmp_path / "remote", "--remote")
    for place in ("local", "remote"):
        assert (tmp_path / place / "etc/motd").read_text() == "hello"
    (tmp_path / "empty").mkdir()
    run("unpack", name, tmp_path / "empty")
    assert "not empty" in run("unpack", name, tmp_path / "empty", status=2).stderr
    run("unpack", f"{name}0", tmp_path / "no", status=4)
    assert not (tmp_path / "no").exists()


def test_what_is_skipped_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(
        archive(
            [Item(f"dev/{n}\x1b[31m", kind=tarfile.FIFOTYPE) for n in range(25)] + [Item("su", mode=0o4755)]
        )
    )
    run("pack", tmp_path / "root.tar", "-t", "app:1")
    done = run("unpack", "app:1", tmp_path / "root", "--no-same-owner")
    assert done.stderr.count("skipped dev/") == 20
    assert "skipped 5 more" in done.stderr
    assert "\x1b" not in done.stderr
    assert (tmp_path / "root/su").stat().st_mode & 0o7777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="root keeps owners unless it says otherwise")
def test_root_keeps_owners(run: Run, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(archive([Item("su", mode=0o4755)]))
    run("pack", tmp_path / "root.tar", "-t", "app:1")
    run("unpack", "app:1", tmp_path / "root")
    assert (tmp_path / "root/su").stat().st_mode & 0o7777 == 0o4755
