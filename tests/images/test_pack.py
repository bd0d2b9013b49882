from __future__ import annotations

import gzip
import io
import itertools
import os
import random
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digestry.errors import Conflict, InvalidConfiguration, NotFound, StorageError
from digestry.images import directory_archive, tar_writer
from digestry.images.pack import pack
from digestry.images.recipe import Recipe
from digestry.images.store import ImageStore
from digestry.images.stored_gzip import BLOCK, StoredGzip
from digestry.images.tar_reader import TarReader
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Manifest
from digestry.model.platform import Platform
from tests.images.making import tree
from tests.stores import blob_file

AMD64 = Platform("amd64", "linux")
ARCHIVE = "sha256:e5f0446e47f1f983fcb9ad8bf51eba0bf659dd5465055bf2c0a079ca20f66195"
MANIFEST_OF_ARCHIVE = "sha256:89eda2ba537c259ac4167153bf6d6095fd122f5e802c7095899bc01f99193756"
LAYER = "sha256:8905d65bdac47ebcfc64e96b1e0802033debc7ab94168c1f136b28a7fb8a1953"
MANIFEST = "sha256:bb5b46c73f15eaf8f1bf4fd456d770088be8e7c5152317caf4306a4294336c70"
FILES = {"etc__motd": "hello", "bin__tool": "#!/bin/sh\n", "a.txt": "a", "a__b": "ab", "B": "upper"}


def build(root: Path) -> Path:
    tree(root, **FILES)
    (root / "bin/tool").chmod(0o755)
    (root / "link").symlink_to("etc/motd")
    (root / "empty").mkdir()
    return root


def entries(store: ImageStore, root: Path, recipe: Recipe | None = None) -> list[tarfile.TarInfo]:
    made = pack(root, recipe or Recipe(AMD64), store.blobs)
    with tarfile.open(fileobj=io.BytesIO(store.blobs.read(made.layer.digest))) as archive:
        return archive.getmembers()


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path / "store")
    store.blobs.prepare()
    return store


def test_the_digest_is_what_it_has_always_been(store: ImageStore, tmp_path: Path) -> None:
    """If this fails, everybody's images change: that must never happen by accident."""
    made = pack(build(tmp_path / "root"), Recipe(AMD64), store.blobs)
    assert str(made.layer.digest) == LAYER
    assert str(made.manifest.digest) == MANIFEST
    plain = pack(tmp_path / "root", Recipe(AMD64, compression="none"), store.blobs)
    assert str(plain.layer.digest) == ARCHIVE
    assert str(plain.manifest.digest) == MANIFEST_OF_ARCHIVE


def test_what_the_layer_is_to_a_reader(store: ImageStore, tmp_path: Path) -> None:
    made = pack(build(tmp_path / "root"), Recipe(AMD64), store.blobs)
    assert made.layer.media_type == media_types.OCI_LAYER_GZIP
    archive = gzip.decompress(store.blobs.read(made.layer.digest))
    config = ImageConfig.parse(store.blobs.read(made.config.digest))
    assert config.diff_ids == (Digest.of(archive),)
    assert str(Digest.of(archive)) == ARCHIVE


