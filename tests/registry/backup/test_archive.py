"""A backup as a tar stream, and streams of strangers that say they are one."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from digestry.backend import open_backend
from digestry.blobs.ingests import Chunk
from digestry.errors import ContentError, DigestryError
from digestry.model.digest import Digest
from digestry.registry.backup import taking
from digestry.registry.backup.archive import ArchiveReader, ArchiveWriter
from digestry.registry.backup.copying import Flow
from digestry.registry.backup.taking import blob_name
from tests.registry.backup.support import LARGE, Unseen, archive, blob_files, push, restore, tags
from tests.stores import blob_file, needs_disk
from tests.support import digestry, program

Entries = list[tuple[tarfile.TarInfo, bytes]]


def test_what_was_backed_up_comes_back(root: Path, tmp_path: Path) -> None:
    content, taken = archive(root)
    restored = restore(content, tmp_path / "again")
    assert restored.blobs == taken.description.blobs == 12
    assert blob_files(tmp_path / "again") == blob_files(root)
    assert tags(tmp_path / "again") == tags(root)
    (key,) = (root / "keys").iterdir()
    assert (tmp_path / "again" / "keys" / key.name).read_bytes() == key.read_bytes()


def test_nothing_is_left_in_the_root(root: Path) -> None:
    (root / ".backup-0123").mkdir()  # of somebody else
    before = {path.name for path in root.iterdir()}
    archive(root)
    left = {path.name for path in root.iterdir()} - before
    assert left - {"catalog.db-shm", "catalog.db-wal"} == {"collection.lock"}


def test_other_programs_read_it_and_what_they_unpack_is_a_backup(root: Path, tmp_path: Path) -> None:
    content, _ = archive(root)
    assert len(content) % 10240 == 0
    (tmp_path / "unpacked").mkdir()
    subprocess.run([program("tar"), "-x"], cwd=tmp_path / "unpacked", input=content, check=True)
    restore(tmp_path / "unpacked", tmp_path / "again")
    assert tags(tmp_path / "again") == tags(root)


@pytest.mark.parametrize("layer", [b"good", bytes(range(256)) * (LARGE // 256) + b"end"])
@pytest.mark.parametrize("damage", ["gone", "short", "wrong"])
def test_damage_is_told_and_the_rest_is_backed_up(
    root: Path, tmp_path: Path, layer: bytes, damage: str
) -> None:
    path = blob_file(root, Digest.of(layer))
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(layer[:-1] + (b"" if damage == "short" else b"?"))
    content, taken = archive(root)
    (missing,) = taken.description.missing
    assert missing.digest == str(Digest.of(layer))
    assert restore(content, tmp_path / "again").missing == [missing]
    assert missing.digest not in blob_files(tmp_path / "again")
    assert len(blob_files(tmp_path / "again")) == 11


def test_a_file_that_shrinks_while_it_is_read_spoils_nothing_else(root: Path, tmp_path: Path) -> None:
    layer = bytes(range(256)) * (LARGE // 256) + b"end"
    path = blob_file(root, Digest.of(layer))

    stream = io.BytesIO()

    def write(chunk: Chunk) -> None:
        if stream.tell() > LARGE // 2 + 200_000:
            os.truncate(path, LARGE // 2)
        stream.write(chunk)

    taken = taking.to_archive(open_backend(root), root, write, flow=Flow(), watcher=Unseen())
    assert [missing.digest for missing in taken.description.missing] == [str(Digest.of(layer))]
    assert restore(stream.getvalue(), tmp_path / "again").missing == taken.description.missing


# -- hostile ones ------------------------------------------------------------------------------


def entries_of(content: bytes) -> Entries:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(entry, (tar.extractfile(entry) or io.BytesIO()).read()) for entry in tar]


def packed(entries: Entries) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, len(content)
    return entry, content


def position(entries: Entries, digest: Digest) -> int:
    return next(at for at, (entry, _) in enumerate(entries) if entry.name == blob_name(digest))


def _insert(*extra: tuple[tarfile.TarInfo, bytes], at: int = -1) -> Callable[[Entries], bytes]:
    def change(entries: Entries) -> bytes:
        where = at if at >= 0 else len(entries) - 1
        return packed([*entries[:where], *extra, *entries[where:]])

    return change


def _twice(entries: Entries) -> bytes:
    at = position(entries, Digest.of(b"good"))
    return packed([*entries[: at + 1], *entries[at:]])


def _without(entries: Entries) -> bytes:
    at = position(entries, Digest.of(b"good"))
    return packed(entries[:at] + entries[at + 1 :])


def _wrong(entries: Entries) -> bytes:
    at = position(entries, Digest.of(b"good"))
    return packed([*entries[:at], member(entries[at][0].name, b"evil"), *entries[at + 1 :]])


def _longer(entries: Entries) -> bytes:
    at = position(entries, Digest.of(b"good"))
    return packed([*entries[:at], member(entries[at][0].name, b"good and more"), *entries[at + 1 :]])


def _other_catalog(entries: Entries) -> bytes:
    return packed([member(entries[0][0].name, b"SQLite format 3\0" + bytes(4080)), *entries[1:]])


def _unknown_blob(entries: Entries) -> bytes:
    extra = member(blob_name(Digest.of(b"unknown")), b"unknown")
    names = [entry.name for entry, _ in entries]
    at = next(at for at, name in enumerate(names) if name > extra[0].name and name.startswith("blobs/"))
    return packed([*entries[:at], extra, *entries[at:]])


def _bomb(entries: Entries) -> bytes:
    # A header that tells of 8 TiB, and nothing after it.
    at = position(entries, Digest.of(b"good"))
    entry, _ = member(entries[at][0].name)
    entry.size = 8 << 40
    head = packed(entries[:at]).rstrip(b"\0")
    head += bytes(-len(head) % 512)
    return head + entry.tobuf(tarfile.PAX_FORMAT)


def _sparse(entries: Entries) -> bytes:
    at = position(entries, Digest.of(b"good"))
    entry, content = member(entries[at][0].name, b"good")
    entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "4"}
    return packed([*entries[:at], (entry, content), *entries[at + 1 :]])


def _large_extension(entries: Entries) -> bytes:
    entry, content = member("keys/" + "a" * 100_000 + ".json", b"{}")
    return packed([*entries[:2], (entry, content), *entries[2:]])


def _key(entries: Entries) -> bytes:
    at = next(at for at, (entry, _) in enumerate(entries) if entry.name.startswith("keys/"))
    return packed([*entries[:at], member(entries[at][0].name, b"{}"), *entries[at + 1 :]])


HOSTILE: dict[str, Callable[[Entries], bytes]] = {
    "path above": _insert(member("../evil", b"evil")),
    "path above in a blob's name": _insert(member("blobs/sha256/../../../evil", b"evil")),
    "path above in a key's name": _insert(member("keys/../evil.json", b"{}"), at=2),
    "absolute path": _insert(member("/tmp/evil", b"evil")),
    "symbolic link": _insert(member("keys/a.json", kind=tarfile.SYMTYPE, link="/etc/passwd"), at=2),
    "hard link": _insert(member("keys/a.json", kind=tarfile.LNKTYPE, link="/etc/passwd"), at=2),
    "device": _insert(member("keys/a.json", kind=tarfile.CHRTYPE), at=2),
    "pipe": _insert(member("keys/a.json", kind=tarfile.FIFOTYPE), at=2),
    "directory": _insert(member("blobs", kind=tarfile.DIRTYPE), at=1),
    "sparse": _sparse,
    "8 TiB": _bomb,
    "large extension": _large_extension,
    "large key": _insert(member("keys/a.json", bytes(100_000)), at=2),
    "one more key": _insert(member("keys/0.json", b"{}"), at=2),
    "another key": _key,
    "twice": _twice,
    "another catalog": _other_catalog,
    "a second catalog": lambda entries: packed([entries[0], *entries]),
    "no catalog": lambda entries: packed(entries[1:]),
    "no description": lambda entries: packed(entries[:-1]),
    "description first": lambda entries: packed([entries[-1], *entries[:-1]]),
    "two descriptions": lambda entries: packed([*entries, entries[-1]]),
    "blob missing": _without,
    "blob wrong": _wrong,
    "blob longer": _longer,
    "blob unknown": _unknown_blob,
    "no tar": lambda _: os.urandom(20_000),
    "nothing": lambda _: b"",
    "empty tar": lambda _: packed([]),
    "more after the end": lambda entries: packed(entries) + b"more",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(root: Path, tmp_path: Path, kind: str) -> None:
    entries = entries_of(archive(root)[0])
    content = HOSTILE[kind](entries)
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(ContentError):
        restore(content, place / "again")
    assert list(place.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_the_archives_above_differ_by_what_is_wrong_with_them_alone(root: Path, tmp_path: Path) -> None:
    restore(packed(entries_of(archive(root)[0])), tmp_path / "again")
    assert tags(tmp_path / "again") == tags(root)


@pytest.mark.long
def test_a_truncated_archive_is_refused_wherever_it_was_cut(root: Path, tmp_path: Path) -> None:
    content, _ = archive(root)
    place = tmp_path / "place"
    place.mkdir()
    end = len(content.rstrip(b"\0"))
    for cut in [*range(0, end, end // 12), end - 1]:
        with pytest.raises(DigestryError):
            restore(content[:cut], place / "again")
        assert list(place.iterdir()) == []


def test_skip_damaged_restores_the_rest(root: Path, tmp_path: Path) -> None:
    content = _wrong(entries_of(archive(root)[0]))
    restored = restore(content, tmp_path / "again", skip_damaged=True)
    assert [missing.held_by for missing in restored.missing] == [["golftrack:1.5"]]
    assert restored.blobs == 11


def test_large_sizes_and_long_names_are_written_as_they_are_read() -> None:
    written = io.BytesIO()
    writer = ArchiveWriter(written.write, mtime=1)
    name = "blobs/sha512/" + "a" * 128
    writer.add(name, 3, [b"abc"], mode=0o600)
    writer.finish()
    reader = ArchiveReader(io.BytesIO(written.getvalue()).read)
    assert [(entry.name, b"".join(reader.content())) for entry in reader] == [(name, b"abc")]
    entry = tarfile.TarInfo("blobs/sha256/" + "b" * 64)
    entry.size = 9 << 30  # more than a header's octal digits tell
    first = next(iter(ArchiveReader(io.BytesIO(entry.tobuf(tarfile.PAX_FORMAT)).read)))
    assert first.size == 9 << 30


@pytest.mark.long
def test_through_pipes(root: Path, tmp_path: Path) -> None:
    needs_disk(root)  # the program itself knows of no other store
    push(root, "golftrack", "2", os.urandom(200_000))
    with subprocess.Popen(digestry("backup", "--root", root, "-"), stdout=subprocess.PIPE) as giving:
        restoring = subprocess.run(
            digestry("restore-backup", "-", "--root", tmp_path / "again"),
            stdin=giving.stdout,
            capture_output=True,
            check=False,
        )
    assert (giving.returncode, restoring.returncode) == (0, 0), restoring.stderr
    assert blob_files(tmp_path / "again") == blob_files(root)
    assert tags(tmp_path / "again") == tags(root)
