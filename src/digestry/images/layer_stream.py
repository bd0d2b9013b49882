"""The archive of a layer, read from its blob: verified as stored, inflated, and verified again."""

from __future__ import annotations

import importlib
import itertools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from digestry.blobs.verify import Verifier, wrong_hash
from digestry.errors import ContentError, InvalidConfiguration
from digestry.fsio import storage_error
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, shown
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Manifest

_CHUNK: Final = 1 << 20
_PIECE: Final = 32 << 10
"""The input that is inflated at once: the rest is copied for each member of a gzip, and each may be tiny."""
_LARGEST_WINDOW: Final = 128 << 20  # of zstd's, which is held in memory
_LARGEST_MEMORY: Final = 160 << 20
"""What xz may take: twice what its highest level needs."""


class LayerStream:
    """A layer's archive: read from the blob, verified, inflated, verified again.

    ``taken`` is called with the number of further inflated bytes; its errors end the reading.
    """

    def __init__(
        self,
        file: BinaryIO,
        descriptor: Descriptor,
        diff_id: Digest,
        taken: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._taken = taken
        self._chunks = _inflated(self._blob(file, descriptor), descriptor)
        self._diff_id = diff_id
        self._hasher = diff_id.hasher()
        self._pending = memoryview(b"")

    @staticmethod
    def _blob(file: BinaryIO, descriptor: Descriptor) -> Iterator[bytes]:
        verifier = Verifier(descriptor.digest, descriptor.size)
        while True:
            try:
                chunk = file.read(_CHUNK)
            except OSError as error:
                raise storage_error("read", Path(file.name), error) from error
            if not chunk:
                break
            verifier.update(chunk)
            yield chunk
        verifier.finish()

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; none at the end."""
        while not self._pending:
            chunk = next(self._chunks, b"")
            if not chunk:
                return b""
            self._taken(len(chunk))
            self._hasher.update(chunk)
            self._pending = memoryview(chunk)
        part = bytes(self._pending[:count])
        self._pending = self._pending[count:]
        return part

    def finish(self) -> None:
        """Read the bytes after the archive's end, and verify the whole."""
        while self.read(_CHUNK):
            pass
        found = Digest(self._diff_id.algorithm, self._hasher.hexdigest())
        if found != self._diff_id:
            raise wrong_hash(self._diff_id, found)


def check_layers(image: Manifest, config: ImageConfig) -> None:
    """Check that ``image`` has a file system: a layer for each entry of its config's ``rootfs``.

    Raises :class:`InvalidConfiguration` for an artifact, :class:`ContentError` for another config.
    """
    if len(image.layers) == len(config.diff_ids):
        return
    kind = "" if image.config is None else image.config.media_type
    if kind not in media_types.IMAGE_CONFIGS:
        raise InvalidConfiguration(
            f"{image.digest} is an artifact, not a container's image: its config is {shown(kind)}",
            hint="its files are its layers: digestry inspect lists them, digestry blob get writes one",
        )
    raise ContentError(
        f"{image.digest} has {len(image.layers)} layers, but its config {len(config.diff_ids)}"
    )


def _inflated(chunks: Iterator[bytes], descriptor: Descriptor) -> Iterator[bytes]:
    """Yield the archive of a layer.

    Its first bytes say how it is compressed, as for docker, containerd and containers/storage: media types
    are not always right about that. Both hashes are verified, so that nothing else can be made of it.
    """
    kind, what = descriptor.media_type, f"layer {descriptor.digest}"
    if kind not in _KINDS:
        raise ContentError(f"{what} is {shown(kind)}, which cannot be unpacked")
    parts: Iterator[bytes] = (chunk for chunk in chunks if chunk)
    beginning = b""
    while len(beginning) < _SIGNATURE and (chunk := next(parts, b"")):
        beginning += chunk
    parts = itertools.chain((beginning,) if beginning else (), parts)
    found = decompressed(parts, beginning, what)
    if found is None and _KINDS[kind] is not None and not _may_be_tar(beginning):
        found = (_gunzip if _KINDS[kind] == "gzip" else _unzstd)(parts, what)  # says what is wrong
    yield from parts if found is None else found


_KINDS: Final = {
    media_types.OCI_LAYER: None,
    media_types.DOCKER_LAYER: None,
    media_types.OCI_LAYER_GZIP: "gzip",
    media_types.DOCKER_LAYER_GZIP: "gzip",
    media_types.OCI_LAYER_ZSTD: "zstd",
    media_types.DOCKER_LAYER_ZSTD: "zstd",
}
_SIGNATURE: Final = 512


def _may_be_tar(beginning: bytes) -> bool:
    """Return whether ``beginning`` is a header of an archive, or its end."""
    return beginning[257:262] == b"ustar" or (
        len(beginning) >= _SIGNATURE and not any(beginning[:_SIGNATURE])
    )


def decompressed(chunks: Iterator[bytes], beginning: bytes, what: str) -> Iterator[bytes] | None:
    """Yield the inflated ``chunks``; None if their ``beginning`` is of no known compression.

    Raises :class:`ContentError` about ``what`` while iterating.
    """
    if beginning.startswith(b"\x1f\x8b"):
        return _gunzip(chunks, what)
    if beginning.startswith(b"\x28\xb5\x2f\xfd"):
        return _unzstd(chunks, what)
    if beginning.startswith(b"BZh"):
        return _by_library("bz2", "BZ2Decompressor", chunks, what)
    if beginning.startswith(b"\xfd7zXZ\0"):
        return _by_library("lzma", "LZMADecompressor", chunks, what, memlimit=_LARGEST_MEMORY)
    return None


def _by_library(
    module: str, name: str, chunks: Iterator[bytes], what: str, **options: int
) -> Iterator[bytes]:
    """Yield ``chunks`` inflated by the decompressor ``name`` of a standard ``module``."""
    library = importlib.import_module(module)
    inflater = getattr(library, name)(**options)
    errors = (OSError, EOFError, getattr(library, "LZMAError", OSError))
    for chunk in chunks:
        rest = chunk
        while True:
            try:
                output = inflater.decompress(rest, _CHUNK)
            except errors as error:
                raise ContentError(f"{what} is not valid {module}: {error}") from error
            if output:
                yield output
            if inflater.eof:
                rest = inflater.unused_data
                if not rest:
                    break
                inflater = getattr(library, name)(**options)
            elif inflater.needs_input:
                break
            else:
                rest = b""
    if not inflater.eof:
        raise ContentError(f"{what} ends in the middle of its {module} stream")


def _inflate_module() -> Any:
    """Return isal if it is there, else zlib. isal inflates twice as fast, with zlib's interface."""
    # Any: the two modules have the same functions, and no type in common.
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib


def _gunzip(chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    module = _inflate_module()
    inflater = module.decompressobj(wbits=31)
    started = False
    try:
        for piece in _pieces(chunks):
            rest = piece
            while rest:
                if inflater.eof:
                    # Another member follows, or padding (RFC 1952, 2.2).
                    rest = rest.lstrip(b"\0") if not started else rest
                    if not rest:
                        break
                    inflater = module.decompressobj(wbits=31)
                # A bound on the output: some kilobytes can inflate to gigabytes.
                output = inflater.decompress(rest, _CHUNK)
                started = True
                rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
                if output:
                    yield output
                if inflater.eof:
                    started = False
    except (zlib.error, module.error) as error:
        raise ContentError(f"{what} is not valid gzip: {error}") from error
    while not inflater.eof:
        try:
            output = inflater.decompress(b"", _CHUNK)
        except (zlib.error, module.error) as error:
            raise ContentError(f"{what} is not valid gzip: {error}") from error
        if not output:
            raise ContentError(f"{what} ends in the middle of its gzip stream")
        yield output


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE):
            yield chunk[start : start + _PIECE]


def _unzstd(chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415 - of use to few layers

    source = cast("BinaryIO", _Joined(chunks))
    reader = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(
        source, read_across_frames=True
    )
    while True:
        try:
            output = reader.read(_CHUNK)
        except zstandard.ZstdError as error:
            raise ContentError(f"{what} is not valid zstd: {error}") from error
        if not output:
            return
        yield output


class _Joined:
    """Chunks as the file that zstandard reads."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, count: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        count = len(self._rest) if count < 0 else count
        part, self._rest = self._rest[:count], self._rest[count:]
        return part
