"""Garbage collection: what goes is exactly what nothing holds, at that moment."""

from __future__ import annotations

import json
import random
import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, text

from digestry.backend import Backend
from digestry.catalog import expired_tags, tag_retention
from digestry.catalog.blob_links import LEASE
from digestry.catalog.catalog import Catalog
from digestry.catalog.clock import SECOND
from digestry.catalog.removals import Removed, Stayed
from digestry.catalog.retention_rules import Retention, TagRetention
from digestry.catalog.tag_policy import TagPolicy, TagRule
from digestry.catalog.tag_retention import ACTOR
from digestry.errors import StorageError
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.sightings import SightingReport
from tests.catalog.support import (
    AT_ONCE,
    ORIGIN,
    Clock,
    collected,
    give_positions,
    image,
    index,
    names,
    put,
    rules,
    there,
    with_options,
)

DAY = 86400 * SECOND


def referrer(catalog: Catalog, subject: Manifest, *, name: str = "x") -> Manifest:
    body = json.loads(image(catalog, name).raw)
    body["subject"] = {"mediaType": subject.media_type, "digest": str(subject.digest), "size": subject.size}
    body["artifactType"] = "application/x"
    return Manifest.parse(json.dumps(body).encode())


def advisory_on(
    catalog: Catalog, part: Descriptor, *, name: str = "x", layers: tuple[Descriptor, ...] = ()
) -> Manifest:
    """A manifest whose subject is a layer or a config."""
    body = json.loads(image(catalog, name).raw)
    body["subject"] = {"mediaType": part.media_type, "digest": str(part.digest), "size": part.size}
    body["artifactType"] = "application/x"
    body["layers"] += [
        {"mediaType": one.media_type, "digest": str(one.digest), "size": one.size} for one in layers
    ]
    return Manifest.parse(json.dumps(body).encode())


# -- what holds a manifest ---------------------------------------------------------------------------


def test_a_tag_holds_and_a_lease_holds(catalog: Catalog, later: Clock) -> None:
    tagged = put(catalog, "x", image(catalog, "x"), "t")
    loose = put(catalog, "x", image(catalog, "x"))
    assert collected(catalog) == []  # just pushed
    later.now += LEASE + 1
    items = collected(catalog)
    assert there(catalog, tagged, loose) == [True, False]
    assert names(items, "manifest") == [str(loose.digest)]
    assert len(names(items, "link")) == 2
    assert collected(catalog) == []


def test_what_a_head_found_is_held(catalog: Catalog, later: Clock) -> None:
    loose = put(catalog, "x", image(catalog, "x"))
    other = put(catalog, "x", image(catalog, "x"))
    blob = loose.layers[0].digest
    later.now += LEASE + 1
    assert catalog.renew_lease("x", loose.digest)
    assert catalog.renew_lease("x", other.layers[0].digest)
    items = collected(catalog)
    assert there(catalog, loose, other) == [True, False]
    assert catalog.blob_size("x", blob) is not None  # of a manifest that is held
    assert catalog.blob_size("x", other.layers[0].digest) is not None  # itself
    assert names(items, "link") == [str(other.config.digest) if other.config else ""]


@pytest.mark.parametrize("what", ["layer", "config"])
def test_what_refers_to_a_part_is_held_by_any_image_with_it(
    catalog: Catalog, later: Clock, what: str
) -> None:
    base = put(catalog, "base", image(catalog, "base"), "12")
    body = json.loads(base.raw) | {"annotations": {"child": "1"}}
    for blob in (*base.layers, base.config):
        assert blob is not None
        catalog.add_blob("app", blob.digest, blob.size)
    child = put(catalog, "app", Manifest.parse(json.dumps(body).encode()), "1")
    assert base.config is not None
    part = base.layers[0] if what == "layer" else base.config
    stated = put(catalog, "base", advisory_on(catalog, part, name="base"))
    catalog.delete_tag("base", "12", origin=ORIGIN)
    later.now += LEASE + 1
    items = collected(catalog)
    # The base image itself is not held by what is stated about its layer.
    assert names(items, "manifest") == [str(base.digest)]
    assert catalog.manifest("base", stated.digest) is not None
    assert catalog.manifest("app", child.digest) is not None
    catalog.delete_tag("app", "1", origin=ORIGIN)
    later.now += LEASE + 1
    collected(catalog)
    collected(catalog)  # the repositories follow each other
    assert catalog.manifest("app", child.digest) is None
    assert catalog.manifest("base", stated.digest) is None


