"""The picture of a tag's history: its bands, ticks and bars, for one move and for very many."""

from __future__ import annotations

import pytest

from digestry.catalog.tag_timeline import MOST_MARKS, TagMark, TagPeriod
from digestry.web.time_axis import WIDTH
from digestry.web.timeline_picture import draw

HOUR = 3_600_000_000


def test_one_move_is_one_band() -> None:
    picture = draw(TagPeriod(0, HOUR, (TagMark(1, "a", 1),), exact=True), current="a", running=())
    (band,) = picture.bands
    assert (band.look, band.digest) == ("now", "a")
    assert band.x == pytest.approx(0, abs=1)
    assert band.width == pytest.approx(WIDTH, abs=1)
    assert len(picture.ticks) == 1
    assert not picture.bars
    assert not picture.gaps


def test_digests_one_after_the_other_look_different_and_those_that_matter_stand_out() -> None:
    marks = tuple(TagMark(at * HOUR, digest, 1) for at, digest in enumerate(["a", "b", "c", None, "a"], 1))
    picture = draw(TagPeriod(0, 8 * HOUR, marks, exact=True), current="a", running={"c"})
    bands = sorted(picture.bands, key=lambda band: band.since)
    assert [band.look for band in bands] == ["now", "other", "runs", "now"]
    assert [band.since // HOUR for band in bands] == [1, 2, 3, 5]
    assert [band.until // HOUR for band in bands] == [2, 3, 4, 8]
    assert picture.gaps
    assert picture.ticks == tuple(at / 8 * WIDTH for at in (1, 2, 3, 4, 5))


@pytest.mark.long
def test_what_matters_is_wide_enough_to_be_seen() -> None:
    marks = (TagMark(0, "a", 1), TagMark(5000 * HOUR, "b", 1), TagMark(5000 * HOUR + 1, "a", 1))
    picture = draw(TagPeriod(0, 10_000 * HOUR, marks, exact=True), current="a", running={"b"})
    (short,) = (band for band in picture.bands if band.look == "runs")
    assert short.width >= WIDTH / 500


@pytest.mark.long
def test_very_many_moves_are_counted() -> None:
    period = TagPeriod(0, MOST_MARKS * HOUR - 1, (), exact=False)
    marks = [TagMark(part * HOUR + 5, "ab"[part % 2], 1 + part * 100) for part in range(0, MOST_MARKS, 3)]
    picture = draw(
        TagPeriod(period.since, period.until, (TagMark(0, "z", 0), *marks), exact=False),
        current="b",
        running=(),
    )
    assert len(picture.bars) == len(marks)
    assert not picture.ticks
    heights = [bar.height for bar in picture.bars]
    assert heights == sorted(heights)
    assert heights[-1] == 100
    assert heights[0] >= 8
    assert [bar.moves for bar in picture.bars] == [mark.moves for mark in marks]
    assert all(0 <= bar.x <= WIDTH - bar.width for bar in picture.bars)


@pytest.mark.long
def test_the_same_digest_again_is_one_band_where_moves_are_counted() -> None:
    marks = tuple(TagMark(at * HOUR, "a", 9) for at in range(1, 5))
    picture = draw(TagPeriod(0, 8 * HOUR, marks, exact=False), current=None, running=())
    assert [(band.since // HOUR, band.until // HOUR) for band in picture.bands] == [(1, 8)]


@pytest.mark.long
def test_labels_are_at_equal_distances() -> None:
    picture = draw(TagPeriod(HOUR, 5 * HOUR, (), exact=True), current=None, running=())
    assert picture.labels == tuple(at * HOUR for at in range(1, 6))
    assert picture.bands == ()


@pytest.mark.long
def test_a_period_of_nothing() -> None:
    picture = draw(TagPeriod(5, 5, (TagMark(5, "a", 1),), exact=True), current="a", running=())
    assert set(picture.labels) <= {5, 6}
    assert [band.digest for band in picture.bands] == ["a"]
