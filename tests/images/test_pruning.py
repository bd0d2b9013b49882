"""Pruning the local store: what goes, what stays, and when nothing is touched."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from digestry.errors import Conflict, ContentError
from digestry.images.pruning import prunable, prune
from digestry.images.removal import PARTIAL_SECONDS, remove_images
from digestry.images.store import ImageStore
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.images.making import packed

NAME = "localhost:5000/team/app"


def names(store: ImageStore) -> set[str]:
    return {str(entry.name) for entry in store.entries()}


def test_an_image_without_a_tag_goes(store: ImageStore, tmp_path: Path) -> None:
    old = packed(store, tmp_path / "a", f"{NAME}:1", a="old")
    new = packed(store, tmp_path / "b", f"{NAME}:1", a="new")
    orphan = store.blobs.put(b"nobody's")
    with store.blobs.begin(Digest.of(b"partial"), 7) as ingest:
        ingest.write(b"part")
        found = prunable(store)
    assert found.names == (f"{NAME}@{old.manifest.digest}",)
    assert {orphan, old.manifest.digest} <= set(found.digests)
    assert new.manifest.digest not in found.digests
    assert store.blobs.stat(orphan) is not None  # nothing was removed yet
    done = prune(store)
    assert (done.names, set(done.digests), done.freed) == (found.names, set(found.digests), found.freed)
    assert names(store) == {f"{NAME}:1", f"{NAME}@{new.manifest.digest}"}
    assert store.image(new.manifest) is not None
    assert not prunable(store)
    assert not prune(store)


def test_a_tag_of_another_repository_keeps_the_content_only(store: ImageStore, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", f"{NAME}:1", a="old")
    store.tag(made.manifest, Reference.parse("localhost:5000/other:2"))
    packed(store, tmp_path / "b", f"{NAME}:1", a="new")
    done = prune(store)
    assert done.names == (f"{NAME}@{made.manifest.digest}",)
    assert made.manifest.digest not in done.digests


def test_untagged_images_can_be_kept(store: ImageStore, tmp_path: Path) -> None:
    old = packed(store, tmp_path / "a", f"{NAME}:1", a="old")
    packed(store, tmp_path / "b", f"{NAME}:1", a="new")
    orphan = store.blobs.put(b"nobody's")
    assert prune(store, keep_untagged=True).digests == (orphan,)
    assert store.blobs.stat(old.manifest.digest) is not None


def test_nothing_goes_while_somebody_brings_content_in(store: ImageStore) -> None:
    with store.adding(), pytest.raises(Conflict):
        prune(store)


def test_nothing_goes_if_it_cannot_be_told_what_is_held(store: ImageStore, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", f"{NAME}:1", a="old")
    path = store.blobs.local_path(made.manifest.digest)
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    orphan = store.blobs.put(b"nobody's")
    with pytest.raises(ContentError):
        prune(store)
    assert store.blobs.stat(orphan) is not None


def test_a_store_that_is_not_there(store: ImageStore) -> None:
    assert not prune(store)
    assert not store.root.exists()


def test_what_a_download_has_fetched_outlives_the_removal_of_another_image(
    store: ImageStore, tmp_path: Path
) -> None:
    packed(store, tmp_path / "a", f"{NAME}:1", a="one")
    with store.adding(), store.blobs.ingest("pull-abc") as ingest:
        ingest.write(b"part")
    remove_images(store, [Reference.parse(f"{NAME}:1")])
    assert list(store.blobs.ingests()) == ["pull-abc"]
    day_ago = time.time() - 2 * PARTIAL_SECONDS
    os.utime(store.root / "ingest" / "pull-abc", (day_ago, day_ago))
    packed(store, tmp_path / "b", f"{NAME}:2", a="two")
    remove_images(store, [Reference.parse(f"{NAME}:2")])
    assert list(store.blobs.ingests()) == []
    with store.adding(), store.blobs.ingest("pull-def") as ingest:
        ingest.write(b"part")
    assert prune(store).partial == ("pull-def",)
    assert list(store.blobs.ingests()) == []
