"""What a small blob of a stranger's takes when it is unpacked: memory, room, time and leftovers."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import zstandard

from digestry.errors import ContentError, DigestryError, InvalidConfiguration, StorageError, TooLarge
from digestry.images.directory_removal import remove_tree
from digestry.images.limits import Limits
from digestry.images.pack import pack
from digestry.images.recipe import Recipe
from digestry.images.root_filesystem import DEEPEST
from digestry.images.store import ImageStore
from digestry.images.unpack import unpack
from digestry.model import media_types
from tests.images.making import HOST, Item, archive, image_of, of_blob
from tests.support import PATIENCE

DIRECTORY, SYMLINK = tarfile.DIRTYPE, tarfile.SYMTYPE
DEPTH = 1100  # more than Python lets functions call each other
DEEP = "d/" * DEPTH
MEMORY = 48 << 20
"""Bytes: a buffer of 32 MiB for a config, which nothing fills, the chunks of a megabyte on their way, and
what Python itself needs for some thousand entries."""


def peak(store: ImageStore, blob: bytes, plain: bytes, target: Path, kind: str) -> int:
    """The most bytes of memory that unpacking took, whatever came of it."""
    image = of_blob(store, blob, plain, kind)
    tracemalloc.start()
    try:
        unpack(store, image, target)
    except DigestryError:
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


def pax(*records: bytes) -> bytes:
    """An extension header with records that need not be any."""
    body = b"".join(records)
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def long_name(content: bytes, kind: bytes = b"L") -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def plain_header(name: str = "f", kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)


def deep_paths(count: int) -> Iterable[Item]:
    return (Item("a/" * 2040 + f"f{number}") for number in range(count))


MEMORY_ATTACKS: dict[str, Callable[[], bytes]] = {
    "deep paths": lambda: archive(deep_paths(40)),
    "deep directories": lambda: archive(Item("a/" * 2040 + f"f{n}", kind=DIRECTORY) for n in range(40)),
    "empty files": lambda: archive(Item(f"f{number}") for number in range(2000)),
    "zeros": lambda: archive([Item("f", bytes(64 << 20))]),
    "zeros after the end": lambda: archive([Item("f")]) + bytes(64 << 20),
    "extension headers": lambda: b"".join(pax(b"12 path=abc\n") for _ in range(2000)) + plain_header() + END,
    "large extension headers": lambda: b"".join(long_name(b"n" * (1 << 20)) for _ in range(64)) + END,
    "many records": lambda: pax(b"6 a=b\n" * 100_000) + plain_header() + END,
    "global records": lambda: (pax(b"6 a=b\n" * 1000).replace(b"x", b"g", 1)) * 1000 + END,
}


_SHORT = {"empty files", "extension headers", "deep paths"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in _SHORT else [pytest.mark.long]) for name in MEMORY_ATTACKS],
)
def test_a_small_blob_takes_little_memory(store: ImageStore, tmp_path: Path, name: str) -> None:
    plain = MEMORY_ATTACKS[name]()
    blob = gzip.compress(plain, mtime=0)
    assert peak(store, blob, plain, tmp_path / "out", media_types.OCI_LAYER_GZIP) < MEMORY


@pytest.mark.long
def test_an_archive_of_three_kilobytes(store: ImageStore, tmp_path: Path) -> None:
    """Each entry kept the path of each directory above it: 590 MiB for 36 of them."""
    plain = archive(deep_paths(36))
    blob = gzip.compress(plain, 9, mtime=0)
    assert len(blob) < 8000
    assert peak(store, blob, plain, tmp_path / "out", media_types.OCI_LAYER_GZIP) < 40 << 20


@pytest.mark.long
def test_memory_by_the_entry(store: ImageStore, tmp_path: Path) -> None:
    """What is said of :class:`Limits`: as many entries as are allowed take half a gigabyte."""
    few, many = 250, 1000
    plain = [archive(Item(f"{n}", kind=DIRECTORY) for n in range(count)) for count in (few, many)]
    took = [
        peak(store, content, content, tmp_path / f"out{n}", media_types.OCI_LAYER)
        for n, content in enumerate(plain)
    ]
    assert (took[1] - took[0]) / (many - few) < 1500


@pytest.mark.parametrize("kind", [media_types.OCI_LAYER_GZIP, media_types.OCI_LAYER_ZSTD])
@pytest.mark.parametrize("where", ["a file", "after the end"])
def test_a_bomb(store: ImageStore, tmp_path: Path, kind: str, where: str) -> None:
    """As much as inflates in a moment: nothing of the rest is waited for."""
    content = bytes(16 << 20)
    plain = archive([Item("f", content)]) if where == "a file" else archive([Item("f")]) + content
    blob = gzip.compress(plain) if kind.endswith("gzip") else zstandard.compress(plain)
    image = of_blob(store, blob, plain, kind)
    with pytest.raises(TooLarge, match="inflates to more"):
        unpack(store, image, tmp_path / "out", Limits(ratio=10, free=8 << 20))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]
    unpack(store, image, tmp_path / "out")  # what is honest may be large


def test_many_members_take_no_longer_than_their_bytes(store: ImageStore, tmp_path: Path) -> None:
    """Each member of a gzip copied the rest of a megabyte."""
    plain = archive([Item("f", b"x")])
    blob = gzip.compress(plain, mtime=0) + gzip.compress(b"", mtime=0) * 100_000
    began = time.process_time()
    unpack(store, of_blob(store, blob, plain, media_types.OCI_LAYER_GZIP), tmp_path / "out")
    assert time.process_time() - began < 5


REFUSED = {
    "a NUL in a link": pax(b"16 linkpath=a\0b\n") + plain_header(kind=SYMLINK) + END,
    "a NUL in a name": pax(b"12 path=a\0b\n") + plain_header() + END,
    "a NUL in a long link": long_name(b"a\0b", b"K") + plain_header(kind=SYMLINK) + END,
    "a link to nothing": plain_header(kind=SYMLINK) + END,
    "a long name": archive([Item("n" * 256)]),
    "a long link": long_name(b"n" * 5000, b"K") + plain_header(kind=SYMLINK) + END,
    "extensions without an end": long_name(b"n") * 100 + plain_header() + END,
    "a huge extension": plain_header(kind=tarfile.XHDTYPE, size=2 << 30) + END,
    "a huge number": pax(b"%d size=%s\n" % (9 + 4000, b"9" * 4000)) + plain_header() + END,
    "a size that is none": pax(b"12 size=nan\n") + plain_header() + END,
    "an old sparse file": plain_header(kind=tarfile.GNUTYPE_SPARSE) + END,
    "a sparse file": pax(b"22 GNU.sparse.major=1\n") + plain_header() + END,
    "deeper than a path": archive(
        [
            Item("a/" * 1100, kind=DIRECTORY),
            Item("l", kind=SYMLINK, link="a/" * 1100),
            Item("l/" + "b/" * 1000 + "f", b"x"),
        ]
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_nothing(store: ImageStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(ContentError):
        unpack(store, image_of(store, REFUSED[name]), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_awkward_names_are_names(store: ImageStore, tmp_path: Path) -> None:
    names = ["a\nb", "\x1b[31mred", "\u202egnp.exe", "-rf", "con", " ", "*", "\\", "\x7f"]
    unpack(store, image_of(store, archive(Item(name, b"x") for name in names)), tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == sorted(names)  # noqa: PTH208


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory that pytest does not take away: what a test that is killed leaves may be deeper than it
    can."""
    path = Path(tempfile.mkdtemp(prefix="digestry-deep-"))
    yield path
    remove_tree(path)


