"""Pull and push, against digestry's registry; skopeo looks at what came of it."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path

import pytest

from digestry.blobs.protocols import FullSpeed
from digestry.client.session import Session
from digestry.errors import ContentError, DigestMismatch, NotFound, RemoteNotFound, SizeMismatch
from digestry.images.listing import list_images
from digestry.images.pull import pull
from digestry.images.push import push
from digestry.images.store import ImageStore
from digestry.images.transfer import Stage
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.images.making import HOST, OTHER, index_of, packed
from tests.stores import blob_file
from tests.support import RegistryServer, descriptor, program


@pytest.fixture
def name(registry: RegistryServer) -> Reference:
    return Reference(registry.host, f"images/{secrets.token_hex(6)}", "1")


@pytest.fixture
def second(tmp_path: Path) -> ImageStore:
    """Another machine's store."""
    return ImageStore(tmp_path / "second")


class Watch:
    def __init__(self) -> None:
        self.stages: list[tuple[Digest, Stage]] = []
        self.bytes = 0

    def stage(self, descriptor: Descriptor, stage: Stage) -> None:
        self.stages.append((descriptor.digest, stage))

    def moved(self, descriptor: Descriptor, count: int) -> None:
        self.bytes += count


def test_there_and_back(
    store: ImageStore, second: ImageStore, session: Session, name: Reference, tmp_path: Path
) -> None:
    made = packed(store, tmp_path / "a", str(name), file="x" * 100_000)
    watch = Watch()
    sent = push(session, name, store, observer=watch)
    assert (sent.digest, sent.before) == (made.manifest.digest, None)
    assert {d.digest for d in sent.sent} == {made.config.digest, made.layer.digest}
    assert watch.bytes == made.config.size + made.layer.size
    again = push(session, name, store)
    assert again.before == made.manifest.digest
    assert again.sent == ()

    watch = Watch()
    got = pull(session, name, second, observer=watch)
    assert got.descriptor == made.manifest
    assert got.images == (made.manifest.digest,)
    assert watch.bytes == made.config.size + made.layer.size
    assert (made.layer.digest, "waiting") in watch.stages
    assert (made.layer.digest, "done") in watch.stages
    assert second.find(name) == made.manifest
    for digest in (made.manifest.digest, made.config.digest, made.layer.digest):
        assert second.blobs.verify(digest, None, FullSpeed()).problem is None
    repeated = pull(session, name, second)
    assert repeated.fetched == ()
    assert repeated.before == made.manifest.digest


@pytest.mark.long
def test_a_tag_that_moved(
    store: ImageStore, second: ImageStore, session: Session, name: Reference, tmp_path: Path
) -> None:
    old = packed(store, tmp_path / "a", str(name), file="one")
    push(session, name, store)
    pull(session, name, second)
    new = packed(store, tmp_path / "b", str(name), file="two")
    assert push(session, name, store).before == old.manifest.digest
    assert pull(session, name, second).before == old.manifest.digest
    assert {(row.tag, row.digest) for row in list_images(second)} == {  # type: ignore[union-attr]
        ("1", new.manifest.digest),
        (None, old.manifest.digest),
    }


def test_a_digest_decides_over_a_tag(
    store: ImageStore, second: ImageStore, session: Session, name: Reference, tmp_path: Path
) -> None:
    old = packed(store, tmp_path / "a", str(name), file="one")
    push(session, name, store)
    both = Reference(name.host, name.repository, "1", old.manifest.digest)
    assert pull(session, both, second).tag_now == old.manifest.digest
    assert second.find(name).digest == old.manifest.digest
    new = packed(store, tmp_path / "b", str(name), file="two")
    push(session, name, store)
    third = ImageStore(tmp_path / "third")
    got = pull(session, both, third)
    assert got.descriptor.digest == old.manifest.digest
    assert got.tag_now == new.manifest.digest
    with pytest.raises(NotFound):
        third.find(name)  # the tag is not what was asked for, and so gets no name
    assert third.find(both).digest == old.manifest.digest


@pytest.fixture
def multi(
    store: ImageStore, session: Session, name: Reference, tmp_path: Path
) -> tuple[bytes, Digest, Digest]:
    """An index for two platforms in the registry: its bytes, this machine's image, the other."""
    mine = packed(store, tmp_path / "m", str(name.with_tag("mine")), file="mine")
    other = packed(store, tmp_path / "o", str(name.with_tag("other")), OTHER, file="other")
    raw = index_of((other.manifest, OTHER), (mine.manifest, HOST))
    with store.adding():
        store.blobs.put(raw)
        store.point(name, Descriptor(media_types.OCI_INDEX, Digest.of(raw), len(raw)))
    push(session, name, store)
    return raw, mine.manifest.digest, other.manifest.digest


def test_an_index(
    second: ImageStore, session: Session, name: Reference, multi: tuple[bytes, Digest, Digest], tmp_path: Path
) -> None:
    raw, mine, other = multi
    got = pull(session, name, second)
    assert got.images == (mine,)
    assert got.descriptor.digest == Digest.of(raw)
    assert second.blobs.read(Digest.of(raw)) == raw
    assert second.blobs.stat(other) is None
    assert pull(session, name, second, platform=OTHER).images == (other,)
    third = ImageStore(tmp_path / "third")
    assert set(pull(session, name, third, all_platforms=True).images) == {mine, other}
    with pytest.raises(NotFound, match="it has linux/s390x"):
        pull(session, name, third, platform=type(OTHER)("riscv64", "linux"))


