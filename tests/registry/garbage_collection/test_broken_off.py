"""Runs that are killed, stopped or fail: the next one begins with the repositories not reached."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.catalog.garbage import Garbage
from digestry.catalog.job_states import COLLECTION
from digestry.catalog.removals import Batch, Removed, Stayed
from digestry.catalog.tag_moves import RepositoryKey
from digestry.errors import StorageError
from digestry.registry import garbage_run
from digestry.registry.config import RegistryConfig, load
from tests.backends import collect
from tests.postgresql import Cluster
from tests.registry.garbage_collection.support import AT_ONCE, later
from tests.support import RegistryServer, start_registry

NAMES = ("r0", "r1", "r2", "r3")
_numbers = itertools.count()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def catalog_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The ``registry.toml`` of a registry that collects when it is told to."""
    file = tmp_path / "registry.toml"
    file.write_text(AT_ONCE)
    if request.param == "sqlite":
        yield file
        return
    if request.config.getoption("--store") == "s3":
        pytest.skip("there the rows of the content are in a catalog of the root")
    cluster: Cluster = request.getfixturevalue("postgresql")
    database = cluster.new_database()
    file.write_text(f'{AT_ONCE}\n[storage]\ndatabase = "{database}"\n')
    yield file
    cluster.drop_database(database)


@pytest.fixture
def registry_of_four(tmp_path: Path, catalog_settings: Path) -> Iterator[RegistryServer]:
    """A registry in which four repositories have garbage."""
    server = start_registry(tmp_path / "root", "--config", str(catalog_settings))
    refill(server)
    yield server
    server.stop()


@pytest.fixture
def settings_of_four(registry_of_four: RegistryServer, catalog_settings: Path) -> RegistryConfig:
    return load(catalog_settings, {"root": registry_of_four.root})


def refill(server: RegistryServer) -> None:
    """Push two blobs to each repository that nothing refers to."""
    for name in NAMES:
        server.image(name, f"{name} {next(_numbers)}".encode())


class _KilledError(BaseException):
    """Stands for the end of the process: nothing handles it."""


def failing(name: str, error: Callable[[], BaseException]) -> Any:
    """Return ``Garbage.unlink`` that raises an error once the links of the repository ``name`` are gone."""
    unlink = Garbage.unlink

    def unlinked(self: Garbage, key: RepositoryKey) -> Iterator[Batch]:
        yield from unlink(self, key)
        if key.name == name:
            raise error()

    return unlinked


@pytest.fixture(autouse=True)
def always_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs that take no time note where they are, too."""
    monkeypatch.setattr(garbage_run, "_NOTED_SECONDS", 0.0)


class Order(list[str]):
    """The repositories that runs took links from, in the order of that; ``""`` for bytes."""

    def __call__(self, item: Removed | Stayed) -> None:
        if item.kind in {"link", "blob"} and self[-1:] != [item.repository]:
            self.append(item.repository)


def run(config: RegistryConfig, **more: Any) -> Order:
    order = Order()
    collect(config, tell=order, now=later(), **more)
    return order


def run_to_failure(config: RegistryConfig, name: str, error: type[BaseException]) -> Order:
    """Collect until a run fails in the repository ``name``."""
    order = Order()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Garbage, "unlink", failing(name, lambda: error("so it is")))
        with pytest.raises(error, match="so it is"):
            collect(config, tell=order, now=later())
    return order


def state(config: RegistryConfig) -> tuple[bool, dict[str, Any]]:
    """Whether the last run has ended, and what is noted of it."""
    catalog = config.backend().open_catalog()
    try:
        found = catalog.jobs.state(COLLECTION)
    finally:
        catalog.close()
    assert found is not None
    return found.finished_at is not None, found.state


def test_after_a_kill_the_others_come_first(
    registry_of_four: RegistryServer, settings_of_four: RegistryConfig
) -> None:
    assert run_to_failure(settings_of_four, "r1", _KilledError) == ["r0", "r1"]
    ended, noted = state(settings_of_four)
    assert not ended
    assert noted["links"] == 2  # those before r1 are counted, although that run has no end
    refill(registry_of_four)
    # Bytes go in the middle, too: they are not only for runs that nobody kills.
    assert run(settings_of_four) == ["r2", "r3", "", "r0", "r1", ""]
    ended, noted = state(settings_of_four)
    assert ended
    assert (noted["links"], noted["blobs"], noted["runs"]) == (2 + 12, 16, 1)
    assert "after" not in noted
    refill(registry_of_four)
    assert run(settings_of_four) == [*NAMES, ""]


@pytest.mark.long
def test_each_repository_has_its_turn_though_every_run_is_killed(
    registry_of_four: RegistryServer, settings_of_four: RegistryConfig
) -> None:
    """Each process lives for one repository only, and each repository gets more garbage all the time."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        unlink = Garbage.unlink

        def killed(self: Garbage, key: RepositoryKey) -> Iterator[Batch]:
            for batch in unlink(self, key):
                yield batch
                if batch:
                    raise _KilledError

        patch.setattr(Garbage, "unlink", killed)
        for _ in range(8):
            refill(registry_of_four)
            order = Order()
            with pytest.raises(_KilledError):
                collect(settings_of_four, tell=order, now=later())
            found += [name for name in order if name]
    assert found == [*NAMES, *NAMES]


def test_after_a_stop_the_others_come_first(
    registry_of_four: RegistryServer, settings_of_four: RegistryConfig
) -> None:
    stop, order = threading.Event(), Order()

    def tell(item: Removed | Stayed) -> None:
        order(item)
        if item.repository == "r2":
            stop.set()

    collect(settings_of_four, tell=tell, now=later(), stop=stop)
    assert order == ["r0", "r1", "r2"]
    refill(registry_of_four)
    assert run(settings_of_four) == ["r3", "", "r0", "r1", "r2", ""]


@pytest.mark.long
def test_a_repository_that_fails_is_tried_last_and_fails_again(
    registry_of_four: RegistryServer, settings_of_four: RegistryConfig
) -> None:
    assert run_to_failure(settings_of_four, "r1", StorageError) == ["r0", "r1"]
    for failures in (1, 2, 3):
        ended, noted = state(settings_of_four)
        assert (ended, noted["failures"]) == (False, failures)
        refill(registry_of_four)
        assert run_to_failure(settings_of_four, "r1", StorageError) == ["r2", "r3", "", "r0", "r1"]


def test_a_place_of_a_repository_that_there_is_not_is_no_obstacle(
    registry_of_four: RegistryServer, settings_of_four: RegistryConfig
) -> None:
    run_to_failure(settings_of_four, "r3", _KilledError)
    assert run(settings_of_four) == [""]
    refill(registry_of_four)
    assert run(settings_of_four) == [*NAMES, ""]
