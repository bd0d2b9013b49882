"""The judgement as a table: what is said of a container by facts that no registry was asked for."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest

from digestry.advisories.advisory import Advisory, AdvisoryReading
from digestry.advisories.statements import Statement, Status
from digestry.audit.assessment import State
from digestry.audit.facts import FixedImage, ImageUse, PossibleImage, RegistryFacts
from digestry.audit.image_graph import ImageGraph
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.judge import Verdict, judge
from digestry.audit.tag_verdict import UNTAGGED_HERE, TagFacts, TagState
from digestry.inventory.observation import Claim, ImageFacts
from digestry.inventory.waiting_reasons import ADVICE, PRESENT
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.reference import Reference

REPOSITORY = Reference.parse("reg.example/app").repository_only()
TAG = REPOSITORY.with_tag("1")
NOON = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
OLD, NEW, OTHER, CONFIG = (Digest.of(name) for name in (b"old", b"new", b"other", b"config"))
FIX = REPOSITORY.with_digest(NEW)
RUNS = ImageIdentity(
    REPOSITORY, ImageGraph(REPOSITORY), OLD, "repo-digest", True, frozenset({OLD, CONFIG}), CONFIG, OLD
)
IMAGE = ImageFacts("reg.example/app:1", (Claim(OLD, "unknown", REPOSITORY, "x", "repo-digest", True),))
CONTAINER = ImageUse(IMAGE)


def event(hour: int, before: Digest | None, after: Digest | None, **more: Any) -> TagEvent:
    kind: Any = "created" if before is None else "deleted" if after is None else "moved"
    return TagEvent(NOON + datetime.timedelta(hours=hour), "app", "1", kind, before, after, **more)


MADE, MOVED, BACK = event(0, None, OLD), event(1, OLD, NEW), event(2, NEW, OLD)
ELSEWHERE = event(0, None, NEW)


def tag(target: Digest | None, *history: TagEvent, **more: Any) -> TagFacts:
    """What is known of the tag of a repository that keeps a history, newest first."""
    closure = more.pop("closure", RUNS.closure)
    return TagFacts(TAG, target=target, closure=closure, history=history or None, **more)


def judged(container: ImageUse = CONTAINER, **facts: Any) -> Verdict:
    values: dict[str, Any] = {"identity": RUNS, "tag": tag(OLD)} | facts
    return judge(container, RegistryFacts(**values))


@pytest.mark.parametrize(
    ("facts", "state", "said"),
    [
        (tag(OLD), "current", ""),
        (tag(CONFIG), "current", ""),
        (tag(OLD, objection="it contradicts itself"), "unknown", "contradicts itself"),
        (tag(NEW, MOVED, MADE), "moved", ""),
        (tag(NEW, MOVED), "moved", ""),  # the history begins when the tag left what runs
        (tag(None, event(2, OLD, None), MADE), "moved", "was deleted at"),
        (tag(OTHER, BACK, MOVED, MADE), "unknown", "it moved while the audit ran"),
        (tag(OTHER, ELSEWHERE), "unknown", "one of the two is wrong"),
        (tag(NEW, ELSEWHERE), UNTAGGED_HERE, "never pointed to what runs"),
        (tag(NEW, event(1, OTHER, NEW)), "unknown", "what it pointed to before is not known"),
        (tag(NEW, ELSEWHERE, doubt="it only mirrors"), "unknown", "it only mirrors"),
        (tag(NEW, ELSEWHERE, instead=OTHER), "unknown", "it may be"),
        (tag(NEW), "unknown", "keeps no tag history to tell if it pointed here before"),
        (tag(None), "unknown", "keeps no tag history to tell if there was one"),
        (tag(OLD, failure="the tag could not be looked up: broken"), "unknown", "broken"),
        (tag(NEW, comparable=False), "unknown", ""),
        (tag(None, comparable=False), "unknown", "there is no tag '1'"),
        (TagFacts(REPOSITORY.with_digest(OLD)), "pinned", ""),
        (TagFacts(TAG, asked=False), "unknown", ""),
        (TagFacts(), "unknown", ""),
    ],
)
def test_tag(facts: TagFacts, state: TagState, said: str) -> None:
    verdict = judged(tag=facts)
    assert verdict.tag.state == state
    assert any(said in reason for reason in verdict.reasons) or not said
    assert verdict.tag.complete is not bool(facts.failure)


def test_when_a_tag_left_is_the_last_time() -> None:
    again = (event(5, OLD, NEW), event(4, NEW, OLD), MOVED, MADE)
    assert judged(tag=tag(NEW, *again)).tag.moved_at == NOON + datetime.timedelta(hours=5)


def test_a_tag_says_nothing_where_other_code_may_run() -> None:
    identity = replace(RUNS, contested=(OTHER,))
    for facts in (tag(OLD), tag(NEW, MOVED, MADE)):
        assert judged(identity=identity, tag=facts).tag.state == "unknown"
    pointed = (event(2, OTHER, NEW), event(1, OLD, OTHER), MADE)
    assert judged(identity=identity, tag=tag(NEW, *pointed)).tag.state == "moved"


def test_a_digest_that_a_store_wrote_itself_is_not_said_to_be_untagged() -> None:
    facts = tag(NEW, ELSEWHERE)
    claim = replace(IMAGE.claims[0], rewritten=True)
    container = ImageUse(replace(IMAGE, claims=(claim,)))
    assert judged(container, tag=facts).tag.state == UNTAGGED_HERE
    for identity in (None, replace(RUNS, confirmed=False)):
        assert judged(container, tag=facts, identity=identity).tag.state == "unknown"


def test_a_name_without_a_registry_has_no_tag_to_be_judged_by() -> None:
    verdict = judged(ImageUse(replace(IMAGE, registry_named=False)))
    assert verdict.tag.state == "unknown"
    assert verdict.tag.digest is None


# -- what is said of the code -------------------------------------------------------------------


def said(status: Status, vulnerability: str = "CVE-1", hour: int = 0, **more: Any) -> Advisory:
    at = NOON + datetime.timedelta(hours=hour)
    fixed_by = (FIX,) if status == "affected" else ()
    statement = Statement(vulnerability, (), status, at, 1, "me", (), {}, fixed_by)
    return Advisory(statement, REPOSITORY, OLD, Digest.of(f"{status}{hour}".encode()), "me", **more)


def reading(*advisories: Advisory, missed: str = "") -> AdvisoryReading:
    found = AdvisoryReading(advisories=list(advisories))
    if missed:
        found.miss(REPOSITORY, missed)
    return found


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, "not_assessed"),
        ({"reading": reading(said("affected"))}, "affected"),
        ({"reading": reading(said("affected"), missed="one more")}, "affected"),
        ({"reading": reading(said("fixed"))}, "fixed"),
        ({"reading": reading(said("not_affected"))}, "not_affected"),
        ({"reading": reading(said("not_affected"), said("fixed", "CVE-2"))}, "fixed"),
        ({"reading": reading(said("under_investigation"), said("fixed", "CVE-2"))}, "unknown"),
        ({"reading": reading(said("affected"), said("fixed", hour=1))}, "fixed"),
        ({"reading": reading(said("fixed"), said("affected", hour=1))}, "affected"),
        ({"reading": reading(said("fixed"), said("affected"))}, "affected"),
        ({"reading": reading(said("fixed"), missed="one more")}, "unknown"),
        ({"reading": reading(missed="one")}, "unknown"),
        ({"reading": reading(said("fixed", product="a package", sure=False))}, "unknown"),
        ({"elsewhere": (said("affected"),)}, "affected"),
        ({"elsewhere": (said("fixed"),), "reading": reading(missed="one")}, "unknown"),
        ({"identity": None}, "unknown"),
        ({"identity": replace(RUNS, confirmed=False)}, "unknown"),
        ({"identity": replace(RUNS, contested=(OTHER,)), "reading": reading(said("fixed"))}, "unknown"),
        ({"possible": (PossibleImage(OTHER, reading(said("affected"))),)}, "unknown"),
        ({"possible": (PossibleImage(OTHER, reading(missed="one")),)}, "unknown"),
        ({"possible": (PossibleImage(OTHER, reading(said("fixed"))),)}, "not_assessed"),
        (
            {
                "identity": replace(RUNS, assumed=True),
                "reading": reading(said("fixed")),
                "possible": (PossibleImage(OTHER, reading()),),
            },
            "unknown",
        ),
    ],
)
def test_assessment(facts: dict[str, Any], state: State) -> None:
    assert judged(**facts).assessment.state == state


@pytest.mark.parametrize("facts", [{}, {"reading": reading(said("fixed"), missed="one more")}])
def test_an_advisory_on_other_images_of_the_code_names_its_repository(facts: dict[str, Any]) -> None:
    mirror = Reference.parse("mirror.example/app").repository_only()
    verdict = judged(elsewhere=(replace(said("affected"), repository=mirror),), **facts)
    assert "CVE-1: stated in mirror.example/app, about the same code" in verdict.reasons


# -- what to do ---------------------------------------------------------------------------------

BAD = reading(said("affected"))
TEMPLATE = ImageUse(IMAGE, runs=False)


@pytest.mark.parametrize(
    ("container", "facts", "action"),
    [
        (CONTAINER, {"reading": reading(said("fixed"))}, "nothing to do"),
        (CONTAINER, {}, "have it assessed: no advisory states whether it is vulnerable"),
        (CONTAINER, {"tag": tag(NEW, MOVED, MADE)}, "nobody has assessed it; restart it to follow its tag"),
        (
            CONTAINER,
            {"tag": tag(NEW, MOVED, MADE), "reading": reading(said("fixed"))},
            "nothing is known against it; restart it to follow its tag",
        ),
        (CONTAINER, {"tag": tag(NEW, ELSEWHERE)}, "find out where its image came from: its tag never"),
        (CONTAINER, {"reading": BAD, "fix": FixedImage(FIX)}, f"restart from {FIX}"),
        (CONTAINER, {"reading": BAD}, "stop it or shield it: no fixed image is named for CVE-1"),
        (CONTAINER, {"reading": BAD, "fix": FixedImage(None, ("it is not there",))}, "it is not there"),
        (TEMPLATE, {"reading": BAD, "fix": FixedImage(FIX)}, f"before it runs again, let it name {FIX}"),
        (TEMPLATE, {"reading": BAD}, "let it not run again: CVE-1 has no fix"),
        (TEMPLATE, {"identity": None}, "audit again when it runs"),
        (CONTAINER, {"identity": None}, "push its image to a registry"),
        (CONTAINER, {"identity": None, "unanswered": True}, "audit again when the registry answers"),
        (CONTAINER, {"reading": reading(missed="one")}, "look at the reasons"),
        (replace(CONTAINER, waiting="access"), {"identity": None}, ADVICE["access"]),
        (replace(CONTAINER, waiting="pull"), {"identity": None, "tag": tag(NEW, comparable=False)}, PRESENT),
        (replace(CONTAINER, waiting="pull"), {"identity": None, "tag": TagFacts(TAG)}, ADVICE["pull"]),
    ],
)
def test_action(container: ImageUse, facts: dict[str, Any], action: str) -> None:
    assert action in judged(container, **facts).action


def test_the_same_facts_have_the_same_verdict() -> None:
    facts = RegistryFacts(RUNS, tag(NEW, MOVED, MADE), BAD, fix=FixedImage(FIX, ("another is none",)))
    assert judge(CONTAINER, facts) == judge(CONTAINER, facts)
    assert judge(CONTAINER, facts).reasons[-1] == "another is none"