def test_what_refers_to_the_layer_of_nothing_is_not_held(catalog: Catalog, later: Clock) -> None:
    gone = image(catalog, "x").layers[0]
    one = put(catalog, "x", advisory_on(catalog, gone))
    # With the layer that they refer to as one of their own.
    two, three = (put(catalog, "x", advisory_on(catalog, gone, layers=(gone,))) for _ in range(2))
    later.now += LEASE + 1
    collected(catalog)
    assert there(catalog, one, two, three) == [False, False, False]


@pytest.mark.parametrize("held", [False, True])
def test_a_circle_over_a_layer_goes(catalog: Catalog, later: Clock, held: bool) -> None:
    """An index refers to an advisory on a layer of the image that the index lists."""
    one = put(catalog, "x", image(catalog, "x"))
    stated = put(catalog, "x", advisory_on(catalog, one.layers[0]))
    body = json.loads(index(one).raw) | {
        "subject": {"mediaType": stated.media_type, "digest": str(stated.digest), "size": stated.size}
    }
    listing = put(catalog, "x", Manifest.parse(json.dumps(body).encode()))
    if held:
        catalog.add_blob("y", one.layers[0].digest, one.layers[0].size)
        other = json.loads(image(catalog, "y").raw)
        other["layers"] = json.loads(one.raw)["layers"]
        put(catalog, "y", Manifest.parse(json.dumps(other).encode()), "t")
    later.now += LEASE + 1
    collected(catalog)
    assert there(catalog, one, stated, listing) == [held] * 3


def test_no_promise_of_what_another_repository_has(catalog: Catalog, later: Clock) -> None:
    """Its lease, which is the content's, is no promise here."""
    digest = Digest.of(b"shared")
    catalog.add_blob("x", digest, 8)
    later.now += LEASE + 1
    collected(catalog)
    catalog.add_blob("y", digest, 8)
    assert catalog.renew_lease("y", digest)
    assert not catalog.renew_lease("x", digest)


def test_what_a_tag_left_stays_for_its_time(catalog: Catalog, later: Clock) -> None:
    old = put(catalog, "x", image(catalog, "x"), "t")
    later.now += 400 * DAY
    new = put(catalog, "x", image(catalog, "x"), "t")
    kept = Retention(untagged=90 * 86400.0)
    later.now += 89 * DAY
    assert collected(catalog, kept) == []
    later.now += 2 * DAY
    items = collected(catalog, kept)
    assert there(catalog, old, new) == [False, True]
    whys = [item.why for item in items if item.kind == "manifest"]
    assert len(whys) == 1
    assert whys[0].startswith("tag t left it at ")


def test_what_never_had_a_tag_stays_as_long_since_its_push(catalog: Catalog, later: Clock) -> None:
    loose = put(catalog, "x", image(catalog, "x"))
    kept = Retention(untagged=90 * 86400.0)
    later.now += 89 * DAY
    assert collected(catalog, kept) == []
    later.now += 2 * DAY
    collected(catalog, kept)
    assert there(catalog, loose) == [False]


def test_pushed_again_it_stays_as_long_again(catalog: Catalog, later: Clock) -> None:
    loose = put(catalog, "x", image(catalog, "x"))
    month = Retention(untagged=30 * 86400.0)
    later.now += 29 * DAY
    put(catalog, "x", loose)
    later.now += 29 * DAY
    assert collected(catalog, month) == []
    later.now += 2 * DAY
    collected(catalog, month)
    assert there(catalog, loose) == [False]


def test_for_ever_is_for_ever(catalog: Catalog, later: Clock) -> None:
    loose = put(catalog, "x", image(catalog, "x"))
    later.now += 10_000 * DAY
    assert collected(catalog, Retention(untagged=None)) == []
    assert there(catalog, loose) == [True]


def test_a_deleted_tag_is_one_that_left(catalog: Catalog, later: Clock) -> None:
    image_ = put(catalog, "x", image(catalog, "x"), "t")
    later.now += 400 * DAY
    catalog.delete_tag("x", "t", origin=ORIGIN)
    later.now += 89 * DAY
    assert collected(catalog, Retention()) == []
    later.now += 2 * DAY
    collected(catalog, Retention())
    assert there(catalog, image_) == [False]


