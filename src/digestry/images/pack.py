"""Packing a directory into an image, reproducibly: the same files make the same digest.

On any machine and day, for any user and umask, in any order of the file system, with any Python:
entries are sorted by the bytes of their paths; owners are 0:0; every time is SOURCE_DATE_EPOCH;
modes are 0755 for directories and what its owner may execute, else 0644 (set-uid bits go);
symlinks are kept, hard links become files, extended attributes are dropped. The layer is gzip of
stored blocks, which no library has a say in: what deflate makes depends on the build of zlib
(docs/adr/0010-stored-gzip-layers.md).
"""

from __future__ import annotations

import datetime
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from digestry.blobs.protocols import BlobWriter, Ingest
from digestry.errors import Conflict, InvalidConfiguration, NotFound
from digestry.fsio import storage_error
from digestry.images import tar_writer
from digestry.images.stored_gzip import StoredGzip
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, new_hasher, shown
from digestry.model.manifest import encode
from digestry.model.platform import Platform

Compression = Literal["stored", "gzip", "none"]
"""How a layer is written: gzip of stored blocks, gzip that is smaller, or a plain tar archive."""
_CHUNK: Final = 1 << 20
_GZIP: Final = 31  # zlib's window bits for a gzip stream; its header has no name and no time
_KINDS: Final = (
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the image says about itself (image-spec, config.md). ``time`` is in seconds since 1970.

    ``environment`` are ``NAME=value``; ``ports`` are ``8080`` or ``8080/udp``.
    """

    platform: Platform
    time: int = 0
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    working_directory: str = ""
    user: str = ""
    ports: tuple[str, ...] = ()
    compression: Compression = "stored"


@dataclass(frozen=True, slots=True)
class Packed:
    """What was made: the image's manifest, its config, its layer, and how many entries that has."""

    manifest: Descriptor
    config: Descriptor
    layer: Descriptor
    entries: int


def pack(directory: Path, recipe: Recipe, blobs: BlobWriter) -> Packed:
    """Store an image of ``directory``'s content in ``blobs``, and return what was made.

    Raises :class:`NotFound` if it is no directory, :class:`InvalidConfiguration` for what an image
    cannot hold and for a bad ``recipe``, :class:`Conflict` for a file that changes meanwhile,
    :class:`StorageError` for one that cannot be read.
    """
    settings = _settings(recipe)
    layer, diff_id, count = _layer(directory, recipe, blobs)
    created = datetime.datetime.fromtimestamp(recipe.time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document: dict[str, object] = {
        "created": created,
        "architecture": recipe.platform.architecture,
        "os": recipe.platform.os,
    }
    if recipe.platform.variant:
        document["variant"] = recipe.platform.variant
    document["config"] = settings
    document["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id)]}
    document["history"] = [{"created": created, "created_by": "digestry pack"}]
    config = _put(blobs, media_types.OCI_CONFIG, encode(document))
    manifest = _put(
        blobs,
        media_types.OCI_MANIFEST,
        encode(
            {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_MANIFEST,
                "config": _plain(config),
                "layers": [_plain(layer)],
            }
        ),
    )
    return Packed(manifest, config, layer, count)


def _put(blobs: BlobWriter, media_type: str, content: bytes) -> Descriptor:
    return Descriptor(media_type, blobs.put(content), len(content))


def _plain(descriptor: Descriptor) -> dict[str, object]:
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }


# -- the config -----------------------------------------------------------------------------------


def _settings(recipe: Recipe) -> dict[str, object]:
    settings: dict[str, object] = {}
    if recipe.user:
        settings["User"] = recipe.user
    if recipe.ports:
        settings["ExposedPorts"] = {port: {} for port in sorted(map(_port, recipe.ports))}
    for variable in recipe.environment:
        if not variable.partition("=")[0] or "=" not in variable:
            raise InvalidConfiguration(f"environment {shown(variable)} is not NAME=value")
    if recipe.environment:
        settings["Env"] = list(recipe.environment)
    if recipe.entrypoint:
        settings["Entrypoint"] = list(recipe.entrypoint)
    if recipe.command:
        settings["Cmd"] = list(recipe.command)
    if recipe.working_directory:
        if not recipe.working_directory.startswith("/"):
            raise InvalidConfiguration(
                f"working directory {shown(recipe.working_directory)} is not absolute",
                hint="write it from the image's root, as /app",
            )
        settings["WorkingDir"] = recipe.working_directory
    if recipe.labels:
        settings["Labels"] = dict(sorted(recipe.labels))
    return settings


def _port(text: str) -> str:
    number, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise InvalidConfiguration(f"port {shown(text)} is not valid", hint="write it as 8080 or 8080/udp")
    if protocol not in {"tcp", "udp", "sctp"}:
        raise InvalidConfiguration(f"port {shown(text)}: the protocol is tcp, udp or sctp")
    return f"{int(number)}/{protocol}"


# -- the layer ------------------------------------------------------------------------------------


def _layer(directory: Path, recipe: Recipe, blobs: BlobWriter) -> tuple[Descriptor, Digest, int]:
    root = os.fsencode(directory)
    if not os.path.isdir(root):  # noqa: PTH112 - paths are bytes here: names need not be UTF-8
        raise NotFound(f"{directory} is not a directory")
    count = 0
    hasher = new_hasher("sha256")
    with blobs.begin() as ingest:
        output = _Output(ingest, recipe.compression)
        write = output.write

        def plain(chunk: bytes) -> None:
            hasher.update(chunk)
            write(chunk)

        for name in sorted(_walk(directory, root, b"")):
            _entry(root, name, recipe.time, plain)
            count += 1
        plain(tar_writer.END)
        output.finish()
        diff_id = Digest("sha256", hasher.hexdigest())
        digest = diff_id if recipe.compression == "none" else output.digest()
        size = ingest.offset
        ingest.commit(digest, size)
    kind = media_types.OCI_LAYER if recipe.compression == "none" else media_types.OCI_LAYER_GZIP
    return Descriptor(kind, digest, size), diff_id, count


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _compressor(compression: Compression) -> _Compressor | None:
    if compression == "none":
        return None
    return StoredGzip() if compression == "stored" else zlib.compressobj(6, zlib.DEFLATED, _GZIP)


class _Output:
    """The output of a layer: it collects small writes, and compresses them if asked to."""

    def __init__(self, ingest: Ingest, compression: Compression) -> None:
        self._ingest = ingest
        self._compressor = _compressor(compression)
        self._hasher = new_hasher("sha256")
        self._pending: list[bytes] = []
        self._size = 0

    def write(self, chunk: bytes) -> None:
        if self._compressor is not None:
            chunk = self._compressor.compress(chunk)
        self._keep(chunk)

    def _keep(self, chunk: bytes) -> None:
        if chunk:
            self._pending.append(chunk)
            self._size += len(chunk)
            if self._size >= _CHUNK:
                self._drain()

    def _drain(self) -> None:
        content = b"".join(self._pending)
        if self._compressor is not None:
            self._hasher.update(content)
        self._ingest.write(content)
        self._pending.clear()
        self._size = 0

    def finish(self) -> None:
        if self._compressor is not None:
            self._keep(self._compressor.flush())
        self._drain()

    def digest(self) -> Digest:
        return Digest("sha256", self._hasher.hexdigest())


def _walk(directory: Path, root: bytes, below: bytes) -> Iterator[bytes]:
    """Yield the paths of everything under ``root``, relative to it, in no order."""
    waiting = [below]
    while waiting:
        current = waiting.pop()
        path = os.path.join(root, current) if current else root  # noqa: PTH118
        try:
            with os.scandir(path) as found:
                entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        except OSError as error:
            raise storage_error("read the directory", Path(os.fsdecode(path)), error) from error
        for name, is_directory in entries:
            relative = current + b"/" + name if current else name
            if is_directory:
                waiting.append(relative)
            yield relative


def _entry(root: bytes, name: bytes, time: int, write: Callable[[bytes], None]) -> None:
    path = os.path.join(root, name)  # noqa: PTH118
    display = Path(os.fsdecode(path))
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(path)  # noqa: PTH115
            write(tar_writer.header(name, tar_writer.SYMLINK, mode=0o777, size=0, mtime=time, link=target))
        elif stat.S_ISDIR(found.st_mode):
            write(tar_writer.header(name, tar_writer.DIRECTORY, mode=0o755, size=0, mtime=time))
        elif stat.S_ISREG(found.st_mode):
            _file(path, display, name, time, write)
        else:
            what = next(
                (text for test, text in _KINDS if test(found.st_mode)), "no file, directory or symlink"
            )
            raise InvalidConfiguration(
                f"{display} is {what}, which an image cannot hold", hint="remove it from the directory"
            )
    except FileNotFoundError as error:
        raise _changed(display) from error
    except OSError as error:
        raise storage_error("read", display, error) from error


def _file(path: bytes, display: Path, name: bytes, time: int, write: Callable[[bytes], None]) -> None:
    # Without O_NONBLOCK, a FIFO that took the file's place a moment ago would block for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise _changed(display)
        mode = tar_writer.normal_mode(before.st_mode)
        write(tar_writer.header(name, tar_writer.REGULAR, mode=mode, size=before.st_size, mtime=time))
        left = before.st_size
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise _changed(display)
            write(chunk)
            left -= len(chunk)
        after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns, before.st_mode) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_mode,
    ):
        raise _changed(display)
    write(tar_writer.padding(before.st_size))


def _changed(path: Path) -> Conflict:
    return Conflict(
        f"{path} changed while it was being read: no image was made",
        hint="stop what writes there, and pack again",
    )
