"""Which tags may move: rules, conditions, and both inside the transaction that moves the tag."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.tag_moves import Expected, TagChanged, TagRefused
from digestry.catalog.tag_policy import Mode, TagPolicy, TagRule
from digestry.errors import InvalidConfiguration, NotFound
from digestry.model.manifest import Manifest
from digestry.model.name_pattern import check_pattern, matches
from tests.backends import open_catalog
from tests.catalog.support import ORIGIN, image, index, pushed, put

Make = Callable[..., Catalog]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Opens the catalog of one root with rules; again means a server started anew with others."""
    opened: list[Catalog] = []

    def make(*rules: TagRule) -> Catalog:
        catalog = open_catalog(tmp_path, policy=TagPolicy(rules))
        opened.append(catalog)
        catalog.migrate()
        return catalog

    yield make
    for catalog in opened:
        catalog.close()


def where(catalog: Catalog, name: str = "x") -> dict[str, str]:
    return {row.name: str(row.digest) for row in catalog.tags(name)}


def told(catalog: Catalog, name: str = "x") -> Sequence[str]:
    """The kinds of the journal's events, oldest first."""
    return [event.event for event in catalog.journal(name, limit=100)][::-1]


@pytest.mark.parametrize(
    ("pattern", "name", "wanted"),
    [
        ("**", "a/b/c", True),
        ("*", "a/b", False),
        ("*", "ab", True),
        ("team/*", "team/a", True),
        ("team/*", "team/a/b", False),
        ("team/*", "team/", True),
        ("team/**", "team/a/b", True),
        ("team/**", "team", False),
        ("**/web", "a/b/web", True),
        ("**/web", "web", False),
        ("v?.*", "v1.2", True),
        ("v?.*", "v12.2", False),
        ("?", "/", False),
        ("1.5", "1x5", False),
        ("edge-*", "edge-", True),
        ("edge-*", "Edge-1", False),
        ("a***b", "a/x/b", True),
    ],
)
def test_patterns(pattern: str, name: str, wanted: bool) -> None:
    assert matches(check_pattern(pattern), name) is wanted


@pytest.mark.parametrize("pattern", ["", "a b", "[a-z]", "a\n", "ä", "{a,b}", "x" * 513])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(InvalidConfiguration, match="matches no name"):
        check_pattern(pattern)


def test_the_first_rule_that_covers_a_tag_decides() -> None:
    policy = TagPolicy(
        (
            TagRule("mutable", tags=("latest",)),
            TagRule("immutable", repositories=("team/**",), tags=("v*", "1.*"), exclude=("v*-rc*",)),
            TagRule("forward-only", repositories=("team/**",)),
        )
    )
    modes: list[tuple[str, str, Mode]] = [
        ("team/a", "latest", "mutable"),
        ("team/a", "v1", "immutable"),
        ("team/a", "1.5", "immutable"),
        ("team/a", "v1-rc1", "forward-only"),
        ("team/a/b", "main", "forward-only"),
        ("other", "v1", "mutable"),
    ]
    for repository, tag, mode in modes:
        assert policy.rule(repository, tag).mode == mode, (repository, tag)


@pytest.mark.parametrize("mode", ["immutable", "write-once"])
def test_a_fixed_tag_stays(make: Make, mode: Mode) -> None:
    catalog = make(TagRule(mode, exclude=("latest",)))
    first = pushed(catalog, "x", ["1.5", "latest"])
    other = image(catalog, "x")
    with pytest.raises(TagRefused, match=str(first.digest)) as refused:
        put(catalog, "x", other, "1.5")
    assert (refused.value.tag, refused.value.digest) == ("1.5", str(first.digest))
    assert catalog.manifest("x", other.digest) is None  # all or nothing
    with pytest.raises(TagRefused):
        catalog.check_references("x", other, tag_names=["1.5"])
    put(catalog, "x", first, "1.5")  # the same again is welcome
    put(catalog, "x", other, "latest")
    assert where(catalog) == {"1.5": str(first.digest), "latest": str(other.digest)}
    for act in (
        lambda: catalog.delete_tag("x", "1.5", origin=ORIGIN),
        lambda: catalog.delete_manifest("x", first.digest, origin=ORIGIN),
    ):
        with pytest.raises(TagRefused, match="cannot be deleted"):
            act()
    catalog.delete_manifest("x", other.digest, origin=ORIGIN)
    assert where(catalog) == {"1.5": str(first.digest)}
    assert told(catalog) == ["created", "created", "moved", "deleted"]
    assert catalog.verify_journal() is None