@pytest.mark.parametrize("by", ["manifest", "config"])
def test_what_ran_lately_is_held(catalog: Catalog, later: Clock, by: str) -> None:
    ran = put(catalog, "x", image(catalog, "x"))
    other = put(catalog, "x", image(catalog, "x"))
    assert ran.config is not None
    digest = ran.digest if by == "manifest" else ran.config.digest
    catalog.sightings.note([SightingReport("x", digest, "host", 2)], at=later.now, actor="auditor")
    later.now += LEASE + 1
    kept = Retention(untagged=0.0, sighted=30 * 86400.0)
    collected(catalog, kept)
    assert there(catalog, ran, other) == [True, False]
    later.now += 30 * DAY
    collected(catalog, kept)
    assert there(catalog, ran) == [False]


@pytest.mark.parametrize("by", ["child", "config"])
def test_an_index_stays_while_what_it_lists_ran(catalog: Catalog, later: Clock, by: str) -> None:
    """A container is of one platform; what it was started from, and would be again, is the index."""
    ran, other, lone = (put(catalog, "x", image(catalog, "x")) for _ in range(3))
    listing = put(catalog, "x", index(ran, other), "t")
    assert ran.config is not None
    digest = ran.digest if by == "child" else ran.config.digest
    catalog.sightings.note([SightingReport("x", digest, "host", 1)], at=later.now, actor="auditor")
    later.now += LEASE + 1
    kept = Retention((TagRetention(newest=0),), untagged=0.0, sighted=30 * 86400.0)
    assert names(collected(catalog, kept), "tag") == []
    catalog.delete_tag("x", "t", origin=ORIGIN)
    collected(catalog, kept)
    assert there(catalog, listing, ran, other, lone) == [True, True, True, False]
    later.now += 30 * DAY
    collected(catalog, kept)
    assert there(catalog, listing, ran, other) == [False, False, False]


def test_children_of_a_live_index_live(catalog: Catalog, later: Clock) -> None:
    children = [put(catalog, "x", image(catalog, "x")) for _ in range(3)]
    inner = put(catalog, "x", index(*children[:2]))
    outer = put(catalog, "x", index(inner), "t")
    later.now += LEASE + 1
    collected(catalog)
    assert there(catalog, outer, inner, *children) == [True, True, True, True, False]
    catalog.delete_tag("x", "t", origin=ORIGIN)
    later.now += LEASE + 1
    items = collected(catalog)
    assert there(catalog, outer, inner, *children) == [False] * 5
    assert len(names(items, "manifest")) == 4
    assert collected(catalog) == []


def test_a_child_that_another_index_lists_lives(catalog: Catalog, later: Clock) -> None:
    child = put(catalog, "x", image(catalog, "x"))
    dead, live = put(catalog, "x", index(child)), put(catalog, "x", index(child), "t")
    later.now += LEASE + 1
    collected(catalog)
    assert there(catalog, dead, live, child) == [False, True, True]


def test_referrers_live_as_long_as_their_subject(catalog: Catalog, later: Clock) -> None:
    subject = put(catalog, "x", image(catalog, "x"), "t")
    advisory = put(catalog, "x", referrer(catalog, subject))
    signature = put(catalog, "x", referrer(catalog, advisory))
    later.now += LEASE + 1
    assert collected(catalog) == []
    catalog.delete_tag("x", "t", origin=ORIGIN)
    later.now += LEASE + 1
    collected(catalog)
    assert there(catalog, subject, advisory, signature) == [False, False, False]


def test_what_a_tag_has_just_left_is_still_there_for_who_has_just_asked(
    catalog: Catalog, later: Clock
) -> None:
    """Whoever was told where the tag points has time to pull that, whatever the rules say."""
    child = put(catalog, "x", image(catalog, "x"))
    old = put(catalog, "x", index(child), "t")
    deleted = put(catalog, "x", image(catalog, "x"), "u")
    later.now += 2 * LEASE
    new = put(catalog, "x", image(catalog, "x"), "t")
    catalog.delete_tag("x", "u", origin=ORIGIN)
    later.now += LEASE - SECOND
    assert collected(catalog) == []
    assert there(catalog, old, child, deleted, new) == [True] * 4
    later.now += 2 * SECOND
    collected(catalog)
    assert there(catalog, old, child, deleted, new) == [False, False, False, True]


