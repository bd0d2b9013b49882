"""A registry to break: its root on a small disk, or its application in this process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.inside import prepared


class SmallDisk:
    """A file system of a few MiB of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free(self) -> int:
        """Bytes left."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leave: int) -> None:
        """Takes all room but ``leave`` bytes."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            # The server writes meanwhile: what is left may be less by now.
            with contextlib.suppress(OSError):
                while (left := self.free - leave) > 0:
                    os.write(descriptor, bytes(min(left, 1 << 20)))
        finally:
            os.close(descriptor)

    def make_room(self) -> None:
        """Gives it back."""
        self._ballast.unlink()


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """A tmpfs of 16 MiB; needs the right to mount one."""
    with tempfile.TemporaryDirectory(prefix="digestry-small-") as directory:
        command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", directory]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
        try:
            yield SmallDisk(Path(directory))
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture(scope="session")
def empty_root() -> Iterator[Path]:
    """The files of an empty registry, to copy."""
    with tempfile.TemporaryDirectory(prefix="digestry-empty-") as directory:
        yield prepared(Path(directory) / "root")