def depth_of(root: Path) -> int:
    """How many directories called ``d`` are inside of each other."""
    descriptor = os.open(root, os.O_RDONLY)
    for number in itertools.count():
        try:
            following = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        except FileNotFoundError:
            return number
        finally:
            os.close(descriptor)
        descriptor = following
    return 0


@pytest.fixture
def few_files() -> Iterator[None]:
    """No more than 64 further open files, and a short stack."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - other tests keep some
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(numbers) + 64, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.long
@pytest.mark.usefixtures("few_files")
def test_deep_folders(store: ImageStore, tmp_path: Path) -> None:
    """They come, are hidden and replaced by later layers, are given up, and are taken away again."""
    deep = archive([Item(DEEP, kind=DIRECTORY, mode=0o711), Item(DEEP + "f", b"x"), Item("d/keep", b"x")])
    unpack(store, image_of(store, deep), tmp_path / "out")
    assert depth_of(tmp_path / "out") == DEPTH
    remove_tree(tmp_path / "out")

    mine = archive([Item(DEEP + "new", b"y"), Item("d/.wh..wh..opq"), Item(DEEP + ".wh.new")])
    unpack(store, image_of(store, deep, mine, archive([Item("d/.wh.d")])), tmp_path / "out")
    assert os.listdir(tmp_path / "out" / "d") == []  # noqa: PTH208
    with pytest.raises(ContentError):
        unpack(store, image_of(store, deep, archive([Item("../out", b"x")])), tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out"]


def test_a_wide_and_closed_tree_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for number in range(300):
        (top / f"d{number}" / "in").mkdir(parents=True)
        (top / f"d{number}" / "f").write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("safe")
    (top / "link").symlink_to(outside)
    for path in (top / "d1", top / "d2" / "in", top):
        path.chmod(0)
    remove_tree(top)
    assert (outside / "precious").read_text() == "safe"
    assert not top.exists()


def test_what_a_kill_left_goes_with_the_next(store: ImageStore, tmp_path: Path) -> None:
    image = image_of(store, archive([Item("f", b"x")]))
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from digestry.images import unpack\n"
        "with unpack._work_beside(Path(sys.argv[1])) as work:\n"
        "    (work / 'half').write_text('x')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    target = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", script, target], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            (held,) = tmp_path.glob(".out.*")
            unpack(store, image, target)
            assert (held / "half").exists(), "it is somebody's"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
    remove_tree(target)
    (tmp_path / ".out.notours").mkdir()
    unpack(store, image, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.notours", "images", "out"]


@pytest.mark.long
def test_packing_deep_folders(store: ImageStore, tmp_path: Path) -> None:
    """As deep as a path can name; beyond, it is said."""
    root = tmp_path / "root"
    root.mkdir()
    descriptor = os.open(root, os.O_RDONLY)
    for number in range(DEEPEST + 50):
        os.mkdir("d", dir_fd=descriptor)
        following = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = following
        if number == DEPTH:
            with store.adding():
                assert pack(root, Recipe(HOST), store.blobs).entries == DEPTH + 1
    os.close(descriptor)
    with store.adding(), pytest.raises((StorageError, InvalidConfiguration)):
        pack(root, Recipe(HOST), store.blobs)


def test_an_archive_of_the_library_is_what_these_are_made_of() -> None:
    with tarfile.open(fileobj=io.BytesIO(REFUSED["a long name"])) as file:
        assert len(file.getnames()[0]) == 256