def test_a_circle_that_nothing_else_holds_goes(catalog: Catalog, later: Clock) -> None:
    """An index that lists its own subject holds it, and is held by it."""

    def circle(*tags: str) -> tuple[Manifest, Manifest]:
        subject = put(catalog, "x", image(catalog, "x"))
        body = json.loads(index(subject).raw)
        body["subject"] = dict(body["manifests"][0])
        return subject, put(catalog, "x", Manifest.parse(json.dumps(body).encode()), *tags)

    dead, live = circle(), circle("t")
    later.now += LEASE + 1
    items = collected(catalog)
    assert there(catalog, *dead, *live) == [False, False, True, True]
    assert len(names(items, "link")) == 2
    assert collected(catalog) == []


def test_one_repository_holds_nothing_for_another(catalog: Catalog, later: Clock) -> None:
    one = put(catalog, "x", image(catalog, "x", b"same"), "t")
    put(catalog, "y", image(catalog, "y", b"same"))
    later.now += LEASE + 1
    collected(catalog)
    assert there(catalog, one) == [True]
    assert there(catalog, one, name="y") == [False]
    collection = catalog.garbage(AT_ONCE)
    assert collection.held([one.digest]) == {one.digest}  # the bytes stay for x


@pytest.mark.long
@pytest.mark.parametrize("turns", [4, pytest.param(12, marks=pytest.mark.long)])
def test_exactly_what_a_walk_from_the_roots_does_not_reach_goes(
    catalog: Catalog, later: Clock, turns: int
) -> None:
    """Random graphs, against the textbook's mark."""
    chance = random.Random(7)
    for turn in range(turns):
        name = f"random{turn}"
        made: list[Manifest] = []
        holds: dict[str, set[str]] = {}
        roots: set[str] = set()
        for number in range(chance.randint(5, 30)):
            if made and chance.random() < 0.5:
                body = json.loads(index(*chance.sample(made, min(len(made), chance.randint(1, 3)))).raw)
            else:
                body = json.loads(image(catalog, name).raw)
            subject = chance.choice(made) if made and chance.random() < 0.4 else None
            if subject is not None:
                body["subject"] = {
                    "mediaType": subject.media_type,
                    "digest": str(subject.digest),
                    "size": subject.size,
                }
            tags = [f"t{number}"] if chance.random() < 0.15 else []
            manifest = put(catalog, name, Manifest.parse(json.dumps(body).encode()), *tags)
            made.append(manifest)
            holds[str(manifest.digest)] = {str(child.digest) for child in manifest.manifests}
            if subject is not None:
                holds[str(subject.digest)].add(str(manifest.digest))
            if tags:
                roots.add(str(manifest.digest))
        later.now += LEASE + 1
        live, frontier = set(roots), list(roots)
        while frontier:
            for digest in holds[frontier.pop()] - live:
                live.add(digest)
                frontier.append(digest)
        items = collected(catalog)
        assert names(items, "manifest") == sorted({str(m.digest) for m in made} - live)
        assert there(catalog, *made, name=name) == [str(m.digest) in live for m in made]
        wanted = {str(blob.digest) for m in made if str(m.digest) in live for blob in m.blobs()}
        every = {str(blob.digest) for m in made for blob in m.blobs()}
        assert {d for d in every if catalog.blob_size(name, Digest.parse(d)) is not None} == wanted


# -- tags --------------------------------------------------------------------------------------------


def test_the_newest_tags_are_kept(catalog: Catalog, later: Clock) -> None:
    for number in range(5):
        later.now += 1
        put(catalog, "x", image(catalog, "x"), f"pr-{number}", f"keep-{number}")
    items = collected(catalog, rules(TagRetention(tags=("pr-*",), newest=2)))
    assert names(items, "tag") == ["pr-0", "pr-1", "pr-2"]
    left = [row.name for row in catalog.tags("x")]
    assert left == [f"keep-{n}" for n in range(5)] + ["pr-3", "pr-4"]
    last = catalog.journal("x", tag="pr-0", limit=1)[0]
    assert (last.event, last.actor, last.client) == ("deleted", ACTOR, "retention")


