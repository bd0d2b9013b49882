"""The sequencer: entries get their positions soon, by one process at a time, and the next takes over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.catalog.catalog import Catalog
from digestry.catalog.sqlite.dialect import DIALECT
from digestry.coordination.protocol import Job
from digestry.errors import Conflict
from digestry.registry.sequencer import Sequencer
from tests.backends import open_catalog, open_coordination
from tests.catalog.support import pushed
from tests.support import wait_until


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """A catalog whose entries are written without a position."""
    monkeypatch.setattr(DIALECT, "one_writer", False)
    made = open_catalog(tmp_path)
    made.migrate()
    yield made
    made.close()


def sequenced(catalog: Catalog, count: int) -> None:
    """Wait until the first ``count`` entries have positions."""
    wait_until(lambda: catalog.statistics.last_entry() == count, what=f"position {count}")


@pytest.mark.long
def test_one_at_a_time_and_the_next_takes_over(catalog: Catalog, tmp_path: Path) -> None:
    pushed(catalog, "x")
    pair = [Sequencer(open_coordination(tmp_path), catalog.sequencing) for _ in range(2)]
    pair[0].start()
    sequenced(catalog, 1)
    pair[1].start()
    with pytest.raises(Conflict), open_coordination(tmp_path).only_one(Job.SEQUENCING):
        pass
    for name in ("x", "y", "z"):
        pushed(catalog, name)
    sequenced(catalog, 4)
    pair[0].stop()
    pushed(catalog, "x")
    sequenced(catalog, 5)
    pair[1].stop()
    assert catalog.verify_journal() is None


def test_what_another_process_wrote_is_found(catalog: Catalog, tmp_path: Path) -> None:
    other = open_catalog(tmp_path)
    sequencer = Sequencer(open_coordination(tmp_path), catalog.sequencing)
    sequencer.start()
    for count in range(1, 4):
        pushed(other, "x")
        sequenced(catalog, count)
    sequencer.stop()
    other.close()


def test_nothing_is_locked_where_one_writes(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DIALECT, "one_writer", True)
    sequencer = Sequencer(open_coordination(tmp_path), catalog.sequencing)
    sequencer.start()
    sequencer._keeper.join()
    with open_coordination(tmp_path).only_one(Job.SEQUENCING):
        pass
    sequencer.stop()
