"""The copy of a log in a directory, laid out as C2SP's ``tlog-tiles`` serves it.

``checkpoint`` is written last: what is there of a larger tree was copied before the process ended, and is
verified again before it is used.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from digestry.errors import ContentError, StorageError
from digestry.fsio import (
    NewFile,
    make_directory,
    publish_all,
    read_file,
    remove_file,
    storage_errors,
    sweep_temporaries,
    write_file,
)
from digestry.translog.checkpoints import Checkpoint, parse_checkpoint
from digestry.translog.merkle import EMPTY_ROOT, root_from
from digestry.translog.notes import parse_note
from digestry.translog.tiles import LONGEST_ENTRY, WIDTH, Tile, TileReader

_LARGEST_NOTE: Final = 256 << 10
_LARGEST_TILE: Final = WIDTH * (LONGEST_ENTRY + 2)


class CopiedLog:
    """The copy in ``directory``. Raises :class:`StorageError` in every method.

    One thread writes; others may read at the same time.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = directory / "checkpoint"
        self.note = b""
        self.checkpoint = Checkpoint("", 0, EMPTY_ROOT)
        note = self._read(self._file, _LARGEST_NOTE)
        if note is not None:
            try:
                self.checkpoint = parse_checkpoint(parse_note(note).text)
            except ContentError as error:
                raise StorageError(
                    f"{self._file} is damaged: {error.message}",
                    hint="remove it: the log is then copied again, and compared with what was seen",
                ) from error
            self.note = note

    @property
    def size(self) -> int:
        """The number of entries that were copied and verified."""
        return self.checkpoint.size

    def is_whole(self) -> bool:
        """Return whether the tiles that are here hash to the checkpoint's root."""
        try:
            return root_from(self.size, TileReader(self.size, self._tiles)) == self.checkpoint.root
        except (ContentError, StorageError, KeyError):
            return False

    def read(self, tile: Tile) -> bytes | None:
        """Return a tile or a bundle, or the beginning of the whole one; None if there is none.

        It may be of a tree that was not copied to its end.
        """
        return self._read(self.directory / tile.path, _LARGEST_TILE)

    def write(self, contents: Mapping[Tile, bytes]) -> None:
        """Store tiles and bundles, durably."""
        files: list[NewFile] = []
        try:
            for tile, content in contents.items():
                path = self.directory / tile.path
                make_directory(path.parent)
                temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
                with storage_errors("write", path):
                    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                    files.append(NewFile(descriptor, temporary, path))
                    with os.fdopen(descriptor, "wb", closefd=False) as file:
                        file.write(content)
            for problem in publish_all(files):
                if problem is not None:
                    raise problem
        finally:
            for new in files:
                os.close(new.descriptor)
                with contextlib.suppress(OSError):  # published, or swept at the next start
                    new.temporary.unlink()

    def publish(self, note: bytes, checkpoint: Checkpoint) -> None:
        """Make the tree of ``checkpoint``, whose tiles are all here, the copy; forget partial tiles of the
        one before."""
        before = self.size
        write_file(self._file, note)
        self.note, self.checkpoint = note, checkpoint
        for level in (*range(8), None):
            count = before >> (8 * (level or 0))
            if not count % WIDTH or count == checkpoint.size >> (8 * (level or 0)):
                continue
            old = Tile(level, count // WIDTH, count % WIDTH)
            remove_file(self.directory / old.path, durable=False)

    def sweep(self) -> None:
        """Remove what a process that was killed was writing."""
        make_directory(self.directory)
        for directory, _, __ in os.walk(self.directory):
            sweep_temporaries(Path(directory))

    def _tiles(self, tiles: Sequence[Tile]) -> Mapping[Tile, bytes]:
        found = {tile: self.read(tile) for tile in tiles}
        return {tile: content for tile, content in found.items() if content is not None}

    def _read(self, path: Path, limit: int) -> bytes | None:
        try:
            with storage_errors("read", path):
                return read_file(path, limit)
        except StorageError as error:
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                return None
            raise