def test_either_reason_keeps_a_tag(catalog: Catalog, later: Clock) -> None:
    for number in range(4):
        put(catalog, "x", image(catalog, "x"), f"t{number}")
        later.now += DAY
    rule = TagRetention(newest=1, seconds=2.5 * 86400)
    assert names(collected(catalog, rules(rule)), "tag") == ["t0", "t1"]


@pytest.mark.long
def test_another_registrys_tag_is_as_young_as_its_last_pull(catalog: Catalog, later: Clock) -> None:
    made = {tag: put(catalog, "x", image(catalog, "x"), tag) for tag in ("used", "left")}
    catalog.pull_through.note("x", "left", made["left"].digest)
    later.now += 5 * DAY
    catalog.pull_through.note("x", "used", made["used"].digest)
    catalog.pull_through.note("y", "left", made["left"].digest)
    later.now += 5 * DAY
    items = collected(catalog, rules(TagRetention(seconds=7 * 86400.0)))
    assert names(items, "tag") == ["left"]
    later.now += 5 * DAY
    (used,) = (
        item for item in collected(catalog, rules(TagRetention(seconds=7 * 86400.0))) if item.kind == "tag"
    )
    assert used.name == "used"
    assert "was last asked for at" in used.why


def test_the_first_rule_that_covers_a_tag_decides(catalog: Catalog, later: Clock) -> None:
    for name in ("x", "y"):
        for tag in ("v1", "v2", "dev"):
            put(catalog, name, image(catalog, name), tag)
    later.now += 10 * DAY
    given = rules(
        TagRetention(repositories=("y",), tags=("**",), seconds=100 * 86400),
        TagRetention(tags=("*",), exclude=("v*",), seconds=0.0),
    )
    items = collected(catalog, given)
    assert [(i.repository, i.name) for i in items if i.kind == "tag"] == [("x", "dev")]


def test_a_tag_whose_image_ran_lately_is_kept(catalog: Catalog, later: Clock) -> None:
    ran = put(catalog, "x", image(catalog, "x"), "old")
    put(catalog, "x", image(catalog, "x"), "older")
    catalog.sightings.note([SightingReport("x", ran.digest, "h", 1)], at=later.now, actor="a")
    later.now += DAY // 2
    assert names(collected(catalog, rules(TagRetention(newest=0))), "tag") == ["older"]


def test_an_immutable_tag_stays_and_it_is_said(catalog: Catalog, clock: Clock, backend: Backend) -> None:
    policy = TagPolicy((TagRule("immutable", tags=("v*",)),))
    strict = with_options(backend, policy=policy).open_catalog()
    put(strict, "x", image(strict, "x"), "v1", "dev")
    clock.now += SECOND
    items = collected(strict, rules(TagRetention(seconds=0.0)))
    strict.close()
    assert names(items, "tag") == ["dev"]
    stayed = [item for item in items if isinstance(item, Stayed)]
    assert [item.name for item in stayed] == ["v1"]
    assert "immutable" in stayed[0].why
    assert [row.name for row in catalog.tags("x")] == ["v1"]


def test_one_transaction_deletes_many_tags_and_leaves_those_that_stay(
    catalog: Catalog, clock: Clock, backend: Backend
) -> None:
    """What is refused among them takes nothing of the others back, and the chain has each deletion once."""
    policy = TagPolicy((TagRule("immutable", tags=("v*",)),))
    strict = with_options(backend, policy=policy).open_catalog()
    tags = [f"{'v' if number % 10 == 3 else 'd'}{number}" for number in range(45)]
    for tag in tags:
        put(strict, "x", image(strict, "x"), tag)
        clock.now += SECOND
    items = collected(strict, rules(TagRetention(newest=2)))
    strict.close()
    stay = {"v3", "v13", "v23", "v33", "v43", "d44"}
    assert {item.name for item in items if isinstance(item, Stayed)} == stay - {"v43", "d44"}
    assert set(names(items, "tag")) == set(tags) - stay
    assert {row.name for row in catalog.tags("x")} == stay
    give_positions(catalog)
    assert backend.catalog_store.verify_journal().broken is None
    assert backend.catalog_store.verify_journal().entries == len(tags) + len(tags) - len(stay)