def test_several_tags_are_all_moved_or_none(make: Make) -> None:
    catalog = make(TagRule("immutable", tags=("v*",)))
    first = pushed(catalog, "x", ["a", "v1"])
    other = image(catalog, "x")
    with pytest.raises(TagRefused):
        put(catalog, "x", other, "new", "a", "v1")
    assert where(catalog) == {"a": str(first.digest), "v1": str(first.digest)}
    assert catalog.manifest("x", other.digest) is None
    put(catalog, "x", first, "new", "a", "v1")
    put(catalog, "x", other, "a", "v2")
    assert told(catalog) == ["created", "created", "created", "moved", "created"]


def test_an_immutable_tag_can_be_made_anew_after_a_delete(make: Make) -> None:
    catalog = make(TagRule("immutable", deletable=True))
    pushed(catalog, "x")
    catalog.delete_tag("x", "t", origin=ORIGIN)
    second = pushed(catalog, "x")
    assert where(catalog) == {"t": str(second.digest)}


def test_a_write_once_tag_cannot(make: Make) -> None:
    catalog = make(TagRule("write-once", deletable=True))
    first = pushed(catalog, "x")
    catalog.delete_manifest("x", first.digest, origin=ORIGIN)
    with pytest.raises(TagRefused, match=f"was {first.digest} until it was deleted"):
        pushed(catalog, "x")
    put(catalog, "x", first, "t")
    assert told(catalog) == ["created", "deleted", "created"]


def test_a_rule_that_comes_later_takes_a_tag_as_it_is(make: Make) -> None:
    catalog = make()
    images = [pushed(catalog, "x") for _ in range(3)]
    ruled = make(TagRule("write-once"))
    with pytest.raises(TagRefused, match=str(images[2].digest)):
        put(ruled, "x", images[0], "t")
    catalog.delete_tag("x", "t", origin=ORIGIN)
    with pytest.raises(TagRefused, match=str(images[2].digest)):
        put(ruled, "x", images[0], "t")
    put(ruled, "x", images[2], "t")


def test_forward_only(make: Make) -> None:
    catalog = make(TagRule("forward-only"))
    first, second, third = (image(catalog, "x") for _ in range(3))
    for manifest in (first, second, second):
        put(catalog, "x", manifest, "t")
    with pytest.raises(TagRefused, match=f"has left {first.digest}: it points to {second.digest} now"):
        put(catalog, "x", first, "t")
    put(catalog, "x", first, "other")  # what another tag has left does not count
    put(catalog, "x", third, "t")
    catalog.delete_tag("x", "t", origin=ORIGIN)
    for manifest in (first, second, third):
        with pytest.raises(TagRefused, match="has left"):
            put(catalog, "x", manifest, "t")
    pushed(catalog, "x")
    assert told(catalog) == ["created", "moved", "created", "moved", "deleted", "created"]


def test_conditions(make: Make) -> None:
    catalog = make()
    first = image(catalog, "x")
    second = image(catalog, "x")

    def put_if(manifest: Manifest, *tags: str, any_of: str = "", none_of: str = "") -> None:
        expected = Expected(
            frozenset(any_of.split()) if any_of else None, frozenset(none_of.split()) if none_of else None
        )
        catalog.put_manifest("x", manifest, tag_names=tags, origin=ORIGIN, expected=expected)

    with pytest.raises(TagChanged, match="it is not there"):
        put_if(first, "t", any_of="*")
    put_if(first, "t", none_of="*")
    with pytest.raises(TagChanged, match=f"expected to be free, but it points to {first.digest}"):
        put_if(first, "t", none_of="*")
    with pytest.raises(TagChanged, match=f"it points to {first.digest}"):
        put_if(second, "t", any_of=str(second.digest))
    with pytest.raises(TagChanged, match="expected not to point to"):
        put_if(second, "t", none_of=f"sha256:0 {first.digest}")
    with pytest.raises(TagChanged):  # of all tags, or none of them moves
        put_if(second, "t", "u", any_of=str(first.digest))
    put_if(second, "t", any_of=f"{first.digest} {second.digest}")
    with pytest.raises(TagChanged):
        put_if(second, none_of="*")  # without a tag it is about the manifest
    stale = Expected(frozenset((str(first.digest),)))
    with pytest.raises(TagChanged):
        catalog.delete_tag("x", "t", origin=ORIGIN, expected=stale)
    fresh = Expected(frozenset((str(second.digest),)))
    catalog.delete_tag("x", "t", origin=ORIGIN, expected=fresh)
    assert told(catalog) == ["created", "moved", "deleted"]


