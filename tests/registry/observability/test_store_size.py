"""The size of the store, which one of several nodes counts for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from digestry.backend import Backend, open_backend
from digestry.catalog import clock
from digestry.registry.config import RegistryConfig
from digestry.registry.observability.audit_log import AuditLog
from digestry.registry.observability.store_size import StoreSizeJob
from tests.catalog.support import Clock, pushed


@pytest.fixture
def moment() -> Clock:
    return Clock()


@pytest.fixture
def backend(tmp_path: Path, moment: Clock) -> Backend:
    """The stores of a node, which has none of its own."""
    return replace(open_backend(tmp_path, now=moment), disk=None)


@pytest.fixture
def nodes(tmp_path: Path, backend: Backend) -> list[StoreSizeJob]:
    config = RegistryConfig(tmp_path)
    audit = AuditLog(config.log, config.scratch)
    return [StoreSizeJob(config, backend, audit) for _ in range(2)]


def tags(job: StoreSizeJob) -> int:
    return job._count_for_all().tags


def test_one_node_counts_for_all(backend: Backend, nodes: list[StoreSizeJob], moment: Clock) -> None:
    catalog = backend.open_catalog()
    catalog.migrate()
    assert [tags(job) for job in nodes] == [0, 0]
    pushed(catalog, "x", ["a", "b"])
    assert [tags(job) for job in nodes] == [0, 0]  # it was counted a moment ago
    moment.now += 3600 * clock.SECOND
    assert [tags(job) for job in nodes] == [2, 2]
    catalog.close()


@pytest.mark.long
def test_a_note_of_another_version_is_written_anew(backend: Backend, nodes: list[StoreSizeJob]) -> None:
    catalog = backend.open_catalog()
    catalog.migrate()
    pushed(catalog, "x", ["a"])
    backend.coordination.notes.write("store-size", b'{"due_at": 1, "size": {"of": 2}}')
    assert [tags(job) for job in nodes] == [1, 1]
    catalog.close()