@pytest.fixture
def one_tag_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let others do something between two tags."""
    monkeypatch.setattr(tag_retention, "_TAGS", 1)


@pytest.mark.usefixtures("one_tag_a_transaction")
@pytest.mark.long
def test_a_tag_that_moves_meanwhile_stays(catalog: Catalog, later: Clock) -> None:
    put(catalog, "x", image(catalog, "x"), "a")
    put(catalog, "x", image(catalog, "x"), "b")
    later.now += 1
    collection = catalog.garbage(rules(TagRetention(newest=0)))
    [key] = collection.repositories()
    items = collection.drop_tags(key)
    [first] = next(items)
    assert isinstance(first, Removed)
    other = "b" if first.name == "a" else "a"
    new = put(catalog, "x", image(catalog, "x"), other)
    [[second]] = items
    assert isinstance(second, Stayed)
    assert "moved meanwhile" in second.why
    assert [(row.name, row.digest) for row in catalog.tags("x")] == [(other, new.digest)]


@pytest.mark.usefixtures("one_tag_a_transaction")
def test_a_tag_that_left_and_came_back_meanwhile_stays(catalog: Catalog, later: Clock) -> None:
    first, second = (put(catalog, "x", image(catalog, "x"), "t") for _ in range(2))
    put(catalog, "x", first, "t")
    put(catalog, "x", image(catalog, "x"), "newer")
    collection = catalog.garbage(rules(TagRetention(seconds=0.0)))
    [key] = collection.repositories()
    later.now += SECOND
    items = collection.drop_tags(key)
    [newest] = next(items)
    assert isinstance(newest, Removed)
    for manifest in (second, first):
        put(catalog, "x", manifest, "t")
    [[stayed]] = items
    assert isinstance(stayed, Stayed)
    assert [(row.name, row.digest) for row in catalog.tags("x")] == [("t", first.digest)]


@pytest.mark.usefixtures("one_tag_a_transaction")
def test_a_tag_whose_image_is_seen_running_meanwhile_stays(catalog: Catalog, later: Clock) -> None:
    for name in ("a", "b"):
        put(catalog, "x", image(catalog, "x"), name)
    collection = catalog.garbage(rules(TagRetention(newest=0)))
    [key] = collection.repositories()
    items = collection.drop_tags(key)
    next(items)
    [left] = catalog.tags("x")
    catalog.sightings.note([SightingReport("x", left.digest, "h", 1)], at=later.now, actor="a")
    [[stayed]] = items
    assert "seen running meanwhile" in stayed.why
    assert [row.name for row in catalog.tags("x")] == [left.name]


def test_a_tag_whose_image_is_pushed_again_is_as_new(catalog: Catalog, later: Clock) -> None:
    """The same digest again moves no tag, and its push was acknowledged all the same."""
    nightly = put(catalog, "x", image(catalog, "x"), "nightly")
    later.now += 15 * DAY
    put(catalog, "x", nightly, "nightly")
    fortnight = rules(TagRetention(seconds=14 * 86400.0))
    assert collected(catalog, fortnight) == []
    later.now += 14 * DAY
    assert names(collected(catalog, fortnight), "tag") == ["nightly"]


def test_a_push_again_is_a_promise_under_any_rule(catalog: Catalog, later: Clock) -> None:
    old = put(catalog, "x", image(catalog, "x"), "old")
    put(catalog, "x", image(catalog, "x"), "new")
    later.now += 15 * DAY
    put(catalog, "x", old, "old")
    one = rules(TagRetention(newest=1))
    assert collected(catalog, one) == []
    later.now += LEASE
    [tag] = [item for item in collected(catalog, one) if item.kind == "tag"]
    assert isinstance(tag, Removed)
    moved, again = "2027-01-15T08:00:00.000000Z", "2027-01-30T08:00:00.000000Z"
    why = f"a newer one is kept; it moved last at {moved}, and was pushed last at {again}"
    assert (tag.name, tag.why) == ("old", why)


@pytest.mark.usefixtures("one_tag_a_transaction")
def test_a_tag_whose_image_is_pushed_again_meanwhile_stays(catalog: Catalog, later: Clock) -> None:
    images = {name: put(catalog, "x", image(catalog, "x"), name) for name in ("a", "b")}
    later.now += LEASE
    collection = catalog.garbage(rules(TagRetention(newest=0)))
    [key] = collection.repositories()
    items = collection.drop_tags(key)
    next(items)
    [left] = catalog.tags("x")
    put(catalog, "x", images[left.name], left.name)
    [[stayed]] = items
    assert "pushed again meanwhile" in stayed.why
    assert [row.name for row in catalog.tags("x")] == [left.name]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("suffix", ["", ".sig", ".att", ".sbom", "-1"])
def test_what_a_tag_attaches_to_an_image_stays_with_it(
    catalog: Catalog, later: Clock, algorithm: str, suffix: str
) -> None:
    """And takes no image's place among the newest."""
    signed = []
    for number in range(4):
        made = Manifest.parse(image(catalog, "x").raw, algorithm=algorithm)
        signed.append(put(catalog, "x", made, f"v{number}"))
        later.now += DAY
    attached = [f"{algorithm}-{image.digest.encoded[:64]}{suffix}" for image in signed]
    for tag in attached[::-1]:
        put(catalog, "x", image(catalog, "x"), tag)
    kept = replace(rules(TagRetention(newest=2)), untagged=30 * 86400.0)
    assert names(collected(catalog, kept), "tag") == ["v0", "v1"]
    later.now += 31 * DAY
    assert names(collected(catalog, kept), "manifest") == sorted(str(m.digest) for m in signed[:2])
    items = collected(catalog, kept)
    assert names(items, "tag") == sorted(attached[:2])
    assert all(item.why.startswith("what it is attached to is not here; ") for item in items[:2])
    assert collected(catalog, kept) == []


