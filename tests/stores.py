"""The stores of a registry's directory, as its tests look into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from digestry.backend import open_blobs
from digestry.model.digest import Digest


def blob_file(root: Path, digest: Digest) -> Path:
    """The file that holds the content, or would. Skips the test if the store has no files."""
    path = open_blobs(root).local_path(digest)
    if path is None:
        pytest.skip("of a store on the disk")
    return path


def needs_disk(root: Path) -> None:
    """Skips the test unless the registry in ``root`` keeps its content in files."""
    blob_file(root, Digest.of(b""))
