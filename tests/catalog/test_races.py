"""What several nodes do at the same time: each has its own connections to the one database."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from digestry.backend import Backend
from digestry.catalog.blob_links import LEASE
from digestry.catalog.catalog import Catalog
from digestry.catalog.manifest_rows import MissingContent
from digestry.catalog.quotas import OverQuota, Quota
from digestry.catalog.tag_moves import TagRefused
from digestry.catalog.tag_policy import TagPolicy, TagRule
from digestry.errors import Conflict, NotFound, TooMany
from digestry.model.digest import Digest
from tests.catalog.support import AT_ONCE, ORIGIN, Clock, image, pushed, put, with_options

_Result = TypeVar("_Result")
OpenNodes = Callable[..., list[Catalog]]


@pytest.fixture
def nodes(backend: Backend, catalog: Catalog) -> Iterator[OpenNodes]:
    """Opens nodes of one registry, with options of the configuration."""
    opened: list[Catalog] = []

    def open_nodes(count: int = 2, **options: object) -> list[Catalog]:
        made = [with_options(backend, **options).open_catalog() for _ in range(count)]
        opened.extend(made)
        return made

    yield open_nodes
    assert catalog.verify_journal() is None
    for one in opened:
        one.close()


def at_once(*calls: Callable[[], _Result]) -> list[_Result]:
    """Make all calls at the same moment; return their results in order, and raise what one of them raised."""
    barrier = threading.Barrier(len(calls))
    results: dict[int, _Result] = {}
    raised: list[BaseException] = []

    def run(number: int, call: Callable[[], _Result]) -> None:
        barrier.wait()
        try:
            results[number] = call()
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            raised.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
    return [results[number] for number in range(len(calls))]


def refused(call: Callable[[], object], *errors: type[Exception]) -> Callable[[], bool]:
    """Return a call that tells whether one of ``errors`` was raised."""

    def told() -> bool:
        try:
            call()
        except errors:
            return True
        return False

    return told


@pytest.mark.long
def test_twenty_writers_on_one_tag(nodes: OpenNodes, catalog: Catalog) -> None:
    """Each entry moves the tag from where the one before it left the tag."""
    writers = nodes(2)
    manifests = [image(catalog, "x") for _ in range(20)]

    def move(number: int) -> None:
        for step in range(5):
            put(writers[number % 2], "x", manifests[(number + step) % 20], "t")

    at_once(*(lambda number=number: move(number) for number in range(20)))
    found = list(reversed(catalog.journal("x", limit=1000)))
    assert found[0].event == "created"
    for before, after in itertools.pairwise(found):
        assert (after.event, after.from_digest) == ("moved", before.to_digest)
        assert after.number == (before.number or 0) + 1
        assert after.at > before.at
    assert catalog.tags("x")[0].digest == found[-1].to_digest


def test_an_immutable_tag_is_made_once(nodes: OpenNodes, catalog: Catalog) -> None:
    writers = nodes(2, policy=TagPolicy((TagRule("immutable"),)))
    manifests = [image(catalog, "x") for _ in range(10)]
    for tag in ("a", "b", "c"):
        calls = [
            refused(
                lambda writer=writer, manifest=manifest, tag=tag: put(writer, "x", manifest, tag),  # type: ignore[misc]
                TagRefused,
            )
            for writer, manifest in zip(itertools.cycle(writers), manifests, strict=False)
        ]
        assert at_once(*calls).count(False) == 1
    assert [event.event for event in catalog.journal("x", limit=100)] == ["created"] * 3


def test_a_repository_is_made_once(nodes: OpenNodes, catalog: Catalog) -> None:
    writers = nodes(4)
    for number in range(5):
        name = f"new{number}"
        at_once(*(lambda one=one, name=name: pushed(one, name) for one in writers))
        assert len(catalog.journal(name, limit=10)) == 4
    assert len(catalog.repositories(limit=100)) == 5


@pytest.mark.long
def test_what_is_pushed_is_not_collected_under_it(nodes: OpenNodes, catalog: Catalog, later: Clock) -> None:
    """Either the manifest's push finds that its layer went, or the layer stays: never both."""
    pusher, collector = nodes(2)
    stayed = 0
    for _ in range(10):
        manifest = image(catalog, "x")
        later.now += LEASE + 1

        def collect() -> bool:
            collection = collector.garbage(AT_ONCE)
            for key in collection.repositories():
                for _batch in itertools.chain(collection.delete_manifests(key), collection.unlink(key)):
                    pass
            return False

        gone, _ = at_once(
            refused(lambda manifest=manifest: put(pusher, "x", manifest, "t"), MissingContent),  # type: ignore[misc]
            collect,
        )
        blobs = [catalog.blob_size("x", blob.digest) for blob in manifest.blobs()]
        if gone:
            assert catalog.manifest("x", manifest.digest) is None
        else:
            stayed += 1
            assert blobs == [8, 8]
    assert 0 <= stayed <= 10


