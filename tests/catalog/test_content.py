"""Links, manifests, leases, uploads, and the graph of what holds what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from digestry.backend import Backend
from digestry.catalog import uploads
from digestry.catalog.blob_links import LEASE, UnknownRepository
from digestry.catalog.catalog import Catalog
from digestry.catalog.manifest_rows import MissingContent
from digestry.catalog.options import CatalogOptions
from digestry.errors import Conflict, NotFound
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from tests.backends import BlockingReads
from tests.catalog.raw import Raw
from tests.catalog.support import ORIGIN, Clock, image, index, pushed, put


def leases(raw: Raw) -> dict[str, int]:
    return dict(raw.query("SELECT digest, expires_at FROM leases"))


# -- leases ----------------------------------------------------------------------------------------


def test_leases_are_given(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    digest = Digest.of(b"x")
    catalog.add_blob("x", digest, 1)
    assert leases(raw) == {str(digest): clock.now + LEASE}
    clock.now += 5
    catalog.mount_blob("y", digest, source="x")
    assert leases(raw)[str(digest)] == clock.now + LEASE
    manifest = pushed(catalog, "x")
    assert leases(raw)[str(manifest.digest)] == clock.now + LEASE


def test_leases_are_coarse(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    digest = Digest.of(b"x")
    catalog.add_blob("x", digest, 1)
    first = clock.now + LEASE
    for step in (1, LEASE // 4, LEASE // 4 - 1):
        clock.now += step
        catalog.renew_lease("x", digest)
        assert leases(raw)[str(digest)] == first
    clock.now += 2  # less than half is left
    catalog.renew_lease("x", digest)
    assert leases(raw)[str(digest)] == clock.now + LEASE


def test_a_lease_is_never_shortened(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    digest = Digest.of(b"x")
    catalog.add_blob("x", digest, 1)
    end = leases(raw)[str(digest)]
    clock.now -= LEASE  # the clock was set back
    catalog.add_blob("y", digest, 1)
    catalog.renew_lease("x", digest)
    assert leases(raw)[str(digest)] == end


def test_no_promise_for_what_is_not_there(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    digest = Digest.of(b"x")
    assert not catalog.renew_lease("x", digest)
    catalog.add_blob("y", digest, 1)
    clock.now += LEASE
    assert not catalog.renew_lease("x", digest)
    assert catalog.renew_lease("y", digest)
    assert list(leases(raw).values()) == [clock.now + LEASE]


# -- blobs -----------------------------------------------------------------------------------------


def test_a_blob_is_its_repositorys_alone(catalog: Catalog) -> None:
    digest = Digest.of(b"x")
    catalog.add_blob("x", digest, 7)
    assert catalog.blob_size("x", digest) == 7
    assert catalog.blob_size("y", digest) is None
    assert catalog.mount_blob("y", digest, source="z") is None
    assert not catalog.has_repository("y")  # a mount that failed makes none
    assert catalog.mount_blob("y", digest, source=None) == 7
    assert catalog.blob_size("y", digest) == 7


def test_deleting_a_blob(catalog: Catalog) -> None:
    manifest = pushed(catalog, "x")
    assert manifest.config is not None
    for digest in (manifest.config.digest, manifest.layers[0].digest):
        with pytest.raises(Conflict, match=str(manifest.digest)):
            catalog.delete_blob("x", digest)
    catalog.delete_manifest("x", manifest.digest, origin=ORIGIN)
    catalog.delete_blob("x", manifest.config.digest)
    with pytest.raises(NotFound):
        catalog.delete_blob("x", manifest.config.digest)
    with pytest.raises(UnknownRepository):
        catalog.delete_blob("never", manifest.config.digest)


def test_a_push_and_a_deletion_at_once(catalog: Catalog) -> None:
    """Either the manifest is there with all its blobs, or the deletion won and the push is refused."""
    for number in range(20):
        name = f"x{number}"
        manifest = image(catalog, name)
        outcomes = _race(catalog, name, manifest)
        assert sorted(outcomes) in (["kept", "pushed"], ["deleted", "refused"])
        assert (catalog.manifest(name, manifest.digest) is not None) == ("pushed" in outcomes)


def _race(catalog: Catalog, name: str, manifest: Manifest) -> list[str]:
    outcomes: list[str] = []
    barrier = threading.Barrier(2)

    def push() -> None:
        barrier.wait()
        try:
            put(catalog, name, manifest, "t")
            outcomes.append("pushed")
        except MissingContent:
            outcomes.append("refused")

    def delete() -> None:
        barrier.wait()
        try:
            catalog.delete_blob(name, manifest.layers[0].digest)
            outcomes.append("deleted")
        except Conflict:
            outcomes.append("kept")

    threads = [threading.Thread(target=push), threading.Thread(target=delete)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


# -- manifests -------------------------------------------------------------------------------------


def test_what_is_missing_is_named_and_nothing_is_kept(catalog: Catalog) -> None:
    manifest = image(catalog, "elsewhere")
    for call in (
        lambda: catalog.check_references("x", manifest),
        lambda: put(catalog, "x", manifest, "t"),
    ):
        with pytest.raises(MissingContent) as caught:
            call()
        assert caught.value.digests == [str(blob.digest) for blob in manifest.blobs()]
    assert not catalog.has_repository("x")
    assert catalog.journal("x", limit=1) == []


@pytest.mark.long
def test_more_references_than_one_statement_takes(catalog: Catalog) -> None:
    config = Digest.of(b"{}")
    layers = [Digest.of(str(number).encode()) for number in range(1100)]
    for digest in (config, *layers[:-1]):
        catalog.add_blob("x", digest, 1)
    body = {
        "schemaVersion": 2,
        "config": {"mediaType": "a/b", "digest": str(config), "size": 1},
        "layers": [{"mediaType": "a/b", "digest": str(digest), "size": 1} for digest in layers * 2],
    }
    manifest = Manifest.parse(json.dumps(body).encode(), media_types.OCI_MANIFEST)
    with pytest.raises(MissingContent) as caught:
        put(catalog, "x", manifest)
    assert caught.value.digests == [str(layers[-1])]
    catalog.add_blob("x", layers[-1], 1)
    put(catalog, "x", manifest)
    with pytest.raises(Conflict):
        catalog.delete_blob("x", layers[1034])


def test_deleted_and_put_again(catalog: Catalog, clock: Clock) -> None:
    manifest = pushed(catalog, "x")
    first = catalog.manifest("x", manifest.digest)
    clock.now += 10
    put(catalog, "x", manifest)
    assert first is not None
    assert catalog.manifest("x", manifest.digest) == replace(first, pushed_at=first.pushed_at + 10)
    catalog.delete_manifest("x", manifest.digest, origin=ORIGIN)
    assert catalog.manifest("x", manifest.digest) is None
    assert catalog.tags("x") == []
    put(catalog, "x", manifest)
    again = catalog.manifest("x", manifest.digest)
    assert again is not None
    assert again.pushed_at == first.pushed_at + 10


def test_repositories_without_content_are_not_listed(catalog: Catalog) -> None:
    manifest = pushed(catalog, "b")
    catalog.add_blob("a", Digest.of(b"x"), 1)
    assert catalog.repositories(limit=10) == ["a", "b"]
    assert catalog.repositories(after="a", limit=10) == ["b"]
    catalog.delete_blob("a", Digest.of(b"x"))
    catalog.delete_manifest("b", manifest.digest, origin=ORIGIN)
    assert catalog.repositories(limit=10) == ["b"]  # its blobs are still there


# -- holders ---------------------------------------------------------------------------------------


def test_holders_of_nested_indexes(catalog: Catalog) -> None:
    one, two = image(catalog, "x"), image(catalog, "x")
    for manifest in (one, two):
        put(catalog, "x", manifest)
    inner = put(catalog, "x", index(one, two))
    middle = put(catalog, "x", index(inner, one))
    outer = put(catalog, "x", index(middle))
    aside = put(catalog, "x", index(two))
    assert one.config is not None
    for digest in (one.digest, one.config.digest):
        found = {holder.digest: holder for holder in catalog.holders("x", digest).holders}
        assert set(found) == {one.digest, inner.digest, middle.digest, outer.digest}
        assert found[middle.digest].manifests == tuple(sorted([inner.digest, one.digest]))
        assert found[one.digest].config == one.config.digest
    assert aside.digest in {holder.digest for holder in catalog.holders("x", two.digest).holders}
    assert catalog.holders("y", one.digest).holders == ()
    # Layers are shared by images that have nothing else in common: they make no holder.
    assert catalog.holders("x", one.layers[0].digest).holders == ()


def test_holders_that_are_deleted_are_known(catalog: Catalog) -> None:
    manifest = pushed(catalog, "x", ["t"])
    parent = put(catalog, "x", index(manifest), "i")
    for digest in (parent.digest, manifest.digest):
        catalog.delete_manifest("x", digest, origin=ORIGIN)
    found = catalog.holders("x", manifest.digest).holders
    assert {(holder.digest, holder.present) for holder in found} == {
        (manifest.digest, False),
        (parent.digest, False),
    }


def test_one_config_in_many_manifests(catalog: Catalog) -> None:
    """The same image with its layers packed anew: one image ID, two manifest digests."""
    first = pushed(catalog, "x")
    body = json.loads(first.raw)
    body["annotations"] = {"packed": "again"}
    second = put(catalog, "x", Manifest.parse(json.dumps(body).encode()))
    assert first.config is not None
    found = {holder.digest for holder in catalog.holders("x", first.config.digest).holders}
    assert found == {first.digest, second.digest}


def test_a_deep_chain_of_indexes_ends(catalog: Catalog) -> None:
    manifest = pushed(catalog, "x")
    for _ in range(80):
        manifest = put(catalog, "x", index(manifest))
    deepest = catalog.journal("x", limit=1)[0].to_digest
    assert deepest is not None
    assert 60 < len(catalog.holders("x", deepest).holders) <= 81


# -- uploads ---------------------------------------------------------------------------------------


def test_an_uploads_life(catalog: Catalog, clock: Clock) -> None:
    upload = catalog.begin_upload("x", "sha512")
    assert catalog.upload("x", upload.id) == upload
    assert catalog.upload("y", upload.id) is None
    digest = Digest.of(b"abc", "sha512")
    moved = catalog.advance_upload(upload, 3, digest)
    assert (moved.offset, moved.digest) == (3, digest)
    assert catalog.upload("x", upload.id) == moved
    assert catalog.stale_uploads(clock.now) == []
    assert [stale.id for stale in catalog.stale_uploads(clock.now + 1)] == [upload.id]
    catalog.add_blob("x", digest, 3, upload=upload.id)
    assert catalog.upload("x", upload.id) is None
    with pytest.raises(NotFound):
        catalog.advance_upload(upload, 5, None)


def test_bytes_from_before_the_machine_restarted_are_not_believed(
    catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    upload = catalog.begin_upload("x", "sha256")
    catalog.advance_upload(upload, 3, Digest.of(b"abc"))
    empty = catalog.begin_upload("x", "sha256")
    monkeypatch.setattr(uploads, "_boot_id", lambda: "another boot")
    later = backend.open_catalog()
    assert later.upload("x", upload.id) is None
    assert later.upload("x", empty.id) == empty  # nothing of it can have been lost
    assert [stale.id for stale in later.stale_uploads(clock.now)] == [upload.id]
    later.close()


def test_bytes_in_a_store_outlive_the_machine(
    backend: Backend, catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = CatalogOptions(uploads_last=True)
    one, other = (replace(backend, options=options).open_catalog() for _ in range(2))
    monkeypatch.setattr(uploads, "_boot_id", lambda: "another boot")
    upload = one.begin_upload("x", "sha256")
    one.advance_upload(upload, 3, Digest.of(b"abc"))
    found = other.upload("x", upload.id)
    assert found is not None
    assert (found.offset, found.digest) == (3, Digest.of(b"abc"))
    assert other.stale_uploads(clock.now) == []
    assert other.end_upload(upload.id)
    assert not one.end_upload(upload.id)
    one.close()
    other.close()


def test_where_a_machines_run_has_no_name_a_digest_of_another_process_is_not_believed(
    catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    upload = catalog.begin_upload("x", "sha256")
    catalog.advance_upload(upload, 3, Digest.of(b"abc"))
    monkeypatch.setattr(uploads, "_boot_id", lambda: "process another")
    later = backend.open_catalog()
    found = later.upload("x", upload.id)
    assert later.stale_uploads(clock.now) == []
    later.close()
    assert found is not None
    assert (found.offset, found.digest) == (3, None)


# -- hot reads -------------------------------------------------------------------------------------

_OTHER_PROCESS = """
import sys
from pathlib import Path
from digestry.backend import StoreLocations, open_backend
from tests.catalog.support import pushed
stores = StoreLocations(database=sys.argv[2] or None)
catalog = open_backend(Path(sys.argv[1]), stores=stores).open_catalog()
for line in sys.stdin:
    print(pushed(catalog, "x").digest, flush=True)