def test_pushing_a_part_of_an_index(
    second: ImageStore, session: Session, name: Reference, multi: tuple[bytes, Digest, Digest]
) -> None:
    raw, _, _ = multi
    pull(session, name, second)
    # The registry has the other platform's image: nothing is missing there.
    assert push(session, name, second).digest == Digest.of(raw)
    elsewhere = Reference(name.host, f"{name.repository}-copy", "1")
    second.tag(name, elsewhere)
    with pytest.raises(NotFound, match="neither here nor in") as caught:
        push(session, elsewhere, second)
    assert "--all-platforms" in caught.value.hint


def test_layers_are_mounted_from_another_repository(
    store: ImageStore, session: Session, name: Reference, tmp_path: Path
) -> None:
    made = packed(store, tmp_path / "a", str(name), file=secrets.token_hex(1000))
    push(session, name, store)
    copy = Reference(name.host, f"{name.repository}-copy", "1")
    store.tag(name, copy)
    result = push(session, copy, store)
    assert {d.digest for d in result.mounted} == {made.config.digest, made.layer.digest}
    assert result.sent == ()


def test_a_damaged_layer_is_not_pushed(
    store: ImageStore, session: Session, name: Reference, tmp_path: Path
) -> None:
    made = packed(store, tmp_path / "a", str(name), file=secrets.token_hex(1000))
    path = blob_file(store.root, made.layer.digest)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DigestMismatch):
        push(session, name, store)
    with pytest.raises(RemoteNotFound):
        session.repository(name).resolve("1")


def test_a_missing_layer(store: ImageStore, session: Session, name: Reference, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", str(name), file=secrets.token_hex(1000))
    store.blobs.delete(made.layer.digest)
    with pytest.raises(NotFound, match="a part of"):
        push(session, name, store)


def test_foreign_layers_are_skipped_and_said(
    second: ImageStore, session: Session, name: Reference, registry: RegistryServer
) -> None:
    manifest = registry.image(name.repository)
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    layer = descriptor(foreign, Digest.of(b"elsewhere"), 9, urls=["https://elsewhere.example/layer"])
    manifest["layers"].append(layer)
    registry.push_manifest(name.repository, "1", manifest)
    result = pull(session, name, second)
    (skipped,) = result.skipped
    assert skipped.descriptor.digest == Digest.of(b"elsewhere")
    assert skipped.reason
    assert len(push(session, name, second).skipped) == 1


def test_a_wrong_size_in_an_index(
    second: ImageStore, session: Session, name: Reference, registry: RegistryServer
) -> None:
    digest = registry.push_image(name.repository, "child")
    wrong = Descriptor(media_types.OCI_MANIFEST, digest, 12345)
    raw = index_of((wrong, HOST))
    answer = registry.request(
        "PUT",
        f"/v2/{name.repository}/manifests/1",
        raw,
        {"Content-Type": media_types.OCI_INDEX},
    )
    if answer.status == 201:  # a registry may see it itself
        with pytest.raises(SizeMismatch):
            pull(session, name, second)
        assert list_images(second) == []


def test_the_wrong_platform(
    second: ImageStore, session: Session, name: Reference, registry: RegistryServer
) -> None:
    registry.push_image(name.repository, "1")
    with pytest.raises(NotFound, match="not for linux/s390x"):
        pull(session, name, second, platform=OTHER)


def test_a_failed_pull_names_nothing(
    second: ImageStore, session: Session, name: Reference, registry: RegistryServer
) -> None:
    with pytest.raises(RemoteNotFound):
        pull(session, name, second)
    assert list_images(second) == []


@pytest.mark.peer("skopeo")
def test_skopeo_agrees(
    store: ImageStore, second: ImageStore, session: Session, name: Reference, tmp_path: Path
) -> None:
    skopeo = program("skopeo")
    made = packed(store, tmp_path / "a", str(name), file="hello")
    push(session, name, store)
    answer = subprocess.run(
        [skopeo, "inspect", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
    )
    assert json.loads(answer.stdout)["Digest"] == str(made.manifest.digest)
    target = name.with_tag("by-skopeo")
    subprocess.run(
        [skopeo, "copy", "-q", "--dest-tls-verify=false", f"oci:{store.root}:{name}", f"docker://{target}"],
        check=True,
    )
    assert pull(session, target, second).descriptor.digest == made.manifest.digest


@pytest.mark.long
def test_indexes_deep_inside_of_each_other_are_refused(
    store: ImageStore, session: Session, name: Reference, tmp_path: Path
) -> None:
    """Another tool may have brought them into the store."""
    made = packed(store, tmp_path / "a", str(name), file="x").manifest
    for _ in range(1100):
        raw = index_of((made, None))
        made = Descriptor(media_types.OCI_INDEX, store.blobs.put(raw), len(raw))
    with store.adding():
        store.point(name, made)
    with pytest.raises(ContentError, match="inside of each other"):
        push(session, name, store)
    assert [image.digest for image in store.present_images(store.manifest(made))]