def test_what_was_found_is_not_collected(nodes: OpenNodes, catalog: Catalog, later: Clock) -> None:
    """A lease that was renewed holds, also in another repository: who was told of a blob has it."""
    finder, other, collector = nodes(3)
    for number in range(10):
        digest = Digest.of(f"layer {number}".encode())
        for name in ("x", "y"):
            catalog.add_blob(name, digest, 8)
        later.now += LEASE + 1

        def collect() -> bool:
            collection = collector.garbage(AT_ONCE)
            for key in collection.repositories():
                for _batch in collection.unlink(key):
                    pass
            collection.forget()
            return True

        found, elsewhere, _ = at_once(
            lambda digest=digest: finder.renew_lease("x", digest),  # type: ignore[misc]
            lambda digest=digest: other.renew_lease("y", digest),  # type: ignore[misc]
            collect,
        )
        assert not found or catalog.blob_size("x", digest) == 8
        assert not elsewhere or catalog.blob_size("y", digest) == 8


def test_a_mounted_blob_has_its_bytes(nodes: OpenNodes, catalog: Catalog, later: Clock) -> None:
    """Once nobody holds content its bytes go: what was mounted is held by then."""
    mounter, deleter = nodes(2)
    for number in range(10):
        digest = Digest.of(f"layer {number}".encode())
        catalog.add_blob("x", digest, 8)
        later.now += LEASE + 1

        def delete(digest: Digest = digest) -> int:
            deleter.delete_blob("x", digest)
            return len(deleter.garbage(AT_ONCE).held([digest]))

        size, held = at_once(
            lambda digest=digest: mounter.mount_blob("y", digest, source="x"),  # type: ignore[misc]
            delete,
        )
        if size is not None:
            assert held == 1


@pytest.mark.parametrize("each", ["repository", "pattern"])
def test_quotas_are_not_exceeded(nodes: OpenNodes, catalog: Catalog, each: str) -> None:
    quota = Quota("**", bytes=100, tags=2, each=each)  # type: ignore[arg-type]
    writers = nodes(4, quotas=(quota,))
    names = ["x"] if each == "repository" else ["x", "y", "z"]
    calls = [
        refused(
            lambda one=one, name=name: one.add_blob(name, Digest.of(os.urandom(8)), 30),  # type: ignore[misc]
            OverQuota,
        )
        for one, name, _ in zip(itertools.cycle(writers), itertools.cycle(names), range(12), strict=False)
    ]
    assert at_once(*calls).count(False) == 3


def test_reservations_are_within_the_quota(nodes: OpenNodes, catalog: Catalog) -> None:
    writers = nodes(4, quotas=(Quota("**", bytes=100),))
    uploads = [catalog.begin_upload("x", "sha256") for _ in range(8)]
    calls = [
        refused(lambda one=one, upload=upload: one.reserve(upload, 30, 30), OverQuota)  # type: ignore[misc]
        for one, upload in zip(itertools.cycle(writers), uploads, strict=False)
    ]
    assert at_once(*calls).count(False) == 3


def test_tags_are_within_the_quota(nodes: OpenNodes, catalog: Catalog) -> None:
    writers = nodes(4, quotas=(Quota("**", tags=2),))
    manifest = pushed(catalog, "x", ())
    calls = [
        refused(lambda one=one, tag=tag: put(one, "x", manifest, f"t{tag}"), OverQuota)  # type: ignore[misc]
        for tag, one in zip(range(8), itertools.cycle(writers), strict=False)
    ]
    assert at_once(*calls).count(False) == 2


def test_as_many_uploads_as_one_user_may_have(nodes: OpenNodes, catalog: Catalog) -> None:
    writers = nodes(4)
    calls = [
        refused(lambda one=one: one.begin_upload("x", "sha256", actor="a", most_of_one=3), TooMany)  # type: ignore[misc]
        for one, _ in zip(itertools.cycle(writers), range(12), strict=False)
    ]
    assert at_once(*calls).count(False) == 3
    assert len(catalog.upload_ids()) == 3


def test_a_robot_token_is_made_once(backend: Backend, catalog: Catalog) -> None:
    robots = [backend.open_robot_tokens() for _ in range(4)]
    for number in range(5):
        calls = [
            refused(lambda one=one, number=number: one.create(f"ci{number}", expires_at=None), Conflict)  # type: ignore[misc]
            for one in robots
        ]
        assert at_once(*calls).count(False) == 1
    assert len(robots[0].all()) == 5
    robots[0].revoke("ci0")
    assert robots[1].create("ci0", expires_at=None)
    for one in robots:
        one.close()


def test_deleting_and_pushing_a_tag(nodes: OpenNodes, catalog: Catalog) -> None:
    one, other = nodes(2)
    manifests = [image(catalog, "x") for _ in range(10)]

    def push() -> None:
        for manifest in manifests:
            put(one, "x", manifest, "t")

    def delete() -> None:
        for _ in manifests:
            refused(lambda: other.delete_tag("x", "t", origin=ORIGIN), NotFound)()

    at_once(push, delete)
    found = list(reversed(catalog.journal("x", limit=100)))
    for before, after in itertools.pairwise(found):
        assert after.from_digest == before.to_digest