def test_a_signature_that_comes_before_its_image_waits_for_it(catalog: Catalog, later: Clock) -> None:
    signed = image(catalog, "x")
    put(catalog, "x", image(catalog, "x"), f"sha256-{signed.digest.encoded}.sig")
    later.now += LEASE // 2
    assert collected(catalog, rules(TagRetention(newest=0))) == []
    put(catalog, "x", signed)
    later.now += LEASE // 2 + 1
    assert collected(catalog, rules(TagRetention(newest=0))) == []


def test_what_only_looks_attached_is_a_tag_as_any_other(catalog: Catalog, later: Clock) -> None:
    real = put(catalog, "x", image(catalog, "x"), "real").digest
    likenesses = [
        f"sha256-{real.encoded[:63]}",
        f"sha256-{real.encoded}0",
        f"sha256_{real.encoded}",
        "sha256-",
    ]
    for tag in likenesses:
        put(catalog, "x", image(catalog, "x"), tag)
    given = rules(TagRetention(exclude=("real",), newest=0))
    assert names(collected(catalog, given), "tag") == sorted(likenesses)


def test_what_is_attached_to_another_repositorys_image_is_attached_to_nothing(
    catalog: Catalog, later: Clock
) -> None:
    elsewhere = put(catalog, "y", image(catalog, "y"), "t").digest
    tag = f"sha256-{elsewhere.encoded}.sig"
    put(catalog, "x", image(catalog, "x"), tag)
    later.now += LEASE + SECOND
    assert names(collected(catalog, rules(TagRetention(newest=1))), "tag") == [tag]


@pytest.mark.usefixtures("one_tag_a_transaction")
def test_what_a_tag_is_attached_to_comes_back_meanwhile(catalog: Catalog, later: Clock) -> None:
    signed = image(catalog, "x")
    for tag in (f"sha256-{signed.digest.encoded}.sig", "newer"):
        put(catalog, "x", image(catalog, "x"), tag)
    later.now += LEASE
    collection = catalog.garbage(rules(TagRetention(newest=0)))
    [key] = collection.repositories()
    items = collection.drop_tags(key)
    next(items)
    put(catalog, "x", signed)
    [[stayed]] = items
    assert isinstance(stayed, Stayed)
    assert stayed.why == "what it is attached to was pushed meanwhile"


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (TagRetention(newest=0), "its rule keeps none"),
        (TagRetention(seconds=0.0), "its rule keeps none"),
        (TagRetention(newest=0, seconds=86400.0), "it is older than 1 day"),
        (TagRetention(seconds=1.5 * 86400), "it is older than 36 hours"),
        (TagRetention(seconds=5400.0), "it is older than 90 minutes"),
        (TagRetention(seconds=1.0), "it is older than 1 second"),
        (TagRetention(seconds=2.5), "it is older than 2.5 seconds"),
        (TagRetention(newest=0, seconds=14 * 86400.0), "it is older than 14 days"),
    ],
)
def test_the_reason_is_said_as_people_say_it(
    catalog: Catalog, later: Clock, rule: TagRetention, why: str
) -> None:
    put(catalog, "x", image(catalog, "x"), "t")
    later.now += 15 * DAY
    [tag] = [item for item in collected(catalog, rules(rule)) if item.kind == "tag"]
    assert tag.why == f"{why}; it moved last at 2027-01-15T08:00:00.000000Z"


