from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digestry.model.timestamps import parse, parse_rfc3339, rfc3339

MICROSECOND = datetime.timedelta(microseconds=1)


@given(st.datetimes(timezones=st.just(datetime.UTC)))
def test_what_is_printed_is_that_very_moment_when_it_is_read(at: datetime.datetime) -> None:
    text = rfc3339(at)
    assert len(text) == len("2026-11-27T02:34:31.123456Z")
    for read in (parse, parse_rfc3339):
        assert (read(text).first, read(text).last) == (at, at)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-11-27", "2026-11-27T00:00:00.000000Z", "2026-11-27T23:59:59.999999Z"),
        ("2026-11-27 02:34", "2026-11-27T02:34:00.000000Z", "2026-11-27T02:34:59.999999Z"),
        ("2026-11-27 02:34:31", "2026-11-27T02:34:31.000000Z", "2026-11-27T02:34:31.999999Z"),
        (" 2026-11-27  02:34:31 UTC", "2026-11-27T02:34:31.000000Z", "2026-11-27T02:34:31.999999Z"),
        ("2026-11-27T02:34:31Z", "2026-11-27T02:34:31.000000Z", "2026-11-27T02:34:31.999999Z"),
        ("2026-11-27t02:34:31,123z", "2026-11-27T02:34:31.123000Z", "2026-11-27T02:34:31.123999Z"),
        ("2026-11-27T02:34:31.123456789Z", "2026-11-27T02:34:31.123456Z", "2026-11-27T02:34:31.123456Z"),
        ("2026-11-27T02:34:31+02:00", "2026-11-27T00:34:31.000000Z", "2026-11-27T00:34:31.999999Z"),
        ("2026-11-27 02:34:31 -0530", "2026-11-27T08:04:31.000000Z", "2026-11-27T08:04:31.999999Z"),
        ("9999-12-31", "9999-12-31T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"),
        ("0001-01-01", "0001-01-01T00:00:00.000000Z", "0001-01-01T23:59:59.999999Z"),
    ],
)
def test_a_time_is_all_that_it_names(text: str, first: str, last: str) -> None:
    found = parse(text)
    assert (rfc3339(found.first), rfc3339(found.last)) == (first, last)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2026-11",
        "2026-02-30",
        "2026-11-27T25:00:00Z",
        "2026-11-27T02:34:60Z",
        "2026-11-27T02:34:31+99:00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "\uff12\uff10\uff12\uff16-11-27",
        "2026-11-27T02:34:31.Z",
        "2026-11-27T02Z",
    ],
)
def test_what_is_not_a_time(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says what is wrong in its own words
        parse(text)


@pytest.mark.parametrize(
    "text", ["2026-11-27", "2026-11-27 02:34:31Z", "2026-11-27T02:34:31", "2026-11-27T02:34Z"]
)
def test_over_http_a_time_is_rfc_3339(text: str) -> None:
    parse(text)
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_rfc3339(text)
