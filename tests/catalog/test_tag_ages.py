"""Ages, overrides and what they keep, in each database."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import Connection

from digestry.backend import Backend
from digestry.catalog import clock as clocks
from digestry.catalog import tag_ages
from digestry.catalog.age_overrides import AgeOverride
from digestry.catalog.age_policy import AgePolicy, AgeRule
from digestry.catalog.catalog import Catalog
from digestry.catalog.options import CatalogOptions
from digestry.catalog.removals import Removed
from digestry.catalog.retention_rules import Retention
from digestry.errors import CallerError, Conflict, NotFound
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from tests.catalog.support import ORIGIN, Clock, image, index

DAY = 86400 * clocks.SECOND
WEEK = AgeRule(7 * DAY)
POLICY = AgePolicy((AgeRule(0, tags=("edge",)), WEEK))
WHY = replace(ORIGIN, reason="an urgent fix")


def put(catalog: Catalog, name: str, tag: str, salt: bytes) -> Digest:
    made = image(catalog, name, salt)
    catalog.put_manifest(name, made, tag_names=[tag], origin=ORIGIN)
    return made.digest


def resolved(catalog: Catalog, clock: Clock, tag: str = "1", name: str = "app") -> str | None:
    chosen = catalog.tag_ages.tag(name, tag, WEEK, clock()).aged.chosen
    return None if chosen is None else chosen.digest


def served(catalog: Catalog, clock: Clock, digest: Digest, *, mirrored: bool = False) -> bool:
    return catalog.tag_ages.digest("app", str(digest), POLICY, clock(), mirrored=mirrored).allowed


def test_a_tag_of_ones_own(catalog: Catalog, clock: Clock) -> None:
    old = put(catalog, "app", "1", b"old")
    assert resolved(catalog, clock) is None
    clock.now += 7 * DAY
    assert resolved(catalog, clock) == str(old)
    new = put(catalog, "app", "1", b"new")
    clock.now += 7 * DAY - 1
    assert resolved(catalog, clock) == str(old)
    clock.now += 1
    assert resolved(catalog, clock) == str(new)
    catalog.delete_tag("app", "1", origin=ORIGIN)
    assert catalog.tag_ages.tag("app", "1", WEEK, clock()).aged.refusal == "absent"
    clock.now += clocks.SECOND
    put(catalog, "app", "1", b"new")
    assert resolved(catalog, clock) == str(new)
    # The same digest again is no move, and takes no age away.
    put(catalog, "app", "1", b"new")
    assert resolved(catalog, clock) == str(new)


def test_a_clock_that_is_set(catalog: Catalog, clock: Clock) -> None:
    old = put(catalog, "app", "1", b"old")
    clock.now += 30 * DAY
    put(catalog, "app", "1", b"ahead")
    clock.now -= 29 * DAY
    found = catalog.tag_ages.tag("app", "1", WEEK, clock())
    assert (found.aged.chosen, found.aged.refusal) == (None, "clock")
    last = put(catalog, "app", "1", b"last")
    clock.now += 29 * DAY + 6 * DAY
    assert catalog.tag_ages.tag("app", "1", WEEK, clock()).aged.refusal == "young"
    assert not served(catalog, clock, old)
    clock.now += DAY + 1
    assert resolved(catalog, clock) == str(last)


def test_a_tag_of_another_registry(catalog: Catalog, clock: Clock) -> None:
    made = image(catalog, "app", b"theirs")
    catalog.pull_through.put("app", made, tag="1", origin=replace(ORIGIN, actor="mirror:docker.io"))
    for _ in range(6 * 24):
        clock.now += DAY // 24
        catalog.observations.seen("app", "1", made.digest, interval=DAY // 24)
    clock.now += 30 * DAY  # nobody looked
    assert resolved(catalog, clock) is None
    catalog.observations.failed("app", "1", "it is away", interval=DAY // 24)
    for _ in range(26):
        catalog.observations.seen("app", "1", made.digest, interval=DAY // 24)
        clock.now += DAY // 24
    assert resolved(catalog, clock) == str(made.digest)
    assert served(catalog, clock, made.digest, mirrored=True)
    assert not served(catalog, clock, Digest.of(b"unknown"), mirrored=True)
    assert served(catalog, clock, Digest.of(b"unknown"))


def test_content_goes_with_what_holds_it(catalog: Catalog, clock: Clock) -> None:
    one, two = image(catalog, "app", b"one"), image(catalog, "app", b"two")
    for made in (one, two):
        catalog.put_manifest("app", made, origin=ORIGIN)
    both = index(one, two)
    catalog.put_manifest("app", index(one), tag_names=["1"], origin=ORIGIN)
    clock.now += 8 * DAY
    catalog.put_manifest("app", both, tag_names=["1"], origin=ORIGIN)
    assert [served(catalog, clock, found) for found in (one.digest, two.digest, both.digest)] == [
        True,
        False,
        False,
    ]
    assert served(catalog, clock, Digest.of(b"one"))
    assert not served(catalog, clock, Digest.of(b"two"))
    catalog.put_manifest("app", both, tag_names=["edge"], origin=ORIGIN)  # which has no minimum age
    assert served(catalog, clock, Digest.of(b"two"))


def test_overrides(catalog: Catalog, clock: Clock) -> None:
    old = put(catalog, "app", "1", b"old")
    clock.now += 8 * DAY
    new = put(catalog, "app", "1", b"new")
    overrides = catalog.age_overrides
    for wrong in (replace(WHY, reason=" "), replace(WHY, reason=None), replace(WHY, reason="x" * 501)):
        with pytest.raises(CallerError, match="reason"):
            overrides.allow("app", tag="1", origin=wrong)
    with pytest.raises(CallerError, match="is past"):
        overrides.allow("app", tag="1", ends_at=clock(), origin=WHY)
    with pytest.raises(NotFound):
        overrides.allow("nothing", tag="1", origin=WHY)
    made, event = overrides.allow("app", tag="1", ends_at=clock() + DAY, origin=WHY)
    assert (made.digest, event.event, event.tag) == (str(new), "allowed", "@1")
    assert event.reason == f"an urgent fix (until {clocks.to_rfc3339(clock() + DAY)})"
    assert resolved(catalog, clock) == str(new)
    assert served(catalog, clock, new)
    newest = put(catalog, "app", "1", b"newest")  # which nobody has let through
    assert resolved(catalog, clock) == str(new)
    assert not served(catalog, clock, newest)
    clock.now += DAY
    assert resolved(catalog, clock) == str(old)
    with pytest.raises(NotFound, match="in force"):
        overrides.revoke("app", made.number, origin=WHY)
    whole, _ = overrides.allow("app", ends_at=clock() + DAY, origin=WHY)
    assert resolved(catalog, clock) == str(newest)
    overrides.revoke("app", whole.number, origin=WHY)
    assert resolved(catalog, clock) == str(old)
    assert overrides.of("app") == []
    assert [one.number for one in overrides.of(ended=True)] == [whole.number, made.number]
    assert catalog.verify_journal() is None
    assert [event.tag for event in catalog.journal("app", tag="1", limit=10)] == ["1"] * 3
    assert [span.tag for span in catalog.tag_history.tags_at("app", clock(), limit=10)] == ["1"]


class Held:
    """The fence of a lock that is held, until it is lost."""

    held = True

    def require_held(self, connection: Connection) -> None:
        if not self.held:
            raise Conflict("the lock was lost")


def test_overrides_of_advisories(catalog: Catalog, clock: Clock) -> None:
    old = put(catalog, "app", "1", b"old")
    clock.now += 8 * DAY
    new = put(catalog, "app", "1", b"new")
    overrides, fence = catalog.age_overrides, Held()

    def advise(advisory: str = "sha256:a") -> AgeOverride | None:
        return overrides.advise("app", str(new), advisory=advisory, advised=str(old), origin=WHY, fence=fence)

    made = advise()
    assert made is not None
    assert advise() is None  # once
    state = catalog.tag_ages.tag("app", "1", WEEK, clock())
    assert (state.aged.let_through, state.aged.advisory) == ("an urgent fix", "sha256:a")
    assert [one.advised for one in overrides.advised()] == [str(old)]
    fence.held = False
    with pytest.raises(Conflict):
        advise("sha256:b")
    with pytest.raises(Conflict):
        overrides.end_advised(made.number, origin=WHY, fence=fence)
    assert resolved(catalog, clock) == str(new)
    fence.held = True
    assert overrides.end_advised(made.number, origin=WHY, fence=fence)
    assert not overrides.end_advised(made.number, origin=WHY, fence=fence)
    assert resolved(catalog, clock) == str(old)
    again = advise()  # the advisory is back
    assert again is not None
    overrides.revoke("app", again.number, origin=WHY)  # and somebody says no
    assert advise() is None
    assert resolved(catalog, clock) == str(old)
    person, _ = overrides.allow("app", tag="1", origin=WHY)
    assert not overrides.end_advised(person.number, origin=WHY, fence=fence)
    assert catalog.tag_ages.tag("app", "1", WEEK, clock()).aged.advisory == ""
    assert catalog.verify_journal() is None


def test_what_is_served_is_kept(backend: Backend, catalog: Catalog, later: Clock) -> None:
    catalog.change_options(CatalogOptions(lease=DAY, ages=POLICY))
    old = put(catalog, "app", "1", b"old")
    later.now += 30 * DAY
    left = []
    for number in range(40):
        left.append(put(catalog, "app", "1", f"{number}".encode()))
        later.now += DAY
    garbage = catalog.garbage(Retention(untagged=0.0))
    (key,) = garbage.repositories()
    gone = {
        item.name for batch in garbage.delete_manifests(key) for item in batch if isinstance(item, Removed)
    }
    assert str(old) not in gone
    assert str(left[0]) in gone
    assert str(left[-1]) not in gone  # the tag's own
    assert resolved(catalog, later) == str(old)


def test_a_part_of_very_many_images(catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are here for longest are looked at, and beyond that it is not known."""
    monkeypatch.setattr(tag_ages, "_MOST_HOLDERS", 4)
    base = Digest.of(b"base")
    catalog.add_blob("app", base, 4)

    def on_base(number: int) -> None:
        made = image(catalog, "app", b"layer %d" % number)
        body = json.loads(made.raw)
        body["layers"].insert(0, {**body["layers"][0], "digest": str(base), "size": 4})
        manifest = Manifest.parse(json.dumps(body).encode())
        catalog.put_manifest("app", manifest, tag_names=[f"t{number}"], origin=ORIGIN)

    for number in range(3):
        on_base(number)
    assert catalog.tag_ages.digest("app", str(base), POLICY, clock(), mirrored=False).why == "young"
    for number in range(3, 9):
        clock.now += clocks.SECOND
        on_base(number)
    for mirrored in (False, True):
        found = catalog.tag_ages.digest("app", str(base), POLICY, clock(), mirrored=mirrored)
        assert (found.allowed, found.why) == (False, "many")
    clock.now += 7 * DAY - 5 * clocks.SECOND
    assert served(catalog, clock, base)