@given(st.binary(max_size=300_000), st.lists(st.integers(0, 300_000), max_size=5))
@settings(max_examples=40)
def test_the_stream_depends_on_the_bytes_alone(content: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(content)]
    parts = [content[start:end] for start, end in itertools.pairwise(places)]
    pieces, whole = StoredGzip(), StoredGzip()
    stream = b"".join([*map(pieces.compress, parts), pieces.flush()])
    assert stream == whole.compress(content) + whole.flush()
    assert gzip.decompress(stream) == content


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
def test_blocks_are_full_and_the_last_says_so(size: int) -> None:
    content = os.urandom(size)
    writer = StoredGzip()
    stream = writer.compress(content) + writer.flush()
    assert gzip.decompress(stream) == content
    assert len(stream) == 10 + 5 * max(1, -(-size // BLOCK)) + size + 8


def test_nothing_of_the_machine_is_in_the_digest(store: ImageStore, tmp_path: Path) -> None:
    first = pack(build(tmp_path / "one"), Recipe(AMD64), store.blobs)
    before = os.umask(0o077)
    try:
        other = tmp_path / "elsewhere" / "two"
        other.mkdir(parents=True)
        (other / "link").symlink_to("etc/motd")
        for name in random.sample(list(FILES), len(FILES)):
            tree(other, **{name: FILES[name]})
        (other / "empty").mkdir()
        (other / "bin/tool").chmod(0o700)
    finally:
        os.umask(before)
    for path in other.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    if os.getuid() == 0:
        os.chown(other / "a.txt", 1234, 1234)
    os.link(other / "a.txt", other / "again")
    (other / "again").unlink()
    assert pack(other, Recipe(AMD64), store.blobs) == first


def test_another_interpreter_makes_the_same(store: ImageStore, tmp_path: Path) -> None:
    root = build(tmp_path / "root")
    program = (
        "import sys; from pathlib import Path; from digestry.images.pack import pack, Recipe; "
        "from digestry.model.platform import Platform; "
        "from digestry.images.store import ImageStore; s = ImageStore(Path(sys.argv[2])); s.blobs.prepare(); "
        "print(pack(Path(sys.argv[1]), Recipe(Platform('amd64', 'linux')), s.blobs).manifest.digest)"
    )
    environment = {**os.environ, "TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    answer = subprocess.run(
        [sys.executable, "-c", program, root, tmp_path / "other"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == str(pack(root, Recipe(AMD64), store.blobs).manifest.digest)


def test_the_archive(store: ImageStore, tmp_path: Path) -> None:
    found = entries(store, build(tmp_path / "root"), Recipe(AMD64, time=1_700_000_000))
    names = [entry.name for entry in found]
    assert names == sorted(names, key=os.fsencode)
    assert {"a", "a/b", "a.txt", "bin", "bin/tool", "empty", "link", "B", "etc", "etc/motd"} == set(names)
    for entry in found:
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", "")
        assert entry.mtime == 1_700_000_000
    modes = {entry.name: entry.mode for entry in found}
    assert modes["bin/tool"] == 0o755
    assert modes["a.txt"] == 0o644
    assert modes["empty"] == 0o755
    link = next(entry for entry in found if entry.name == "link")
    assert link.issym()
    assert link.linkname == "etc/motd"


def test_set_uid_goes_and_hard_links_become_files(store: ImageStore, tmp_path: Path) -> None:
    root = tree(tmp_path / "root", a="same")
    (root / "a").chmod(0o4755)
    os.link(root / "a", root / "b")
    found = entries(store, root)
    assert [(entry.isreg(), entry.mode, entry.size) for entry in found] == [(True, 0o755, 4)] * 2


def test_awkward_names(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    long = "/".join(["d" * 60] * 4)
    (root / long).mkdir(parents=True)
    (root / long / "ünïcödé").write_text("x")
    latin = os.fsdecode(b"caf\xe9\n")
    (root / latin).write_text("y")
    (root / "far").symlink_to("t" * 300)
    found = {entry.name: entry for entry in entries(store, root)}
    assert f"{long}/ünïcödé" in found
    assert latin in found
    assert found["far"].linkname == "t" * 300


@pytest.mark.peer("tar")
def test_gnu_tar_reads_it(store: ImageStore, tmp_path: Path) -> None:
    root = build(tmp_path / "root")
    long = root / ("n" * 200)
    long.write_text("long")
    made = pack(root, Recipe(AMD64), store.blobs)
    target = tmp_path / "out"
    target.mkdir()
    subprocess.run(["tar", "-xf", blob_file(store.root, made.layer.digest), "-C", target], check=True)
    assert (target / long.name).read_text() == "long"
    assert (target / "link").read_text() == "hello"


def test_an_empty_directory_is_an_image(store: ImageStore, tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    assert entries(store, root) == []


def test_the_config(store: ImageStore, tmp_path: Path) -> None:
    recipe = Recipe(
        Platform("arm", "linux", "v7"),
        time=86400,
        entrypoint=("/bin/tool", "--x"),
        command=("serve",),
        environment=("A=1", "B=x=y"),
        labels=(("z", "1"), ("a", "2")),
        working_directory="/srv",
        user="65532:65532",
        ports=("8080", "53/udp"),
    )
    made = pack(build(tmp_path / "root"), recipe, store.blobs)
    manifest = Manifest.parse(store.blobs.read(made.manifest.digest))
    config = ImageConfig.parse(store.blobs.read(made.config.digest))
    assert manifest.config == made.config
    assert (config.os, config.architecture, config.variant) == ("linux", "arm", "v7")
    assert config.created == "1970-01-02T00:00:00Z"
    archive = gzip.decompress(store.blobs.read(made.layer.digest))
    assert config.diff_ids == (Digest.of(archive),)
    assert config.settings == {
        "User": "65532:65532",
        "ExposedPorts": {"53/udp": {}, "8080/tcp": {}},
        "Env": ["A=1", "B=x=y"],
        "Entrypoint": ["/bin/tool", "--x"],
        "Cmd": ["serve"],
        "WorkingDir": "/srv",
        "Labels": {"a": "2", "z": "1"},
    }
    assert list(config.settings["Labels"]) == ["a", "z"]


def test_gzip(store: ImageStore, tmp_path: Path) -> None:
    root = build(tmp_path / "root")
    plain = pack(root, Recipe(AMD64, compression="none"), store.blobs)
    assert plain.layer.media_type == media_types.OCI_LAYER
    small = pack(root, Recipe(AMD64, compression="gzip"), store.blobs)
    assert small.layer.media_type == media_types.OCI_LAYER_GZIP
    assert small.layer.size < plain.layer.size
    config = ImageConfig.parse(store.blobs.read(small.config.digest))
    assert config.diff_ids == (plain.layer.digest,)
    header = store.blobs.read(small.layer.digest)[:10]
    assert header[3] == 0, "no name"
    assert header[4:8] == bytes(4), "no time"
    assert pack(root, Recipe(AMD64, compression="gzip"), store.blobs) == small


# -- refusals ---------------------------------------------------------------------------------------


def test_what_an_image_cannot_hold(store: ImageStore, tmp_path: Path) -> None:
    root = tree(tmp_path / "r", a="a")
    os.mkfifo(root / "pipe")
    with pytest.raises(InvalidConfiguration, match="pipe is a FIFO"):
        pack(root, Recipe(AMD64), store.blobs)
    (root / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root)  # a socket's path must be short
        try:
            server.bind("s")
        finally:
            os.chdir(here)
        with pytest.raises(InvalidConfiguration, match="is a socket"):
            pack(root, Recipe(AMD64), store.blobs)
    assert list(store.blobs.ingests()) == []
    assert list(store.blobs.digests()) == []


def test_no_directory(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="not a directory"):
        pack(tmp_path / "nowhere", Recipe(AMD64), store.blobs)


def test_a_name_that_would_delete(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"\.wh\.x would delete"):
        pack(tree(tmp_path / "r", **{"a__.wh.x": ""}), Recipe(AMD64), store.blobs)


@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "vanish"])
def test_a_file_that_changes_meanwhile(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    root = tree(tmp_path / "r", a="x" * 1000)
    victim = root / "a"
    real = tar_writer.header

    def header(*arguments: object, **options: object) -> bytes:
        if change == "grow":
            with victim.open("a") as file:
                file.write("more")
        elif change == "shrink":
            victim.write_text("less")
        elif change == "touch":
            os.utime(victim, (1, 1))
        return real(*arguments, **options)  # type: ignore[arg-type]

    if change == "vanish":
        monkeypatch.setattr(directory_archive, "_walk", lambda *_: iter([b"a", b"gone"]))
    else:
        monkeypatch.setattr(tar_writer, "header", header)
    with pytest.raises(Conflict, match="changed while"):
        pack(root, Recipe(AMD64), store.blobs)
    assert list(store.blobs.digests()) == []


def test_a_file_that_cannot_be_read(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "r", a="x")
    real = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if path == os.fsencode(root / "a"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match=r"cannot read .*/a: Permission denied"):
        pack(root, Recipe(AMD64), store.blobs)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(AMD64, environment=("NOVALUE",)),
        Recipe(AMD64, environment=("=x",)),
        Recipe(AMD64, ports=("http",)),
        Recipe(AMD64, ports=("0",)),
        Recipe(AMD64, ports=("80/icmp",)),
        Recipe(AMD64, working_directory="relative"),
    ],
)
def test_bad_recipes(store: ImageStore, tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(InvalidConfiguration):
        pack(tree(tmp_path / "r"), recipe, store.blobs)


@pytest.mark.parametrize(("text", "expected"), [(None, 0), ("", 0), ("0", 0), ("1700000000", 1_700_000_000)])
def test_source_date_epoch(text: str | None, expected: int) -> None:
    assert tar_writer.source_date_epoch(text) == expected


@pytest.mark.parametrize("text", ["-1", "1.5", "now", " 1", "1" * 30, "9999999999", "\u0661"])
def test_source_date_epoch_that_is_none(text: str) -> None:
    with pytest.raises(InvalidConfiguration, match="SOURCE_DATE_EPOCH"):
        tar_writer.source_date_epoch(text)


# -- the two readers agree with the writer ------------------------------------------------------------

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: not {0, 47} & set(name))


@given(NAMES, NAMES, st.integers(0, tar_writer.LATEST_TIME), st.integers(0, 2**40))
def test_headers_come_back(name: bytes, link: bytes, mtime: int, size: int) -> None:
    symlink = tar_writer.header(name, tar_writer.SYMLINK, mode=0o777, size=0, mtime=mtime, link=link)
    stream = io.BytesIO(
        symlink + tar_writer.header(name, tar_writer.REGULAR, mode=0o644, size=size, mtime=mtime)
    )
    reader = iter(TarReader(stream.read))
    first, second = next(reader), next(reader)
    assert (first.name, first.link, first.kind, first.mtime) == (name, link, b"2", mtime)
    assert (second.name, second.size, second.kind) == (name, size, b"0")
    with tarfile.open(fileobj=io.BytesIO(symlink + tar_writer.END)) as archive:
        (entry,) = archive.getmembers()
    assert os.fsencode(entry.name).rstrip(b"/") == name.rstrip(b"/")
    assert os.fsencode(entry.linkname) == link