"""


@pytest.mark.long
def test_hot_reads_see_another_processs_push_at_once(
    catalog: Catalog, backend: Backend, url: str | None, tmp_path: Path
) -> None:
    reads = BlockingReads(backend)
    assert reads.manifest("x", "t") is None
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path), url or ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for _ in range(50):
            other.stdin.write("\n")
            other.stdin.flush()
            digest = other.stdout.readline().strip()
            found = reads.manifest("x", "t")
            assert found is not None
            assert found.digest == digest
            assert reads.manifest("x", digest) is not None
        other.stdin.close()
    reads.close()


def test_hot_reads_agree_with_the_catalog(catalog: Catalog, backend: Backend, raw: Raw) -> None:
    reads = BlockingReads(backend)
    manifest = pushed(catalog, "x")
    for _ in range(2):
        for target in ("t", str(manifest.digest)):
            found = reads.manifest("x", target)
            assert found is not None
            assert found[:3] == (str(manifest.digest), manifest.media_type, manifest.size)
            assert (found.lease_end is None) == (target == "t")
            assert reads.manifest("y", target) is None
    catalog.delete_tag("x", "t", origin=ORIGIN)
    assert reads.manifest("x", "t") is None
    assert reads.manifest("x", str(manifest.digest)) is not None
    catalog.delete_manifest("x", manifest.digest, origin=ORIGIN)
    assert reads.manifest("x", str(manifest.digest)) is None
    layer = manifest.layers[0].digest
    blob = reads.blob("x", str(layer))
    assert blob is not None
    assert blob == (8, leases(raw)[str(layer)])
    assert reads.content("x", str(layer)) == (8, blob.lease_end, True, False)
    catalog.delete_blob("x", layer)
    assert reads.blob("x", str(layer)) is None
    assert reads.content("x", str(layer)) is None
    reads.close()


def test_hot_content_is_a_blob_or_a_manifest(
    catalog: Catalog, raw: Raw, clock: Clock, backend: Backend
) -> None:
    manifest = pushed(catalog, "x")
    reads = BlockingReads(backend)
    text = str(manifest.digest)
    for bad in (False, True):
        assert reads.content("x", text) == (manifest.size, leases(raw)[text], False, bad)
        catalog.damage.note(manifest.digest, "bad", clock.now)
    for repository, digest in (("y", text), ("x", str(Digest.of(b"")))):
        assert reads.content(repository, digest) is None
    reads.close()


def test_hot_reads_tell_whether_a_manifest_may_come(catalog: Catalog, clock: Clock, backend: Backend) -> None:
    manifest, other = pushed(catalog, "x"), str(Digest.of(b"never pushed"))
    reads = BlockingReads(backend)
    blobs = {str(each.digest): each.size for each in manifest.blobs()}
    last = str(manifest.blobs()[-1].digest)
    itself = {str(manifest.digest): manifest.size}
    assert reads.serves_all("x", blobs)
    assert reads.serves_all("x", itself, manifests=True)
    assert not reads.serves_all("x", {**blobs, other: 12})
    assert not reads.serves_all("x", {**blobs, last: blobs[last] + 1})
    assert not reads.serves_all("x", {**blobs, last: 2**63 - 1})
    assert not reads.serves_all("x", {str(manifest.digest): manifest.size + 1}, manifests=True)
    assert not reads.serves_all("x", blobs, manifests=True)
    assert not reads.serves_all("x", itself)
    assert not reads.serves_all("y", blobs)
    catalog.damage.note(Digest.parse(last), "bad", clock.now)
    assert not reads.serves_all("x", blobs)
    catalog.delete_manifest("x", manifest.digest, origin=ORIGIN)
    assert not reads.serves_all("x", itself, manifests=True)
    reads.close()


def test_hot_pages_of_tags_are_the_catalogs(catalog: Catalog, backend: Backend) -> None:
    reads = BlockingReads(backend)
    assert reads.tags("x", after="", limit=10) is None
    for tag in ("b", "B", "a-1", "_", "1.0"):
        pushed(catalog, "x", [tag])
    everything = [row.name for row in catalog.tags("x")]
    assert everything == ["1.0", "B", "_", "a-1", "b"]
    assert reads.tags("x", after="", limit=10) == everything
    assert reads.tags("x", after="B", limit=2) == ["_", "a-1"]
    assert reads.tags("x", after="b", limit=2) == []
    catalog.delete_tag("x", "_", origin=ORIGIN)
    assert reads.tags("x", after="B", limit=2) == ["a-1", "b"]
    reads.close()


def test_a_mirrored_tag_is_read_with_what_its_registry_said(catalog: Catalog, backend: Backend) -> None:
    reads = BlockingReads(backend)
    assert reads.mirrored_tag("x", "t") == (None, None)
    manifest = pushed(catalog, "x")
    here = reads.manifest("x", "t")
    assert reads.mirrored_tag("x", "t") == (None, here)
    other = Digest.of(b"what a rule keeps from being here")
    catalog.pull_through.note("x", "t", other)
    catalog.pull_through.note("x", "gone", other)
    for _ in range(2):
        seen, found = reads.mirrored_tag("x", "t")
        assert seen is not None
        assert (seen.digest, found) == (str(other), here)
        seen, found = reads.mirrored_tag("x", "gone")
        assert seen is not None
        assert (seen.digest, found) == (str(other), None)
    catalog.damage.note(manifest.digest, "bad", 5)
    assert reads.mirrored_tag("x", "t").here is None
    reads.close()


def test_hot_reads_under_commits_are_never_old(catalog: Catalog, backend: Backend) -> None:
    """A value is asked for after it was committed: whatever is seen is that, or newer."""
    manifests = [image(catalog, "x") for _ in range(60)]
    order = {str(manifest.digest): number for number, manifest in enumerate(manifests)}
    done = [-1]

    def write() -> None:
        for number, manifest in enumerate(manifests):
            put(catalog, "x", manifest, "t")
            done[0] = number

    reads = BlockingReads(backend)
    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while writer.is_alive() or seen == 0:
        committed = done[0]
        found = reads.manifest("x", "t")
        if committed >= 0:
            assert found is not None
            assert order[found.digest] >= committed
            seen += 1
    writer.join()
    final = reads.manifest("x", "t")
    assert final is not None
    assert order[final.digest] == 59
    reads.close()