def test_a_hundred_pushers_and_one_immutable_tag(make: Make) -> None:
    """From two processes' catalogs: the lock that decides is the database's."""
    catalogs = [make(TagRule("immutable")) for _ in range(2)]
    images = [image(catalogs[0], "x") for _ in range(100)]
    barrier = threading.Barrier(len(images))
    won: list[Manifest] = []
    lost: list[str] = []

    def push(number: int, manifest: Manifest) -> None:
        barrier.wait()
        try:
            put(catalogs[number % 2], "x", manifest, "t")
            won.append(manifest)
        except TagRefused as error:
            lost.append(error.digest)

    threads = [threading.Thread(target=push, args=pair) for pair in enumerate(images)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = won
    assert lost == [str(winner.digest)] * 99
    assert told(catalogs[0]) == ["created"]
    assert [catalogs[0].manifest("x", each.digest) is not None for each in images].count(True) == 1


def test_a_tag_deleted_and_written_at_once(make: Make) -> None:
    """Whatever the order was, the journal tells it, and the tag is where its last entry says."""
    catalog = make(TagRule("immutable", deletable=True))
    images = [image(catalog, "x") for _ in range(4)]

    def write(manifest: Manifest) -> None:
        for _ in range(20):
            try:
                put(catalog, "x", manifest, "t")
            except TagRefused:
                continue

    def remove() -> None:
        for _ in range(60):
            try:
                catalog.delete_tag("x", "t", origin=ORIGIN)
            except NotFound:
                continue

    threads = [threading.Thread(target=write, args=(each,)) for each in images]
    threads += [threading.Thread(target=remove) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kinds = told(catalog)
    assert kinds == ["created", "deleted"] * (len(kinds) // 2) + ["created"] * (len(kinds) % 2)
    assert catalog.verify_journal() is None


def test_restore(make: Make) -> None:
    catalog = make(TagRule("immutable", tags=("v*",)))
    first = pushed(catalog, "x")
    second = pushed(catalog, "x", ["t", "v1"])
    entries = catalog.journal("x", tag="t", limit=10)
    done = catalog.restore_tag("x", "t", first.digest, origin=ORIGIN)
    assert (done.from_digest, done.to_digest) == (second.digest, first.digest)
    assert done.event is not None
    assert (done.event.event, done.event.from_digest) == ("moved", second.digest)
    again = catalog.restore_tag("x", "t", first.digest, origin=ORIGIN)
    assert again.event is None
    at = clock.from_datetime(entries[0].at)
    assert catalog.restore_tag("x", "t", at, origin=ORIGIN).to_digest == second.digest
    assert catalog.restore_tag("x", "t", at - 1, origin=ORIGIN).to_digest == first.digest
    with pytest.raises(NotFound, match="there was no tag t"):
        catalog.restore_tag("x", "t", clock.from_datetime(entries[1].at) - 1, origin=ORIGIN)
    never = pushed(catalog, "x", ["else"])
    with pytest.raises(NotFound, match="never pointed to"):
        catalog.restore_tag("x", "t", never.digest, origin=ORIGIN)
    with pytest.raises(TagChanged):
        catalog.restore_tag("x", "t", second.digest, origin=ORIGIN, expected=Expected(none_of=frozenset("*")))
    catalog.delete_tag("x", "t", origin=ORIGIN)
    back = catalog.restore_tag("x", "t", first.digest, origin=ORIGIN)
    assert (back.from_digest, back.event and back.event.event) == (None, "created")
    put(catalog, "x", second, "t")
    catalog.delete_manifest("x", first.digest, origin=ORIGIN)
    with pytest.raises(NotFound, match="does not have any more"):
        catalog.restore_tag("x", "t", first.digest, origin=ORIGIN)
    assert catalog.verify_journal() is None


def test_restore_is_under_the_policy(make: Make) -> None:
    catalog = make()
    first = pushed(catalog, "x")
    second = pushed(catalog, "x")
    for mode in ("immutable", "write-once", "forward-only"):
        with pytest.raises(TagRefused, match=str(second.digest)):
            make(TagRule(mode)).restore_tag("x", "t", first.digest, origin=ORIGIN)
    assert len(catalog.journal("x", limit=10)) == 2


def test_an_index_keeps_its_children_whatever_the_rules(make: Make) -> None:
    catalog = make(TagRule("immutable"))
    child = put(catalog, "x", image(catalog, "x"))
    parent = put(catalog, "x", index(child), "t")
    with pytest.raises(TagRefused):
        catalog.delete_manifest("x", parent.digest, origin=ORIGIN)
    assert catalog.manifest("x", child.digest) is not None
