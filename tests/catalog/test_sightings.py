"""What ran where: noted once for each digest, repository and place, and forgotten when it is old."""

from __future__ import annotations

import pytest

from digestry.catalog import clock as times
from digestry.catalog import sightings as room
from digestry.catalog.catalog import Catalog
from digestry.catalog.sightings import BATCH, merged
from digestry.errors import CallerError
from digestry.model.digest import Digest
from digestry.model.sightings import SightingReport, SightingsReceipt
from tests.catalog.raw import Raw
from tests.catalog.support import ORIGIN, Clock, image, index, put


def seen(name: str, digest: Digest, place: str = "n1", containers: int = 1) -> SightingReport:
    return SightingReport(name, digest, place, containers)


def test_first_stays_and_last_only_rises(catalog: Catalog, clock: Clock) -> None:
    digest = put(catalog, "x", image(catalog, "x")).digest
    told = catalog.sightings
    assert told.note([seen("x", digest, containers=3)], at=clock.now, actor="a") == SightingsReceipt(1, 0)
    told.note([seen("x", digest, containers=5)], at=clock.now + 100, actor="b")
    told.note([seen("x", digest, containers=4)], at=clock.now - 50, actor="a")  # a clock set back
    found = told.of("x", digest, limit=10)
    assert found.places == 1
    (one,) = found.sightings
    assert (one.place, one.containers) == ("n1", 4)
    assert one.first == times.to_datetime(clock.now)
    assert one.last == times.to_datetime(clock.now + 100)


def test_only_what_the_repository_has_or_had(catalog: Catalog, clock: Clock) -> None:
    manifest = put(catalog, "x", image(catalog, "x"))
    parent = put(catalog, "x", index(manifest))
    gone = put(catalog, "x", image(catalog, "x"))
    catalog.delete_manifest("x", gone.digest, origin=ORIGIN)
    put(catalog, "y", image(catalog, "y"))
    assert manifest.config is not None
    known = [manifest.digest, parent.digest, gone.digest, manifest.config.digest]
    entries = [seen("x", digest) for digest in known]
    entries += [seen("y", manifest.digest), seen("never", manifest.digest)]
    entries += [seen("x", manifest.layers[0].digest), seen("x", Digest.of(b"nobody's"))]
    assert catalog.sightings.note(entries, at=clock.now, actor="a") == SightingsReceipt(4, 4)
    assert all(catalog.sightings.of("x", digest, limit=1).places == 1 for digest in known)
    assert catalog.sightings.of("y", manifest.digest, limit=10).sightings == ()


def test_what_is_told_twice_at_once_is_together(catalog: Catalog, clock: Clock) -> None:
    digest = put(catalog, "x", image(catalog, "x")).digest
    entries = [seen("x", digest, containers=2), seen("x", digest, "n2"), seen("x", digest, containers=3)]
    assert merged(entries) == [seen("x", digest, containers=5), seen("x", digest, "n2")]
    assert catalog.sightings.note(entries, at=clock.now, actor="a") == SightingsReceipt(2, 0)


def test_a_config_ran_where_its_manifests_did(catalog: Catalog, clock: Clock) -> None:
    manifest = put(catalog, "x", image(catalog, "x"))
    parent = put(catalog, "x", index(manifest))
    assert manifest.config is not None
    catalog.sightings.note([seen("x", manifest.digest, "n1", 2)], at=clock.now, actor="a")
    catalog.sightings.note([seen("x", manifest.config.digest, "n1", 1)], at=clock.now + 5, actor="a")
    catalog.sightings.note([seen("x", parent.digest, "n2")], at=clock.now + 9, actor="a")
    found = catalog.sightings.of("x", manifest.config.digest, limit=10)
    # What ran of the index may have been another child.
    assert [(one.place, one.containers) for one in found.sightings] == [("n1", 2)]
    assert found.sightings[0].last == times.to_datetime(clock.now + 5)


