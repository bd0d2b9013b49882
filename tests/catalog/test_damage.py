"""What the catalog says of damaged content: who is served it, who misses it, and what ends it."""

from __future__ import annotations

import os

import pytest

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.damage import Affected, DamagedContent
from digestry.catalog.manifest_rows import MissingContent
from digestry.errors import NotFound
from digestry.model.digest import Digest
from tests.backends import BlockingReads
from tests.catalog.support import ORIGIN, Clock, image, index, pushed, put


def test_damaged_content_is_not_there_for_anybody(catalog: Catalog, clock: Clock, backend: Backend) -> None:
    reads = BlockingReads(backend)
    manifest = pushed(catalog, "x")
    layer = manifest.layers[0].digest
    for digest in (manifest.digest, layer):
        assert not reads.damaged("x", str(digest))
        assert catalog.damage.note(digest, "bad", clock.now) == "new"
        assert catalog.damage.note(digest, "worse", clock.now + 5) == "known"
    for target in ("t", str(manifest.digest)):
        assert reads.manifest("x", target) is None
        assert reads.damaged("x", target)
        assert not reads.damaged("y", target)
    assert reads.blob("x", str(layer)) is None
    assert reads.damaged("x", str(layer))
    assert catalog.manifest("x", manifest.digest) is None
    assert catalog.blob_size("x", layer) is None
    assert catalog.mount_blob("y", layer, source="x") is None
    assert catalog.mount_blob("y", layer, source=None) is None
    expected = [DamagedContent(digest, "bad", clock.now) for digest in sorted((manifest.digest, layer))]
    assert catalog.damage.listed(limit=5) == expected
    assert catalog.damage.count() == 2
    reads.close()


def test_a_push_ends_it_in_every_repository(catalog: Catalog, clock: Clock, backend: Backend) -> None:
    reads = BlockingReads(backend)
    manifest = pushed(catalog, "x")
    layer = manifest.layers[0].digest
    catalog.damage.note(layer, "bad", clock.now)
    catalog.damage.note(manifest.digest, "bad", clock.now)
    other = image(catalog, "y")  # a push of something else ends nothing
    assert catalog.damage.count() == 2
    catalog.add_blob("y", layer, 8)
    assert not catalog.damage.known(layer)
    assert reads.blob("x", str(layer)) is not None
    put(catalog, "y", other, "t")
    assert reads.manifest("x", "t") is None
    put(catalog, "x", manifest)
    assert reads.manifest("x", "t") is not None
    assert catalog.damage.count() == 0
    reads.close()


def test_a_manifest_that_needs_what_is_damaged_is_told_what_is_missing(
    catalog: Catalog, clock: Clock
) -> None:
    one, two = pushed(catalog, "x"), pushed(catalog, "x", ["u"])
    catalog.damage.note(one.layers[0].digest, "bad", clock.now)
    catalog.damage.note(two.digest, "bad", clock.now)
    with pytest.raises(MissingContent) as caught:
        put(catalog, "x", one, "t")
    assert caught.value.digests == [str(one.layers[0].digest)]
    with pytest.raises(MissingContent) as caught:
        put(catalog, "x", index(one, two), "i")
    assert caught.value.digests == [str(two.digest)]


def test_a_tag_is_not_restored_to_a_manifest_that_cannot_be_served(catalog: Catalog, clock: Clock) -> None:
    one = pushed(catalog, "x")
    pushed(catalog, "x")
    catalog.damage.note(one.digest, "bad", clock.now)
    with pytest.raises(NotFound, match="does not have"):
        catalog.restore_tag("x", "t", one.digest, origin=ORIGIN)
    catalog.damage.forget(one.digest)
    assert catalog.restore_tag("x", "t", one.digest, origin=ORIGIN).to_digest == one.digest


def test_a_damaged_manifest_can_be_deleted(catalog: Catalog, clock: Clock) -> None:
    manifest = pushed(catalog, "x")
    catalog.damage.note(manifest.digest, "bad", clock.now)
    catalog.delete_manifest("x", manifest.digest, origin=ORIGIN)
    assert catalog.damage.count() == 1
    assert catalog.damage.forget_unheld() == 1
    assert catalog.damage.count() == 0
    assert catalog.damage.forget_unheld() == 0


def test_what_nobody_has_cannot_be_damaged(catalog: Catalog, clock: Clock) -> None:
    assert catalog.damage.note(Digest.of(b"nobody's"), "bad", clock.now) == "unheld"
    manifest = pushed(catalog, "x")
    catalog.damage.note(manifest.layers[0].digest, "bad", clock.now)
    assert catalog.damage.forget_unheld() == 0
    catalog.delete_manifest("x", manifest.digest, origin=ORIGIN)
    assert catalog.damage.note(manifest.digest, "bad", clock.now) == "unheld"
    assert catalog.damage.forget(manifest.digest) is False


def test_who_is_hurt(catalog: Catalog, clock: Clock) -> None:
    one = pushed(catalog, "x", ["a", "b", "c"])
    two = pushed(catalog, "x", ["other"])
    inner = put(catalog, "x", index(one), "inner")
    put(catalog, "x", index(inner, two), "outer")
    layer = one.layers[0].digest
    catalog.mount_blob("y", layer, source="x")
    catalog.damage.note(layer, "bad", clock.now)
    assert catalog.damage.affected(layer, limit=10) == [
        Affected("x", ("a", "b", "c", "inner", "outer"), 0),
        Affected("y", (), 0),
    ]
    assert catalog.damage.affected(layer, limit=2)[0] == Affected("x", ("a", "b"), 3)
    assert catalog.damage.affected(inner.digest, limit=10) == [Affected("x", ("inner", "outer"), 0)]
    assert catalog.damage.affected(Digest.of(b"nobody's"), limit=10) == []


@pytest.mark.long
def test_all_that_is_held_comes_once_in_order(catalog: Catalog, clock: Clock) -> None:
    shown = [pushed(catalog, name, [f"t{number}"]) for number in range(20) for name in ("x", "y")]
    gone = pushed(catalog, "x", ["gone"])
    catalog.delete_manifest("x", gone.digest, origin=ORIGIN)
    for manifest in shown[:5]:
        catalog.mount_blob("z", manifest.layers[0].digest, source=None)
    long = Digest.of(os.urandom(9), "sha512")
    catalog.add_blob("x", long, 9)
    catalog.damage.note(long, "bad", clock.now)
    expected = {long} | {manifest.digest for manifest in shown}
    for manifest in (*shown, gone):
        assert manifest.config is not None
        expected |= {manifest.config.digest, manifest.layers[0].digest}
    for limit in (1, 7, 1000):
        found = []
        after = ""
        while page := catalog.damage.content(after=after, limit=limit):
            assert len(page) <= limit
            found += page
            after = str(page[-1].digest)
        assert [held.digest for held in found] == sorted(expected, key=str)
        sizes = {held.digest: held.size for held in found}
        assert sizes[long] == 9
        assert sizes[shown[0].digest] == shown[0].size
        assert [held.digest for held in found if held.damaged] == [long]
