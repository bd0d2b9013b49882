"""The stores of a registry's directory, as its tests look into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.backends import open_blobs


def blob_file(root: Path, digest: Digest) -> Path:
    """The file that holds the content, or would. Skips the test if the store has no files."""
    path = open_blobs(root).local_path(digest)
    if path is None:
        pytest.skip("of a store on the disk")
    return path


def on_disk(root: Path) -> bool:
    """Whether the content of the registry in this directory is in files there."""
    return open_blobs(root).local_path(Digest.of(b"")) is not None


def needs_disk(root: Path) -> Path:
    """The registry's directory. Skips the test unless its content is in files."""
    blob_file(root, Digest.of(b""))
    return root


def ingest_file(root: Path, name: str) -> Path:
    """The file of content on its way in. Skips the test if the store has no files."""
    return needs_disk(root) / "ingest" / name


def arrived(root: Path, name: str) -> int:
    """How many bytes have come of content on its way in."""
    content = open_blobs(root).follow(name)
    if content is None:
        pytest.skip("of a store whose content can be read while it comes in")
    try:
        return content.size()
    finally:
        content.close()


def digests(root: Path) -> set[Digest]:
    """All content that is in the store."""
    return set(open_blobs(root).digests())
