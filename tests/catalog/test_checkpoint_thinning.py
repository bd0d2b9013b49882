"""Old checkpoints are removed, and nothing that anybody asks for is lost by that; over both databases."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

import pytest

from digestry.catalog.catalog import Catalog
from digestry.translog.cosignatures import cosign
from digestry.translog.merkle import verify_consistency
from digestry.translog.notes import COSIGNATURE, SignerKey, VerifierKey
from tests.catalog.raw import Raw
from tests.catalog.support import Clock, image, put
from tests.catalog.test_transparency import NAME, begun, signed

SECOND = 1_000_000
DAY = 86400
AGES = [
    *range(100 * DAY, 30 * DAY, -5 * DAY // 2),
    *range(29 * DAY + 17, 28 * DAY, -1700),
    *range(2 * DAY, DAY + 7200, -1100),
    *range(20_000, 18_500, -25),
    *range(3000, 0, -100),
]
"""Seconds before the end at which a checkpoint was signed."""


def fill(
    catalog: Catalog, clock: Clock, witnesses: Sequence[SignerKey], ages: Iterable[int] = tuple(AGES)
) -> None:
    """Sign a checkpoint at each age; witnesses cosign some of them, and one stops doing so early."""
    begun(catalog, clock)
    chance = random.Random(5)
    ended = clock.now
    images = [image(catalog, "x") for _ in range(2)]
    for number, age in enumerate(ages):
        clock.now = ended - age * SECOND
        put(catalog, "x", images[number % 2], "t")
        head = signed(catalog, clock)
        assert head is not None
        newest = catalog.log.checkpoint()
        assert newest is not None
        made = [
            cosign(newest.checkpoint.text, witness, clock.now // SECOND)
            for place, witness in enumerate(witnesses)
            if chance.random() < 0.6 and not (place == 0 and age < 20_000)
        ]
        if made:
            catalog.log_signer.cosign(NAME, head.size, made, fence=None)
    clock.now = ended


def thinned(catalog: Catalog, clock: Clock, limit: int) -> int:
    thinning = catalog.log_signer.thinning()
    removed = 0
    for _ in range(1000):
        count, ended = thinning.step(now=clock.now, fence=None, limit=limit)
        removed += count
        if ended:
            return removed
    raise AssertionError("it does not end")


def kept(raw: Raw) -> dict[int, int]:
    rows = raw.query("SELECT size, signed_at FROM log_checkpoints ORDER BY size")
    return dict(rows)


def answers(catalog: Catalog, keys: Sequence[VerifierKey]) -> dict[object, object]:
    """All that is ever asked about checkpoints."""
    found: dict[object, object] = {"newest": catalog.log.checkpoint()}
    for count in range(1, len(keys) + 1):
        for some in itertools.combinations(keys, count):
            for quorum in range(1, count + 1):
                names = tuple(key.name for key in some)
                found[names, quorum] = catalog.log.checkpoint(quorum=quorum, keys=some)
    for key in keys:
        found[key.name] = catalog.log.last_cosigned(NAME, key.name)
    return found


@pytest.mark.long
@pytest.mark.parametrize("limit", [7, 2000])
def test_nothing_that_is_asked_for_is_lost(catalog: Catalog, clock: Clock, raw: Raw, limit: int) -> None:
    witnesses = [SignerKey.new(f"w{number}.example/w", COSIGNATURE) for number in range(3)]
    fill(catalog, clock, witnesses)
    before, all_of_them = answers(catalog, [one.verifier for one in witnesses]), kept(raw)
    assert len(all_of_them) == len(AGES)
    removed = thinned(catalog, clock, limit)
    left = kept(raw)
    assert removed == len(AGES) - len(left) > len(AGES) // 3
    assert answers(catalog, [one.verifier for one in witnesses]) == before
    assert left.items() <= all_of_them.items()
    # Of each period one is left, and all of the last hour.
    for size, at in all_of_them.items():
        age = (clock.now - at) // SECOND
        period = 0 if age < 3600 else 60 if age < DAY else 3600 if age < 30 * DAY else DAY
        if period:
            assert any(at // SECOND // period == other // SECOND // period for other in left.values())
        else:
            assert size in left
    # And little more: what the witnesses' last words need.
    assert len([at for at in left.values() if clock.now - at > 20_000 * SECOND]) < 80
    assert thinned(catalog, clock, limit) == 0
    # Proofs are made of the tree, of which nothing was removed.
    roots = {}
    for size in all_of_them:
        tree = catalog.log.consistency(size, max(all_of_them))
        roots[size] = tree
    newest = catalog.log.checkpoint()
    assert newest is not None
    for size, root in raw.query("SELECT size, root FROM log_checkpoints"):
        verify_consistency(size, bytes(root), newest.checkpoint.size, newest.checkpoint.root, roots[size])
    assert catalog.verify_journal() is None
    clock.now += SECOND
    put(catalog, "x", image(catalog, "x"), "t")
    assert signed(catalog, clock) is not None


def test_a_log_that_nobody_signs_any_more_keeps_its_last_word(
    catalog: Catalog, clock: Clock, raw: Raw
) -> None:
    fill(catalog, clock, [], ages=range(300, 0, -10))
    catalog.log_signer.begin_again("registry.example.com/log-2", now=clock(), reason="another catalog")
    assert signed(catalog, clock) is not None
    clock.now += 400 * DAY * SECOND
    assert thinned(catalog, clock, 4) == 29
    assert [row[0] for row in raw.query("SELECT size FROM log_checkpoints ORDER BY origin, size")] == [30, 30]
    assert catalog.log.checkpoint() is not None


def test_a_clock_that_was_set_back_removes_nothing_new(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    fill(catalog, clock, [], ages=range(300, 0, -10))
    clock.now -= 5 * DAY * SECOND
    assert thinned(catalog, clock, 2000) == 0
    assert len(kept(raw)) == 30


def test_the_newest_checkpoint_is_kept_by_the_database_itself(
    catalog: Catalog, clock: Clock, raw: Raw
) -> None:
    fill(catalog, clock, [], ages=range(50, 0, -10))
    assert "newest checkpoint stays" in raw.refused("DELETE FROM log_checkpoints WHERE size = 5")
    assert "newest checkpoint stays" in raw.refused("DELETE FROM log_checkpoints")
    assert len(kept(raw)) == 5
