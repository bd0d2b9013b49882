"""Unpacking as root: owners, permissions, extended attributes and devices; and what others get instead."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from digestry.errors import ContentError
from digestry.images.store import ImageStore
from digestry.images.unpack import Unpacked, unpack
from tests.images.making import image_of

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def entry(
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    owner: tuple[int, int] = (0, 0),
    link: str = "",
    device: tuple[int, int] = (0, 0),
    extended: Mapping[str, str] | None = None,
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(content), link
    (info.uid, info.gid), (info.devmajor, info.devminor) = owner, device
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (extended or {}).items()}
    return info, content


def layer(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for info, content in entries:
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def unpacked(store: ImageStore, target: Path, *layers: bytes, same_owner: bool) -> Unpacked:
    return unpack(store, image_of(store, *layers), target, same_owner=same_owner)


def described(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def skipped(made: Unpacked) -> dict[bytes, str]:
    return {one.name: one.reason for one in made.skipped}


@AS_ROOT
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_owners_and_permissions(store: ImageStore, tmp_path: Path, form: int) -> None:
    made = unpacked(
        store,
        tmp_path / "out",
        layer(
            entry(".", kind=tarfile.DIRTYPE, mode=0o711, owner=(3, 4)),
            entry("bin", kind=tarfile.DIRTYPE, mode=0o2755, owner=(5, 6)),
            entry("bin/su", b"x", mode=0o4755, owner=(7, 8)),
            entry("bin/far", kind=tarfile.SYMTYPE, link="/etc/passwd", owner=(9, 10)),
            entry("large", b"", owner=(3_000_000, 4_000_000_000)),
            entry("shut", kind=tarfile.DIRTYPE, mode=0, owner=(1, 1)),
            form=form,
        ),
        layer(entry("shut/later", b"x", owner=(2, 2)), form=form),
        same_owner=True,
    )
    root = tmp_path / "out"
    assert (made.entries, made.skipped, made.more_skipped) == (7, (), 0)
    assert described(root) == (3, 4, 0o711)
    assert described(root / "bin") == (5, 6, 0o2755)
    assert described(root / "bin/su") == (7, 8, 0o4755)
    assert described(root / "bin/far")[:2] == (9, 10)
    assert described(root / "large")[:2] == (3_000_000, 4_000_000_000)
    assert described(root / "shut") == (1, 1, 0)
    assert described(root / "shut/later")[:2] == (2, 2)
    assert Path("/etc/passwd").stat().st_uid == 0


@AS_ROOT
def test_a_root_without_an_entry_can_be_entered(store: ImageStore, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        unpacked(store, tmp_path / "out", layer(entry("a")), same_owner=True)
    finally:
        os.umask(before)
    assert described(tmp_path / "out") == (0, 0, 0o755)


@AS_ROOT
def test_extended_attributes(store: ImageStore, tmp_path: Path) -> None:
    attributes = {"user.note": "hello", "security.capability": CAPABILITY.decode("latin-1"), "system.x": "y"}
    made = unpacked(
        store,
        tmp_path / "out",
        layer(
            entry("ping", b"x", mode=0o4755, owner=(5, 5), extended=attributes),
            entry("d", kind=tarfile.DIRTYPE, extended={"user.note": "of a directory"}),
            entry("plain", b"x"),
        ),
        same_owner=True,
    )
    said = [one.reason for one in made.skipped]
    assert any("b'system.x' is of a kind that is not unpacked" in reason for reason in said)
    if any("user.note" in reason for reason in said):
        pytest.skip("this file system has no extended attributes")
    assert os.getxattr(tmp_path / "out/ping", "user.note") == b"hello"
    assert os.getxattr(tmp_path / "out/d", "user.note") == b"of a directory"
    assert os.listxattr(tmp_path / "out/plain") == []
    assert described(tmp_path / "out/ping") == (5, 5, 0o4755)


@AS_ROOT
def test_devices(store: ImageStore, tmp_path: Path) -> None:
    made = unpacked(
        store,
        tmp_path / "out",
        layer(
            entry("dev/null", kind=tarfile.CHRTYPE, mode=0o666, device=(1, 3), owner=(1, 2)),
            entry("dev/pipe", kind=tarfile.FIFOTYPE, mode=0o600),
            entry("dev/same", kind=tarfile.LNKTYPE, link="dev/null"),
        ),
        same_owner=True,
    )
    null = tmp_path / "out/dev/null"
    if b"dev/null" in skipped(made):
        assert "cannot be made here" in skipped(made)[b"dev/null"]
        assert not null.exists()
        pytest.skip("this machine lets nobody make devices")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert null.stat().st_rdev == os.makedev(1, 3)
    assert described(null) == (1, 2, 0o666)
    assert (tmp_path / "out/dev/same").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((tmp_path / "out/dev/pipe").stat().st_mode)


def test_without_owners_what_is_special_is_skipped_and_said(store: ImageStore, tmp_path: Path) -> None:
    made = unpacked(
        store,
        tmp_path / "out",
        layer(
            entry("dev/null", kind=tarfile.CHRTYPE, device=(1, 3)),
            entry("dev/sda", kind=tarfile.BLKTYPE, device=(8, 0)),
            entry("dev/pipe", kind=tarfile.FIFOTYPE),
            entry("dev/same", kind=tarfile.LNKTYPE, link="./dev/null"),
            entry("bin/su", b"x", mode=0o6755, owner=(7, 8), extended={"user.note": "x"}),
        ),
        same_owner=False,
    )
    assert sorted(skipped(made)) == [b"dev/null", b"dev/pipe", b"dev/same", b"dev/sda"]
    assert "a link to b'./dev/null', which was skipped" in skipped(made)[b"dev/same"]
    assert list((tmp_path / "out/dev").iterdir()) == []
    assert described(tmp_path / "out/bin/su") == (os.geteuid(), os.getegid(), 0o755)
    assert os.listxattr(tmp_path / "out/bin/su") == []


def test_a_link_to_what_took_the_place_of_a_device(store: ImageStore, tmp_path: Path) -> None:
    made = unpacked(
        store,
        tmp_path / "out",
        layer(entry("log", kind=tarfile.FIFOTYPE)),
        layer(entry("log", b"text"), entry("same", kind=tarfile.LNKTYPE, link="log")),
        same_owner=False,
    )
    assert list(skipped(made)) == [b"log"]
    assert (tmp_path / "out/same").read_text() == "text"


def test_very_many_that_are_skipped_are_counted(store: ImageStore, tmp_path: Path) -> None:
    many: Sequence[tuple[tarfile.TarInfo, bytes]] = [
        entry(f"dev/{number}", kind=tarfile.FIFOTYPE) for number in range(1_200)
    ]
    made = unpacked(store, tmp_path / "out", layer(*many, form=tarfile.GNU_FORMAT), same_owner=False)
    assert (len(made.skipped), made.more_skipped) == (1_000, 200)


@AS_ROOT
@pytest.mark.parametrize("owner", ["-1", "4294967295", "99999999999", "x"])
def test_owners_that_no_system_has(store: ImageStore, tmp_path: Path, owner: str) -> None:
    info, content = entry("f", b"x")
    info.pax_headers = {"uid": owner}
    with pytest.raises(ContentError, match="no number of a user"):
        unpacked(store, tmp_path / "out", layer((info, content)), same_owner=True)
    assert not (tmp_path / "out").exists()
    unpacked(store, tmp_path / "out", layer((info, content)), same_owner=False)


@AS_ROOT
def test_an_owner_is_not_given_to_what_a_link_points_to(store: ImageStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    victim.chmod(0o600)
    unpacked(
        store,
        tmp_path / "out",
        layer(
            entry("s", kind=tarfile.SYMTYPE, link=str(victim), owner=(9, 9), mode=0o777),
            entry("d", kind=tarfile.SYMTYPE, link=str(tmp_path)),
            entry("d", kind=tarfile.DIRTYPE, owner=(9, 9), mode=0o777),
        ),
        same_owner=True,
    )
    assert described(victim) == (0, 0, 0o600)
    assert described(tmp_path)[0] == 0
    assert described(tmp_path / "out/d") == (9, 9, 0o777)


def test_nobody_else_enters_what_is_not_finished(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = os.fchmod

    def watched(descriptor: int, mode: int) -> None:
        seen.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob(".out.*"))
        real(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", watched)
    unpacked(store, tmp_path / "out", layer(entry("bin/su", b"x", mode=0o4755)), same_owner=False)
    assert set(seen) == {0o700}
    assert list(tmp_path.glob(".out.*")) == []