def test_the_latest_places_first(catalog: Catalog, clock: Clock) -> None:
    digest = put(catalog, "x", image(catalog, "x")).digest
    for number in range(5):
        catalog.sightings.note([seen("x", digest, f"n{number}")], at=clock.now + number, actor="a")
    found = catalog.sightings.of("x", digest, limit=2)
    assert found.places == 5
    assert [one.place for one in found.sightings] == ["n4", "n3"]
    assert catalog.sightings.of("x", digest, limit=0).places == 5


def test_of_one_digest_the_latest_places_are_kept(
    catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MOST_PLACES", 3)
    digest, other = (put(catalog, "x", image(catalog, "x")).digest for _ in range(2))
    catalog.sightings.note([seen("x", other, "old")], at=clock.now - 9, actor="a")
    for number in range(6):
        catalog.sightings.note([seen("x", digest, f"n{number}")], at=clock.now + number, actor="a")
    found = catalog.sightings.of("x", digest, limit=10)
    assert [one.place for one in found.sightings] == ["n5", "n4", "n3"]
    assert catalog.sightings.of("x", other, limit=10).places == 1


def test_nobody_makes_places_be_forgotten_that_others_told(
    catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MOST_PLACES", 6)
    digest = put(catalog, "x", image(catalog, "x")).digest

    def places() -> set[str]:
        return {one.place for one in catalog.sightings.of("x", digest, limit=100).sightings}

    catalog.sightings.note([seen("x", digest, f"real{number}") for number in range(3)], at=1, actor="audit")
    real = {"real0", "real1", "real2"}
    # Claimed by telling of them again, and buried under what is newer.
    catalog.sightings.note([seen("x", digest, place) for place in real], at=2, actor="guest")
    made_up = [seen("x", digest, f"made-up{number}") for number in range(50)]
    catalog.sightings.note(made_up, at=3, actor="guest")
    assert places() == real | {"made-up0", "made-up1", "made-up10"}
    # Who tells alone has it all, and a third one has a share.
    catalog.sightings.note([seen("x", digest, f"b{number}") for number in range(50)], at=4, actor="third")
    assert {place[:3] for place in places()} == {"rea", "mad", "b0", "b1"}


def test_the_old_is_pruned_in_parts(catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PRUNED", 7)
    digest = put(catalog, "x", image(catalog, "x")).digest
    for number in range(40):
        catalog.sightings.note([seen("x", digest, f"n{number}")], at=clock.now + number // 2, actor="a")
    assert catalog.sightings.prune(clock.now + 15) == 30
    assert catalog.sightings.prune(clock.now + 15) == 0
    found = catalog.sightings.of("x", digest, limit=100)
    assert {one.place for one in found.sightings} == {f"n{number}" for number in range(30, 40)}


def test_more_than_one_transaction_takes(catalog: Catalog, clock: Clock) -> None:
    digest = put(catalog, "x", image(catalog, "x")).digest
    entries = [seen("x", digest, f"n{number}") for number in range(BATCH + 5)]
    entries.append(seen("x", Digest.of(b"nobody's")))
    assert catalog.sightings.note(entries, at=clock.now, actor="a") == SightingsReceipt(BATCH + 5, 1)
    assert catalog.sightings.of("x", digest, limit=1).places == BATCH + 5


@pytest.mark.only_on("postgresql", reason="it keeps no NUL in a text")
def test_a_text_that_cannot_be_kept_is_the_callers_fault(catalog: Catalog, clock: Clock) -> None:
    digest = put(catalog, "x", image(catalog, "x")).digest
    with pytest.raises(CallerError, match="NUL"):
        catalog.sightings.note([seen("x", digest, "a\0b")], at=clock.now, actor="a")
    assert catalog.sightings.note([seen("x", digest, "ab")], at=clock.now, actor="a").noted == 1


# -- how much room there is ------------------------------------------------------------------------


def counted(raw: Raw) -> dict[str, int]:
    """What each who tells takes, as the catalog counts it, once it is proven right."""
    true: dict[str, int] = {}
    for texts in raw.query("SELECT actor, place, repository, digest FROM sightings"):
        true[texts[0]] = true.get(texts[0], 0) + 200 + 2 * len("".join(texts).encode())
    assert dict(raw.query("SELECT actor, bytes FROM sighting_usage")) == true
    return true


def places(catalog: Catalog, digest: Digest) -> set[str]:
    return {one.place for one in catalog.sightings.of("x", digest, limit=20_000).sightings}


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> int:
    """Room for some 100 short sightings."""
    size = 100 * (200 + 2 * len("sha256:" + "0" * 64 + "x" + "auditor" + "n00"))
    monkeypatch.setattr(room, "MOST_BYTES", size)
    return size


@pytest.mark.long
def test_what_all_tell_has_a_bound_in_bytes(catalog: Catalog, clock: Clock, little: int, raw: Raw) -> None:
    digests = [put(catalog, "x", image(catalog, "x")).digest for _ in range(4)]
    for number in range(40):
        long = "\N{PILE OF POO}" * 200 + str(number)
        entries = [seen("x", digest, f"{long}.{other}") for digest in digests for other in range(5)]
        catalog.sightings.note(entries, at=clock.now + number, actor=f"user{number % 3}")
        assert sum(counted(raw).values()) <= little
    catalog.sightings.prune(clock.now + 1000)
    assert counted(raw) == {}


def test_who_floods_makes_room_and_nobody_else(catalog: Catalog, clock: Clock, little: int, raw: Raw) -> None:
    ran, other = (put(catalog, "x", image(catalog, "x")).digest for _ in range(2))
    real = [seen("x", ran, f"n{number:02}") for number in range(30)]
    catalog.sightings.note(real, at=clock.now, actor="auditor")
    for number in range(20):
        flood = [seen("x", other, f"{number}.{more}") for more in range(50)]
        assert catalog.sightings.note(flood, at=clock.now + 1 + number, actor="guest").refused == 0
    assert places(catalog, ran) == {one.place for one in real}
    assert {place.partition(".")[0] for place in places(catalog, other)} <= {"18", "19"}
    assert sum(counted(raw).values()) <= little
    # What runs now is noted, new and old, though all is full.
    more = [seen("x", ran, f"n{number:02}") for number in range(40)]
    assert catalog.sightings.note(more, at=clock.now + 100, actor="auditor") == SightingsReceipt(40, 0)
    assert len(places(catalog, ran)) == 40


@pytest.mark.long
def test_the_latest_of_a_digest_is_never_pushed_out(
    catalog: Catalog, clock: Clock, little: int, raw: Raw
) -> None:
    """It keeps what runs from garbage collection. Then what is new is refused, and told so."""
    digests = [put(catalog, "x", image(catalog, "x")).digest for _ in range(60)]
    catalog.sightings.note([seen("x", one, "n01") for one in digests], at=clock.now, actor="auditor")
    catalog.sightings.note([seen("x", digests[0], "n02")], at=clock.now + 1, actor="guest")
    refused = 0
    for number in range(10):
        flood = [seen("x", digests[0], f"{number}.{more}") for more in range(50)]
        refused += catalog.sightings.note(flood, at=clock.now + 2 + number, actor="guest").refused
    assert all(places(catalog, one) for one in digests[1:])
    assert sum(counted(raw).values()) <= little
    # A place of one's own that is there is told of again.
    again = [seen("x", one, "n01") for one in digests[1:]]
    assert catalog.sightings.note(again, at=clock.now + 50, actor="auditor") == SightingsReceipt(59, 0)


@pytest.mark.long
def test_what_there_is_no_room_for_is_told(catalog: Catalog, clock: Clock, little: int) -> None:
    digests = [put(catalog, "x", image(catalog, "x")).digest for _ in range(130)]
    result = catalog.sightings.note([seen("x", one, "n01") for one in digests], at=clock.now, actor="auditor")
    assert (result.unknown, result.noted + result.refused) == (0, 130)
    assert 95 <= result.noted <= 105
    assert sum(bool(places(catalog, one)) for one in digests) == result.noted
