"""Patterns of names: what they match, and that none takes long."""

from __future__ import annotations

import itertools
import re

import pytest

from digestry.errors import InvalidConfiguration
from digestry.model.name_pattern import beginning, check_pattern, matches


@pytest.mark.parametrize(
    ("pattern", "those", "not_those"),
    [
        ("golftrack", ["golftrack"], ["golftrack2", "Golftrack", "team/golftrack", ""]),
        ("*", ["a", ""], ["a/b"]),
        ("**", ["a", "a/b/c", ""], []),
        ("team/*", ["team/a"], ["team", "team/a/b", "steam/a"]),
        ("team/**", ["team/a", "team/a/b"], ["team"]),
        ("**/cache", ["a/cache", "a/b/cache"], ["cache", "a/cache2"]),
        ("***", ["a/b"], []),
        ("v?.?", ["v1.2"], ["v1.22", "v1-2", "v/.2"]),
        ("v1.*", ["v1.", "v1.2-rc"], ["v12", "v1"]),
        ("**a*b", ["a/ab"], ["a/b"]),
        ("*-rc*", ["1-rc1", "-rc"], ["1-r"]),
    ],
)
def test_what_it_matches(pattern: str, those: list[str], not_those: list[str]) -> None:
    assert [name for name in those if not matches(pattern, name)] == []
    assert [name for name in not_those if matches(pattern, name)] == []


def _plainly(pattern: str) -> re.Pattern[str]:
    """As it is written down, however long it takes."""
    parts = re.findall(r"\*+|.", pattern)
    said = {"*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(said.get(p, ".*" if p[0] == "*" else re.escape(p)) for p in parts))


def test_every_short_pattern_matches_what_it_says() -> None:
    names = ["".join(name) for size in range(6) for name in itertools.product("ab/", repeat=size)]
    patterns = {"".join(parts) for parts in itertools.product(("a", "b", "/", "?", "*", "**"), repeat=4)}
    for pattern in sorted(patterns)[::3]:
        plain = _plainly(pattern)
        assert [name for name in names if matches(pattern, name)] == [
            name for name in names if plain.fullmatch(name)
        ], pattern


@pytest.mark.parametrize("star", ["*", "**"])
@pytest.mark.parametrize("name", ["a" * 255, "a/" * 127, "a" * 254 + "b"])
def test_none_takes_long(star: str, name: str) -> None:
    """Though names are chosen by whoever sends them: tried in every way, this would not end."""
    assert not matches(f"{star}a" * 40 + f"{star}c", name)
    assert matches(f"{star}a**", name)
    assert not matches("**" + f"?{star}" * 80 + "c", name)


@pytest.mark.parametrize(
    ("pattern", "start"),
    [("team/**", "team/"), ("team/app", "team/app"), ("**", ""), ("v?.*", "v"), ("a*b", "a")],
)
def test_what_all_that_it_matches_begins_with(pattern: str, start: str) -> None:
    assert beginning(pattern) == start


@pytest.mark.parametrize("wrong", ["", "[a-z]", "^v$", "a b", "a\n", "ü", "a" * 513])
def test_what_is_no_pattern(wrong: str) -> None:
    with pytest.raises(InvalidConfiguration):
        check_pattern(wrong)
