"""Every command that a page shows is run, against a real server, and prints what the page says."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest

from tests.docs.commands import commands
from tests.docs.conftest import Engines
from tests.docs.outputs import Bindings
from tests.docs.pages import HOUSE, PAGES, blocks
from tests.docs.stage import Stage

_PLAYED = [page for page in PAGES if any(block.is_played for block in blocks(page))]
_LONG = {"audit", "backup", "http-api", "integrity", "mirror", "observability", "registry", "sources", "tags"}
"""Pages with many commands."""


@pytest.mark.long
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=pytest.mark.long if page.stem in _LONG else ())
        for page in _PLAYED
    ],
)
def test_the_commands_of_a_page(page: Path, engines: Engines) -> None:
    needed = {block.needs for block in blocks(page) if block.needs}
    there = {name: engines.environment(name) for name in needed}
    environment = {key: value for found in there.values() if found for key, value in found.items()}
    with (
        # A short path: the address of a unix socket has 107 bytes at most.
        tempfile.TemporaryDirectory(prefix="page-") as directory,
        contextlib.closing(Stage(Path(directory), environment)) as stage,
    ):
        for block in blocks(page):
            if block.needs and there[block.needs] is None:
                continue
            if block.writes:
                stage.write(block.writes, block.text)
            elif block.is_played:
                for command in commands(block):
                    stage.play(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_says_why(page: Path) -> None:
    for block in blocks(page):
        known = ("run with ", "needs ", "writes ", "not run, because ")
        assert block.directive in {"", "run"} or block.directive.startswith(known), block.where
        if block.directive.startswith("not run"):
            assert len(block.directive.removeprefix("not run, because ").split()) >= 3, block.where


def test_every_page_is_looked_at() -> None:
    assert HOUSE / "README.md" in _PLAYED
    assert len(PAGES) > 15


def test_outputs_are_compared() -> None:
    bindings = Bindings()
    shown = "A  sha256:aaba8b8680b6  2026-01-01T00:00:00Z\n…\nz aaba8b8…\n"
    assert bindings.compare(shown, "A sha256:0123456789ab 2027-01-01T00:00:00.5Z\nb\nz 0123456789\n") is None
    assert bindings.command("x@aaba8b8680b6… --at 2026-01-01T00:00:00Z") == (
        "x@0123456789ab --at 2027-01-01T00:00:00.5Z"
    )
    assert bindings.compare("sha256:aaba8b8680b6", "sha256:0123456789ab") is None
    assert bindings.compare("sha256:aaba8b8680b6", "sha256:1123456789ab") is not None
    assert bindings.compare("STATE", "state") is not None
    assert bindings.compare("one", "one\ntwo") is not None
