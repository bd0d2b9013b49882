"""Where a registry keeps what it has: the one place that chooses the stores."""

from __future__ import annotations

from pathlib import Path

from digestry.blobs.disk import open_layout
from digestry.blobs.protocols import BlobStore
from digestry.coordination.files import FileCoordination
from digestry.coordination.protocol import Coordination


def open_blobs(root: Path) -> BlobStore:
    """Return the blob store of the registry in ``root``. Nothing is touched."""
    return open_layout(root)


def open_coordination(root: Path) -> Coordination:
    """Return the coordination of the registry in ``root``. Nothing is touched."""
    return FileCoordination(root)
