"""The report of what was observed leaves out no move and no gap among much else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.clock import SECOND
from digestry.catalog.journal import Origin
from digestry.catalog.observation_plan import ScheduledTag
from digestry.catalog.observations import Observation
from digestry.model.digest import Digest
from digestry.registry import observation_report
from digestry.registry.config import RegistryConfig, load
from digestry.registry.observation_report import report
from tests.backends import open_catalog
from tests.catalog.support import image

MIRROR = Origin("mirror:up.test", "", "digestry")
NAMES = [f"up.test/app{number}" for number in range(3)]
MINUTE = 60 * SECOND


@pytest.fixture
def config(tmp_path: Path) -> RegistryConfig:
    file = tmp_path / "registry.toml"
    file.write_text("".join(f'[observe."{name}"]\nevery = "1min"\n' for name in NAMES))
    return load(file, {"root": tmp_path / "root"})


@pytest.fixture
def catalog(config: RegistryConfig) -> Iterator[Catalog]:
    assert config.root is not None
    config.root.mkdir()
    made = open_catalog(config.root)
    made.migrate()
    yield made
    made.close()


def observed(catalog: Catalog, name: str, *tags: str) -> None:
    catalog.observation_plan.schedule(ScheduledTag(name, tag, MINUTE, 0) for tag in tags)
    for tag in tags:
        catalog.pull_through.put(name, image(catalog, name), tag=tag, origin=MIRROR)


@pytest.mark.long
def test_moves_are_found_before_many_new_tags_and_among_those_of_others(
    catalog: Catalog, config: RegistryConfig
) -> None:
    observed(catalog, NAMES[0], "1.5")
    observed(catalog, NAMES[0], "1.5")  # it moves
    observed(catalog, NAMES[1], *(f"t{number}" for number in range(20)))
    observed(catalog, NAMES[1], *(f"t{number}" for number in range(20)))  # they move, and nobody sees it
    observed(catalog, NAMES[2], *(f"t{number}" for number in range(20)))
    found = report(catalog, config, since=0, now=clock.now(), moves=5, visible=lambda name: name != NAMES[1])
    assert [(move.repository, move.tag, move.event) for move in found.moves] == [(NAMES[0], "1.5", "moved")]
    assert not found.more_moves
    whole = report(catalog, config, since=0, now=clock.now(), moves=5)
    assert len(whole.moves) == 5
    assert whole.more_moves


def test_gaps_are_found_among_many_tags(
    catalog: Catalog, config: RegistryConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observation_report, "_BOUNDARIES", 7)
    digest = Digest.of(b"x")
    for name in NAMES:
        for number in range(10):
            seen = Observation(name, f"t{number}", "seen", 100 * MINUTE, MINUTE, digest)
            failed = Observation(name, f"t{number}", "failed", 101 * MINUTE, MINUTE, reason="unreachable")
            again = Observation(name, f"t{number}", "seen", 102 * MINUTE, MINUTE, digest)
            catalog.observations.record([seen] if number % 2 else [seen, failed, again])
    found = report(catalog, config, since=0, now=103 * MINUTE)
    gaps = {(gap.repository, gap.tag) for gap in found.gaps if gap.tag}
    assert gaps == {(name, f"t{number}") for name in NAMES for number in range(0, 10, 2)}
    assert not found.more_gaps