def test_many_tags_are_counted_over_the_windows(
    catalog: Catalog, later: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And while they are dropped nothing keeps the database's log from being used again."""
    monkeypatch.setattr(expired_tags, "_WINDOW", 3)
    manifest = image(catalog, "x")
    for number in range(11):
        put(catalog, "x", manifest, f"t{number:02}")
        later.now += number % 2  # some at the same time
    later.now += LEASE  # the image was pushed again and again
    assert len(names(collected(catalog, rules(TagRetention(newest=4))), "tag")) == 7
    assert [row.name for row in catalog.tags("x")] == ["t07", "t08", "t09", "t10"]


# -- while others push -------------------------------------------------------------------------------


def test_what_is_tagged_between_the_question_and_the_removal_stays(
    catalog: Catalog, later: Clock, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    """The question is asked again in the transaction that removes."""
    loose = put(catalog, "x", image(catalog, "x"))
    later.now += LEASE + 1
    collection = catalog.garbage(AT_ONCE)
    [key] = collection.repositories()
    done = threading.Event()
    writing = collection._removals.writing

    def later_than_a_tag(*about: Any) -> AbstractContextManager[Connection]:
        # The question was asked; as its transaction is about to begin, another process tags it.
        if not done.is_set():
            done.set()
            other = backend.open_catalog()
            other.put_manifest("x", loose, tag_names=["t"], origin=ORIGIN)
            other.close()
        return writing(*about)

    monkeypatch.setattr(collection._removals, "writing", later_than_a_tag)
    assert not any(collection.delete_manifests(key))
    assert done.is_set()
    assert there(catalog, loose) == [True]


def test_a_pushed_index_saves_the_child_that_was_about_to_go(catalog: Catalog, later: Clock) -> None:
    child = put(catalog, "x", image(catalog, "x"))
    later.now += LEASE + 1
    put(catalog, "x", index(child))
    items = collected(catalog)
    assert items == []
    assert there(catalog, child) == [True]


def test_an_error_ends_the_run(catalog: Catalog, later: Clock) -> None:
    loose = put(catalog, "x", image(catalog, "x"))
    later.now += LEASE + 1
    collection = catalog.garbage(AT_ONCE)
    [key] = collection.repositories()
    with catalog._database.write() as connection:
        connection.execute(text("ALTER TABLE leases RENAME TO elsewhere"))
    with pytest.raises(StorageError):
        list(collection.delete_manifests(key))
    with pytest.raises(StorageError):
        list(collection.unlink(key))
    with catalog._database.write() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO leases"))
    assert there(catalog, loose) == [True]


def test_leases_that_ended_are_forgotten(catalog: Catalog, later: Clock) -> None:
    put(catalog, "x", image(catalog, "x"), "t")
    catalog.garbage(AT_ONCE).forget()
    with catalog._database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM leases")).scalar() == 3
    later.now += LEASE
    catalog.garbage(AT_ONCE).forget()
    with catalog._database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM leases")).scalar() == 0


def test_only_in_toto_media_types_matter_to_nobody(catalog: Catalog, later: Clock) -> None:
    """An artifact without layers is collected as an image is."""
    empty = Digest.of(b"{}")
    catalog.add_blob("x", empty, 2)
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": "application/x",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(empty), "size": 2},
        "layers": [],
    }
    artifact = put(catalog, "x", Manifest.parse(json.dumps(body).encode()))
    later.now += LEASE + 1
    assert len(collected(catalog)) == 2
    assert there(catalog, artifact) == [False]
