"""The writing of a layer: compressed on all cores, and hashed as an archive and as it is stored."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, Literal, Protocol, Self, get_args

from digestry.errors import InvalidConfiguration
from digestry.images.parallel_gzip import ParallelGzip
from digestry.images.stored_gzip import StoredGzip
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, new_hasher

Compression = Literal["stored", "gzip", "zstd", "none"]
"""How a layer is written: gzip of stored blocks, gzip that is smaller, zstd, or a plain tar archive."""

_CHUNK: Final = 1 << 20
_MOST_THREADS: Final = 16  # each holds some megabytes
_LEVELS: Final[dict[Compression, tuple[int, int, int]]] = {"gzip": (1, 9, 6), "zstd": (1, 19, 3)}
"""The lowest level, the highest one and the default. Above 19, readers of zstd need another window."""
_MEDIA_TYPES: Final[dict[Compression, str]] = {
    "stored": media_types.OCI_LAYER_GZIP,
    "gzip": media_types.OCI_LAYER_GZIP,
    "zstd": media_types.OCI_LAYER_ZSTD,
    "none": media_types.OCI_LAYER,
}


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def check_compression(compression: str, level: int | None) -> None:
    """Raise :class:`InvalidConfiguration` for a compression or a level that there is not."""
    if compression not in get_args(Compression):
        raise InvalidConfiguration(
            f"{compression!r} is no compression", hint=f"write {', '.join(get_args(Compression))}"
        )
    if level is None:
        return
    if compression not in _LEVELS:
        raise InvalidConfiguration(f"compression {compression} has no levels", hint="leave the level out")
    lowest, highest, _ = _LEVELS[compression]
    if not lowest <= level <= highest:
        raise InvalidConfiguration(f"{compression} has the levels {lowest} to {highest}, and not {level}")


class LayerWriter:
    """The writer of a layer's archive: what is to be stored goes to ``sink``. A context manager.

    The bytes that are made depend on what is written, on ``compression`` and on ``level``, and not on
    ``threads``, which are by default as many as this process has cores. Raises
    :class:`InvalidConfiguration` for a level that there is not.
    """

    def __init__(
        self,
        sink: Callable[[bytes], object],
        compression: Compression = "gzip",
        level: int | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        check_compression(compression, level)
        self._sink = sink
        self._kind = _MEDIA_TYPES[compression]
        self._compressor = _compressor(compression, level, threads or _cores())
        self._plain = new_hasher("sha256")
        self._hasher = self._plain if self._compressor is None else new_hasher("sha256")
        self._pending: list[bytes] = []
        self._waiting = 0
        self._size = 0

    def write(self, chunk: bytes) -> None:
        """Add bytes of the archive."""
        if self._compressor is not None:
            self._plain.update(chunk)
            chunk = self._compressor.compress(chunk)
        self._keep(chunk)

    def finish(self) -> tuple[Descriptor, Digest]:
        """Write what is left; return what describes the layer, and the digest of its archive."""
        if self._compressor is not None:
            self._keep(self._compressor.flush())
        self._drain()
        digest = Digest("sha256", self._hasher.hexdigest())
        return Descriptor(self._kind, digest, self._size), Digest("sha256", self._plain.hexdigest())

    def _keep(self, chunk: bytes) -> None:
        if chunk:
            self._pending.append(chunk)
            self._waiting += len(chunk)
            if self._waiting >= _CHUNK:
                self._drain()

    def _drain(self) -> None:
        content = b"".join(self._pending)
        self._hasher.update(content)
        self._sink(content)
        self._size += len(content)
        self._pending.clear()
        self._waiting = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._compressor, ParallelGzip):
            self._compressor.close()


def _cores() -> int:
    return min(len(os.sched_getaffinity(0)), _MOST_THREADS)


def _compressor(compression: Compression, level: int | None, threads: int) -> _Compressor | None:
    if compression == "none":
        return None
    if compression == "stored":
        return StoredGzip()
    chosen = _LEVELS[compression][2] if level is None else level
    if compression == "gzip":
        return ParallelGzip(chosen, threads)
    import zstandard  # noqa: PLC0415 - of use to few layers

    # With one thread or more, zstd cuts its input in the same places; without any it does not cut it.
    return zstandard.ZstdCompressor(level=chosen, threads=threads, write_checksum=True).compressobj()
