"""What both images of a move show is told; what is not known stays so."""

from __future__ import annotations

import datetime

import pytest

from digestry.observer.facts import ImageFacts, TagFacts, facts_of, is_version

OLD = ImageFacts(("a", "b", "c"), author="team", created="2026-01-02T00:00:00Z")


def image(facts: ImageFacts = OLD, *attachments: str) -> TagFacts:
    return TagFacts(False, {"linux/amd64": facts}, frozenset({"linux/amd64"}), frozenset(attachments))


@pytest.mark.parametrize("tag", ["1.5.2", "v1.5.2", "1.5.2-alpine", "1.5.2-rc.1", "10.0.0_2"])
def test_tags_of_one_release(tag: str) -> None:
    assert is_version(tag)


@pytest.mark.parametrize("tag", ["1.5", "v2", "latest", "1", "alpine-3.20", "3.20.1x", "1.5.", "main-1.2.3"])
def test_tags_that_are_expected_to_move(tag: str) -> None:
    assert not is_version(tag)


def test_an_ordinary_rebuild_concerns_nobody() -> None:
    new = ImageFacts(("a", "b", "d"), author="team", created="2026-02-02T00:00:00Z")
    facts = facts_of("1.5", "moved", image(OLD, "signature"), image(new, "signature"))
    assert (facts.author, facts.base, facts.shared_layers, facts.layers) == ("same", "same", 2, 3)
    assert facts.concerns == ()


def test_another_image_altogether() -> None:
    new = ImageFacts(("x",), author="eve", created="2025-12-31T00:00:00Z")
    facts = facts_of("1.5.2", "moved", image(OLD, "signature"), image(new))
    assert set(facts.concerns) == {
        "version-tag-moved", "attachments-lost", "author-changed", "base-changed", "created-earlier"
    }  # fmt: skip
    assert facts.attachments_lost == ("signature",)


def test_platforms_that_went() -> None:
    before = TagFacts(True, {}, frozenset({"linux/amd64", "linux/arm64"}), frozenset())
    after = TagFacts(True, {}, frozenset({"linux/amd64", "linux/s390x"}), frozenset())
    facts = facts_of("latest", "moved", before, after)
    assert (facts.platforms_lost, facts.platforms_gained) == (("linux/arm64",), ("linux/s390x",))
    assert facts.concerns == ("platforms-lost",)


def test_an_index_that_became_an_image() -> None:
    assert "kind-changed" in facts_of("latest", "moved", TagFacts(is_index=True), TagFacts()).concerns


def test_a_move_back() -> None:
    then = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    facts = facts_of("1.5", "moved", image(), image(), then)
    assert facts.pointed_until == then
    assert facts.concerns == ("moved-back",)


def test_what_is_not_known_is_no_concern() -> None:
    before = TagFacts(attachments=None, unknown=("manifest x: the registry does not have it any more",))
    facts = facts_of("1.5", "moved", before, image())
    assert (facts.author, facts.base, facts.concerns) == ("unknown", "unknown", ())
    assert facts.unknown == before.unknown


def test_constant_times_of_reproducible_builds() -> None:
    new = ImageFacts(("a",), created="1970-01-01T00:00:00Z")
    assert "created-earlier" not in facts_of("1.5", "moved", image(), image(new)).concerns
    assert (
        "created-earlier"
        not in facts_of("1.5", "moved", image(), image(ImageFacts(("a",), created="?"))).concerns
    )


def test_a_release_that_was_deleted() -> None:
    assert facts_of("1.5.2", "deleted", image(), None).concerns == ("version-tag-deleted",)
    assert facts_of("1.5", "deleted", image(), None).concerns == ()
