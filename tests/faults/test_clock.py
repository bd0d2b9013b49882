"""A clock that is set back, and one that jumps ahead."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from digestry.catalog import clock, lease_rows
from digestry.model.digest import Digest
from digestry.registry.retention_config import CollectionConfig
from tests.backends import collect, collection_job
from tests.crash.checks import check_journal, check_nothing_under_way, check_served, check_story, check_usage
from tests.faults.inside import Inside
from tests.stores import ingest_file

HOUR = 3600 * clock.SECOND
YEAR = 365 * 24 * HOUR
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Wrong:
    """A clock that is wrong by ``by`` microseconds."""

    by: int = 0

    def __call__(self) -> int:
        return clock.now() + self.by


@dataclass
class Place:
    """A registry and its clock."""

    registry: Inside
    clock: Wrong = field(default_factory=Wrong)

    def pass_time(self, microseconds: int) -> None:
        """Unlike a clock that is set, this is time for everything."""
        self.clock.by += microseconds
        self.registry.service.upload_sweep.clocks.jump()

    def put(self, tag: str, note: str) -> None:
        raw = b'{"schemaVersion":2,"mediaType":"%s","manifests":[],"annotations":{"n":"%s"}}'
        body = raw % (INDEX.encode(), note.encode())
        answer = self.registry.request("PUT", f"/v2/a/manifests/{tag}", body, {"Content-Type": INDEX})
        assert answer.status == 201, answer.body

    def lease(self, digest: Digest) -> int:
        with self.registry.service.stores.catalog._database.read() as connection:
            return lease_rows.end(connection, str(digest)) or 0


@pytest.fixture
def place(empty_root: Path, tmp_path: Path) -> Iterator[Place]:
    root = tmp_path / "root"
    shutil.copytree(empty_root, root)
    now = Wrong()
    with Inside(root, now=now) as registry:
        yield Place(registry, now)
        check_served(registry, root)
    with Inside(root, upload_timeout=-1.0) as registry:
        registry.service.upload_sweep.run()
    check_nothing_under_way(root)
    check_journal(root)
    check_usage(root)


@pytest.mark.parametrize("back", [HOUR, 20 * YEAR], ids=["an hour", "20 years"])
def test_set_back_the_journals_times_only_rise(place: Place, back: int) -> None:
    place.put("t", "1")
    place.clock.by = -back
    place.put("t", "2")
    place.put("u", "1")
    place.clock.by = 0
    place.put("t", "3")
    entries = place.registry.get("/v2/a/_digestry/journal").json()["entries"]
    times = [entry["at"] for entry in reversed(entries)]
    assert times == sorted(set(times))
    assert len(times) == 4
    check_story(place.registry, "a")


@pytest.mark.parametrize(
    "by", [-HOUR, -20 * YEAR, HOUR, YEAR], ids=["an hour back", "20 years back", "an hour on", "a year on"]
)
def test_an_upload_lives_through_a_clock_that_is_set(place: Place, by: int) -> None:
    content_ = os.urandom(5000)
    location = place.registry.request("POST", "/v2/a/blobs/uploads/").headers["location"]
    first = {"Content-Range": "0-1999"}
    assert place.registry.request("PATCH", location, content_[:2000], first).status == 202
    place.clock.by = by
    assert place.registry.service.upload_sweep.run() == 0
    assert place.registry.get(location).headers["range"] == "0-1999"
    rest = {"Content-Range": "2000-4999"}
    assert place.registry.request("PATCH", location, content_[2000:], rest).status == 202
    place.clock.by = 0
    assert place.registry.service.upload_sweep.run() == 0
    digest = Digest.of(content_)
    assert place.registry.request("PUT", f"{location}?digest={digest}").status == 201
    assert place.registry.get(f"/v2/a/blobs/{digest}").body == content_


def test_an_upload_from_before_the_clock_was_set_back_still_ends(place: Place) -> None:
    location = place.registry.request("POST", "/v2/a/blobs/uploads/").headers["location"]
    place.clock.by = -20 * YEAR
    assert place.registry.service.upload_sweep.run() == 0  # from here on it gets old
    place.pass_time(23 * HOUR)
    assert place.registry.service.upload_sweep.run() == 0
    place.pass_time(2 * HOUR)
    assert place.registry.service.upload_sweep.run() == 1
    assert place.registry.get(location).status == 404


def test_files_that_no_upload_owns_end_though_their_time_is_in_the_future(place: Place) -> None:
    left = ingest_file(place.registry.root, "new-0123456789abcdef01234567")
    left.write_bytes(b"x")
    future = (clock.now() + YEAR) / clock.SECOND
    os.utime(left, (future, future))
    blobs = place.registry.service.stores.blobs
    assert blobs.sweep_ingests(3600) == []
    assert left.stat().st_mtime < future - 3600
    os.utime(left, (left.stat().st_mtime - 7200,) * 2)  # two hours later
    assert blobs.sweep_ingests(3600) == [left.name]


@pytest.mark.parametrize("back", [HOUR, 20 * YEAR], ids=["an hour", "20 years"])
def test_set_back_no_lease_gets_shorter_and_nothing_is_collected(place: Place, back: int) -> None:
    content_ = b"leased"
    digest = Digest.of(content_)
    push = f"/v2/a/blobs/uploads/?digest={digest}"
    assert place.registry.request("POST", push, content_).status == 201
    end = place.lease(digest)
    place.clock.by = -back
    assert place.registry.request("POST", push, content_).status == 201
    assert place.registry.request("HEAD", f"/v2/a/blobs/{digest}").status == 200
    assert place.lease(digest) >= end
    assert collect(place.registry.config, now=place.clock).blobs == 0
    assert place.registry.get(f"/v2/a/blobs/{digest}").body == content_


def test_the_schedule_collects_nothing_right_after_a_jump_ahead(place: Place) -> None:
    """By the new time the lease of what was pushed a second ago is over."""
    content_ = b"pushed a second ago"
    digest = Digest.of(content_)
    scheduled = replace(place.registry.config, collection=CollectionConfig(every=0.0))
    job = collection_job(scheduled, now=place.clock)
    answer = place.registry.request("POST", f"/v2/a/blobs/uploads/?digest={digest}", content_)
    assert answer.status == 201
    place.clock.by = 3 * 24 * HOUR
    assert job.run(threading.Event()) > 1
    assert place.registry.get(f"/v2/a/blobs/{digest}").body == content_
