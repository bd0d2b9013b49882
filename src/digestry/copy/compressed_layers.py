"""Layers that an archive has as plain tar archives, compressed for the time of a copy."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import IO, BinaryIO, Final

from digestry.blobs.verify import Verifier
from digestry.copy.file_tree import FilePart
from digestry.errors import NotFound
from digestry.fsio import storage_errors
from digestry.images.layer_writer import LayerWriter
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest

_CHUNK: Final = 1 << 20


class CompressedLayers:
    """Files without names in the directory ``scratch``, which end with the process. A ``FileTree``.

    The name of each is the digest of the compressed layer. The same archive always makes the same layer.
    """

    def __init__(self, scratch: Path | None) -> None:
        self.path = scratch or Path(tempfile.gettempdir())
        self._files: dict[str, tuple[IO[bytes], int]] = {}

    def add(self, archive: BinaryIO, size: int, diff_id: Digest) -> Descriptor:
        """Compress an archive of ``size`` bytes, verified against ``diff_id``, and return the layer.

        Raises :class:`DigestMismatch`, :class:`SizeMismatch` and :class:`StorageError`.
        """
        verifier = Verifier(diff_id, size)
        with storage_errors("compress a layer in", self.path):
            file = tempfile.TemporaryFile(dir=self.path)  # noqa: SIM115 - it stays open
            try:
                with LayerWriter(file.write, "gzip") as writer:
                    while chunk := archive.read(_CHUNK):
                        verifier.update(chunk)
                        writer.write(chunk)
                    layer, _ = writer.finish()
                verifier.finish()
                file.flush()
            except BaseException:
                file.close()
                raise
        known = self._files.setdefault(str(layer.digest), (file, layer.size))
        if known[0] is not file:
            file.close()
        return layer

    def size(self, name: str) -> int | None:
        found = self._files.get(name)
        return None if found is None else found[1]

    def open(self, name: str) -> BinaryIO:
        found = self._files.get(name)
        if found is None:
            raise NotFound(f"{name} was not compressed")
        file, size = found
        return io.BufferedReader(FilePart(file.fileno(), 0, size), _CHUNK)

    def close(self) -> None:
        for file, _ in self._files.values():
            file.close()
