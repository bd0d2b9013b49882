"""What was observed in another registry and is to be kept is not collected here."""

from __future__ import annotations

import pytest

from digestry.catalog.blob_links import LEASE
from digestry.catalog.catalog import Catalog
from digestry.catalog.clock import SECOND
from digestry.catalog.journal import Origin
from digestry.catalog.observation_plan import ScheduledTag
from digestry.catalog.observed_moves import KEEP
from digestry.catalog.retention_rules import TagRetention
from digestry.model.manifest import Manifest
from tests.catalog.support import Clock, collected, image, names, rules, there

DAY = 86400 * SECOND
NAME = "up.test/app"
MIRROR = Origin("mirror:up.test", "", "digestry")


def observed(catalog: Catalog, clock: Clock, *tags: str) -> tuple[Manifest, Manifest]:
    """Two images that tags of another registry pointed to, one after the other."""
    catalog.observation_plan.schedule(ScheduledTag(NAME, tag, 60 * SECOND, 0) for tag in tags)
    old, new = image(catalog, NAME), image(catalog, NAME)
    for manifest in (old, new):
        clock.now += SECOND
        for tag in tags:
            catalog.pull_through.put(NAME, manifest, tag=tag, origin=MIRROR)
    return old, new


@pytest.mark.parametrize("deleted", [False, True])
def test_an_old_image_is_kept_while_it_is_observed(catalog: Catalog, later: Clock, *, deleted: bool) -> None:
    old, new = observed(catalog, later, "1.5")
    if deleted:
        later.now += SECOND
        catalog.pull_through.gone(NAME, "1.5", origin=MIRROR)
    catalog.observation_plan.keep({NAME: None})
    later.now += 4000 * DAY
    collected(catalog)
    assert there(catalog, old, new, name=NAME) == [True, True]
    catalog.observation_plan.keep({})
    collected(catalog)
    assert there(catalog, old, new, name=NAME) == [False, not deleted]


def test_it_is_kept_for_so_long_after_the_tag_left_it(catalog: Catalog, later: Clock) -> None:
    old, new = observed(catalog, later, "1.5")
    catalog.observation_plan.keep({NAME: 30 * DAY})
    later.now += 30 * DAY - SECOND
    collected(catalog)
    assert there(catalog, old, new, name=NAME) == [True, True]
    later.now += 2 * SECOND
    collected(catalog)
    assert there(catalog, old, new, name=NAME) == [False, True]
    catalog.observation_plan.keep({NAME: None})  # another duration for the same repository
    later.now += SECOND
    catalog.pull_through.gone(NAME, "1.5", origin=MIRROR)
    later.now += 400 * DAY
    collected(catalog)
    assert there(catalog, new, name=NAME) == [True]


def test_other_repositories_are_collected(catalog: Catalog, later: Clock) -> None:
    old, _ = observed(catalog, later, "1.5")
    catalog.observation_plan.keep({"up.test/other": None})
    later.now += LEASE + DAY
    collected(catalog)
    assert there(catalog, old, name=NAME) == [False]


def test_a_retention_rule_deletes_no_tag_that_is_observed(catalog: Catalog, later: Clock) -> None:
    """The history would say that the other registry had deleted it."""
    observed(catalog, later, "1.5", "1.6")
    later.now += 400 * DAY
    rule = rules(TagRetention(newest=1))
    assert names(collected(catalog, rule), "tag") == []
    catalog.observation_plan.unschedule(NAME)
    assert len(names(collected(catalog, rule), "tag")) == 1


def test_an_image_that_was_here_before_is_to_be_fetched_once(catalog: Catalog, clock: Clock) -> None:
    old = image(catalog, NAME)
    catalog.pull_through.put(NAME, old, tag="1.5", origin=MIRROR)  # by the mirror, for a client
    catalog.observation_plan.schedule([ScheduledTag(NAME, "1.5", 60 * SECOND, 0)])
    moves = catalog.observed_moves
    for _ in range(2):
        moves.keep(NAME, "1.5", old.digest)
        (pending,) = moves.unfinished(clock.now, limit=10)
        assert (pending.tag, pending.to_digest, pending.pending) == ("1.5", old.digest, KEEP)
    moves.end(pending)  # not all could be had
    moves.keep(NAME, "1.5", old.digest)
    (pending,) = moves.unfinished(clock.now, limit=10)
    moves.end(pending, kept=True)
    moves.keep(NAME, "1.5", old.digest)
    moves.keep(NAME, "1.6", old.digest)
    assert moves.unfinished(clock.now, limit=10) == []


@pytest.mark.long
def test_one_registry_with_many_moves_keeps_no_other_waiting(catalog: Catalog, clock: Clock) -> None:
    observed(catalog, clock, *(f"1.{number}" for number in range(10)))
    catalog.observation_plan.schedule([ScheduledTag("z.test/app", "1", 60 * SECOND, 0)])
    catalog.pull_through.put("z.test/app", image(catalog, "z.test/app"), tag="1", origin=MIRROR)
    moves = catalog.observed_moves
    assert {one.repository for one in moves.unfinished(clock.now, limit=5)} == {NAME}
    (other,) = moves.unfinished(clock.now, limit=5, without={"up.test"})
    (again,) = moves.unfinished(clock.now, limit=1, only={"z.test/app"})
    assert other == again
    assert other.repository == "z.test/app"


def test_a_tag_left_a_digest_among_many_tags_that_did(catalog: Catalog, clock: Clock) -> None:
    old, new = observed(catalog, clock, "1.5")
    left = clock.now
    clock.now += SECOND
    for number in range(120):
        catalog.pull_through.put(NAME, old, tag=f"t{number}", origin=MIRROR)
    assert catalog.tag_history.left_at(NAME, "1.5", old.digest, before=clock.now + 1) == left
    assert catalog.tag_history.left_at(NAME, "1.5", new.digest, before=clock.now + 1) is None
    assert catalog.tag_history.left_at(NAME, "t7", old.digest, before=clock.now + 1) is None
