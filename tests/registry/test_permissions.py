"""The root is its owner's alone: other users of the machine read nothing in it, and hold no lock of it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from digestry.registry import permissions
from digestry.registry.permissions import make_private
from tests.backends import open_blobs
from tests.stores import blob_file, needs_disk
from tests.support import open_directory, run_digestry, start_registry


def open_to_others(root: Path) -> list[str]:
    """What somebody else than the owner may do something with."""
    found = [root, *root.rglob("*")]
    return [str(path) for path in found if not path.is_symlink() and path.lstat().st_mode & 0o077]


@pytest.fixture(autouse=True)
def _of_the_disk(tmp_path: Path) -> None:
    needs_disk(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_what_is_served_and_backed_up_is_private_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        settings = tmp_path / "registry.toml"
        settings.write_text('[collection]\nevery = "off"\n')
        server = start_registry(tmp_path / "root", "--config", str(settings))
        try:
            server.push_image("x", "t")
            server.push_blob("x", os.urandom(100_000))
            server.request("POST", "/v2/x/blobs/uploads/")
            assert open_to_others(server.root) == []
            for command in (
                ("gc", "--root", server.root, "--config", settings),
                ("scrub", "--root", server.root),
                ("token", "create", "--root", server.root, "robot"),
                ("backup", "--root", server.root, tmp_path / "backup"),
                ("backup", "--root", server.root, tmp_path / "backup.tar"),
                ("restore-backup", tmp_path / "backup", "--root", tmp_path / "again"),
            ):
                done = run_digestry(*command)
                assert done.returncode == 0, (command, done)
        finally:
            server.stop()
    finally:
        os.umask(before)
    for made in (server.root, tmp_path / "backup", tmp_path / "backup.tar", tmp_path / "again"):
        assert open_to_others(made) == []


@pytest.mark.long
def test_an_open_root_of_before_is_closed_at_the_next_start(tmp_path: Path) -> None:
    server = start_registry(tmp_path / "root")
    server.push_image("x", "t")
    server.stop()
    outside = tmp_path / "outside"
    outside.write_text("not the registry's")
    outside.chmod(0o644)
    (server.root / "link").symlink_to(outside)
    for path in [server.root, *server.root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o777 if path.is_dir() else 0o666)
    again = start_registry(tmp_path / "root")
    try:
        assert open_to_others(again.root) == []
        assert stat.S_IMODE(outside.stat().st_mode) == 0o644
        assert "let others in" in again.log.read_text()
    finally:
        again.stop()
    size = len(again.log.read_text())
    start_registry(tmp_path / "root").stop()
    assert "let others in" not in again.log.read_text()[size:]


@pytest.mark.long
def test_a_group_may_be_let_in_to_read_but_not_to_lock(tmp_path: Path) -> None:
    settings = tmp_path / "registry.toml"
    settings.write_text("group-access = true\n")
    server = start_registry(tmp_path / "root", "--config", str(settings))
    server.push_image("x", "t")
    server.stop()
    modes = {path: path.lstat().st_mode for path in [server.root, *server.root.rglob("*")]}
    assert not [path for path, mode in modes.items() if mode & 0o027]
    assert modes[server.root] & stat.S_IRGRP
    for name in ("catalog.db", "audit.log", "audit-refused.log"):  # at the first start, too
        assert modes[server.root / name] & stat.S_IRGRP, name
    assert all(mode & stat.S_IRGRP for path, mode in modes.items() if path.parent.name == "sha256")
    locks = [path for path in modes if path.suffix == ".lock" or path.parent.name == "guards"]
    assert len(locks) > 2
    assert not [path for path in locks if modes[path] & 0o077]
    start_registry(tmp_path / "root").stop()  # and out again
    assert open_to_others(server.root) == []


def test_a_directory_for_everybody_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    assert make_private(tmp_path) == 0
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


@pytest.mark.long
def test_what_is_not_the_registrys_keeps_its_modes(tmp_path: Path) -> None:
    page = tmp_path / "www" / "index.html"
    page.parent.mkdir(mode=0o755)
    page.write_text("a page")
    page.chmod(0o644)
    tmp_path.chmod(0o775)
    server = start_registry(tmp_path)
    try:
        server.push_image("x", "t")
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, page.parent, page)]
        assert modes == [0o755, 0o755, 0o644]
        made = [path for path in tmp_path.iterdir() if path not in (page.parent, server.log)]
        assert len(made) > 5
        assert [path for path in made if open_to_others(path)] == []
        assert "a directory of its own" in server.log.read_text()
    finally:
        server.stop()


def test_what_belongs_to_another_user_is_one_line_however_much_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_blobs(tmp_path)
    store.prepare()
    for number in range(30):
        blob_file(tmp_path, store.put(b"%d" % number)).chmod(0o644)

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(path, mode)

    said: list[str] = []
    monkeypatch.setattr(Path, "chmod", refuse)
    monkeypatch.setattr(permissions.log, "warning", lambda text, *words: said.append(text % words))
    assert make_private(tmp_path) == 0
    assert len(said) == 1
    assert "more" in said[0]


def test_a_walk_that_was_broken_off_is_begun_again(tmp_path: Path) -> None:
    store = open_blobs(tmp_path)
    store.prepare()
    digest = store.put(b"content")
    folder = blob_file(tmp_path, digest).parent
    for path in (folder, blob_file(tmp_path, digest)):
        path.chmod(0o755 if path.is_dir() else 0o644)
    tmp_path.chmod(0o700)  # as if that had come first, and then the end
    make_private(tmp_path)
    assert open_to_others(tmp_path) == []


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_files_of_root_are_not_put_into_another_users_registry_unsaid(tmp_path: Path) -> None:
    start_registry(tmp_path / "root").stop()
    for path in [tmp_path / "root", *(tmp_path / "root").rglob("*")]:
        os.chown(path, 65534, 65534)
    done = run_digestry("token", "rotate-key", "--root", tmp_path / "root")
    assert done.returncode == 2
    assert "sudo -u" in done.stderr
    assert not list((tmp_path / "root").glob("keys/*"))
    server = start_registry(tmp_path / "root")
    server.stop()
    assert "belongs to another user (number 65534)" in server.log.read_text()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_another_user_reads_nothing_and_holds_no_lock() -> None:
    with open_directory("digestry-private-") as directory:
        server = start_registry(directory / "root")
        try:
            digest = server.push_blob("x", b"private")
            seen = subprocess.run(
                ["find", str(server.root), "-readable"],
                capture_output=True,
                text=True,
                user=65534,
                check=False,
            )
            assert seen.stdout == ""
            guard = server.root / "guards" / digest.encoded[:2]
            for target in (guard, server.root, server.root / "blobs"):
                held = subprocess.run(
                    ["flock", "-n", "-s", str(target), "true"],
                    capture_output=True,
                    user=65534,
                    check=False,
                )
                assert held.returncode != 0, target
        finally:
            server.stop()
