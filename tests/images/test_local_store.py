"""The local store as a library's user has it, against a real registry."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import digestry
from digestry.errors import Conflict, InvalidReference, NotFound, RemoteNotFound
from tests.images.making import HOST, OTHER, index_of, tree
from tests.support import RegistryServer


@pytest.fixture
def own(tmp_path: Path) -> digestry.LocalStore:
    return digestry.LocalStore(tmp_path / "images")


def test_from_a_directory_to_a_registry_and_back(
    registry: RegistryServer, own: digestry.LocalStore, tmp_path: Path
) -> None:
    name = f"{registry.host}/face/app:1"
    packed = own.pack(tree(tmp_path / "files", etc__motd="hello"), name)
    pushed = own.push(name)
    assert (pushed.digest, pushed.before) == (packed.manifest.digest, None)
    with digestry.LocalStore(str(tmp_path / "second")) as second:
        pulled = second.pull(name)
        assert pulled.descriptor.digest == packed.manifest.digest
        assert second.manifest(name) == own.manifest(name)
        image = second.image(digestry.Reference.parse(name))
        assert second.config(image).platform == digestry.Platform.of_host()
        second.unpack(name, tmp_path / "unpacked")
        assert (tmp_path / "unpacked" / "etc" / "motd").read_text() == "hello"
        with pytest.raises(Conflict):
            second.unpack(name, tmp_path / "unpacked")
        second.close()
        assert second.pull(name).fetched == ()  # a store can be used again after it was closed


def test_names(own: digestry.LocalStore, tmp_path: Path) -> None:
    made = own.pack(tree(tmp_path / "files", a="b"), "localhost:5000/app")
    (row,) = own.images()
    assert isinstance(row, digestry.StoredImage)
    assert (row.name, row.tag, row.digest) == ("localhost:5000/app", "latest", made.manifest.digest)
    assert own.tag("localhost:5000/app", "localhost:5000/app:2") is None
    assert own.tag("localhost:5000/app:2", "localhost:5000/app:2") == made.manifest.digest
    assert own.resolve("localhost:5000/app:2").digest == made.manifest.digest
    assert own.remove("localhost:5000/app:2").deleted == ()
    assert own.remove(digestry.Reference.parse("localhost:5000/app:latest")).freed > 0
    assert own.images() == []
    with pytest.raises(NotFound):
        own.resolve("localhost:5000/app")
    with pytest.raises(InvalidReference):
        own.resolve("localhost:5000/App")


def test_a_platform_by_its_text(registry: RegistryServer, own: digestry.LocalStore, tmp_path: Path) -> None:
    name = f"{registry.host}/face/index:1"
    here = registry.push_image("face/index", "here", b"here", architecture=HOST.architecture)
    other = registry.push_image("face/index", "other", b"other", architecture=OTHER.architecture)
    with digestry.Registry(registry.host) as opened:
        app = opened.repository("face/index")
        index = index_of((app.resolve(str(here)), HOST), (app.resolve(str(other)), OTHER))
        app.push_manifest(index, "application/vnd.oci.image.index.v1+json", tags=["1"])
        found = app.pull_manifest("1")
    assert isinstance(found, digestry.Index)
    assert found.platforms == (HOST, OTHER)
    own.pull(name)
    assert own.image(name).digest == here
    with pytest.raises(NotFound):
        own.image(name, platform="linux/s390x")
    assert own.pull(name, platform="linux/s390x").images == (other,)
    assert own.image(name, platform=OTHER).digest == other


def test_a_given_session_stays_open(registry: RegistryServer, tmp_path: Path) -> None:
    digest = registry.push_image("face/session", "1")
    with digestry.Session() as session:
        with digestry.LocalStore(tmp_path / "images", session=session) as store:
            store.pull(f"{registry.host}/face/session:1")
        repository = session.registry(registry.host).repository("face/session")
        assert repository.resolve("1").digest == digest


def test_threads_share_a_store(registry: RegistryServer, own: digestry.LocalStore) -> None:
    digests = {registry.push_image("face/threads", str(number), f"{number}".encode()) for number in range(4)}
    threads = [
        threading.Thread(target=own.pull, args=(f"{registry.host}/face/threads:{number}",))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {row.digest for row in own.images()} == digests
    own.close()


def test_what_is_not_in_the_registry(registry: RegistryServer, own: digestry.LocalStore) -> None:
    with own, pytest.raises(RemoteNotFound):
        own.pull(f"{registry.host}/face/nothing:1")
    assert own.images() == []


def test_a_listing_of_many_images_is_that_of_each(own: digestry.LocalStore, tmp_path: Path) -> None:
    """Content is looked for in the directories' lists there, and file by file where images are few."""
    for number in range(12):
        tree(tmp_path / f"files{number}", data=f"number {number}")
        own.pack(tmp_path / f"files{number}", f"localhost:5000/team/many:{number}")
    rows = {row.tag: row for row in own.images() if isinstance(row, digestry.StoredImage)}
    assert len(rows) == 12
    (lost,) = own.image("localhost:5000/team/many:3").layers
    (own.path / "blobs" / "sha256" / lost.digest.encoded).unlink()
    gone = own.image("localhost:5000/team/many:4").config
    (own.path / "blobs" / "sha256" / gone.digest.encoded).unlink()
    after = own.images()
    sizes = {row.tag: row.size for row in after if isinstance(row, digestry.StoredImage)}
    assert sizes["3"] == rows["3"].size - lost.size
    assert {tag for tag, size in sizes.items() if size == rows[tag].size} == rows.keys() - {"3", "4"}
    (damaged,) = (row for row in after if not isinstance(row, digestry.StoredImage))
    assert str(gone.digest) in damaged.reason
    for number in range(6):
        own.remove(f"localhost:5000/team/many:{number + 6}")
    fewer = {row.tag: row.size for row in own.images() if isinstance(row, digestry.StoredImage)}
    assert fewer == {tag: size for tag, size in sizes.items() if tag in {"0", "1", "2", "3", "5"}}
