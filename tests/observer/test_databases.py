"""An observer whose catalog is a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.observer.support import Observing, observing, report
from tests.postgresql import Cluster
from tests.registry.pull_through.support import upstream
from tests.support import start_registry


@pytest.fixture
def database(postgresql: Cluster) -> Iterator[str]:
    url = postgresql.new_database()
    yield url
    postgresql.drop_database(url)


@pytest.mark.long
def test_one_that_is_killed_leaves_the_observing_to_the_next(tmp_path: Path, database: str) -> None:
    stores = f'[storage]\ndatabase = "{database}"\n'
    with upstream() as up, observing(tmp_path, up.url, more=stores) as one:
        first = up.image("own/app", "1.5", layer=b"one")
        one.wait_for("1.5", first)
        second = up.image("own/app", "1.5", layer=b"two")
        one.wait_for("1.5", first, second)
        one.server.kill()
        third = up.image("own/app", "1.5", layer=b"three")
        config = tmp_path / "registry.toml"
        other = Observing(start_registry(tmp_path / "root", "--config", str(config)))
        try:
            other.wait_for("1.5", first, second, third)
            moves = [one for one in report(other)["moves"] if one["event"] == "moved"]
            assert [one["toDigest"] for one in reversed(moves)] == [str(second), str(third)]
        finally:
            other.server.stop()
