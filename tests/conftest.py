"""Fixtures that many rooms' tests use."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import groups, new_catalogs, seaweed
from tests.blobs import memory_server
from tests.blobs.s3 import registries
from tests.catalog import slow_reads
from tests.postgresql import Cluster, running_cluster
from tests.support import RegistryServer, running_registry

_LONGEST = 30
"""Characters that a temporary directory's path may have: sockets below it have 107 at the most."""
_REASON = 2000
"""Characters of the error of a test that is tried once more that the summary shows."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store",
        choices=["disk", "memory", "s3"],
        default="disk",
        help="where registries keep their content",
    )
    parser.addoption(
        "--in-full",
        action="store_true",
        help="migrate each new catalog, and try all of Hypothesis's examples",
    )
    parser.addoption(
        "--slow-reads",
        action="store_true",
        help="let the reads of the event loop suspend, as those of a database over a network do",
    )

    parser.addoption(
        "--nodes",
        choices=["redirect", "bytes"],
        help="let the registry that tests share be two nodes behind a balancer, whose clients are sent to the"
        " S3 server for large blobs, or not",
    )


def pytest_configure(config: pytest.Config) -> None:
    if len(tempfile.gettempdir()) > _LONGEST:
        os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"
    # Some tests open very many files, besides what tests of stores keep for the next ones.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if config.getoption("--slow-reads"):
        os.environ[slow_reads.VARIABLE] = "1"  # for the fork server
        slow_reads.install()
    if in_full := config.getoption("--in-full"):
        os.environ[new_catalogs.VARIABLE] = "1"  # for the fork server
    else:
        new_catalogs.install()
    settings.register_profile(
        "digestry",
        max_examples=100 if in_full else 40,
        deadline=None,  # a machine may be slow, and busy with other tests
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("digestry")
    if config.getoption("--store") == "memory":
        directory = tempfile.TemporaryDirectory(prefix="digestry-test-")
        config.add_cleanup(directory.cleanup)
        server = memory_server.MemoryServer(str(Path(directory.name) / "stores"))
        config.add_cleanup(server.close)
        os.environ[memory_server.VARIABLE] = server.address  # for the fork server
        memory_server.install(server.address)
    elif config.getoption("--store") == "s3":
        endpoint = os.environ.get(registries.VARIABLE)
        if endpoint is None:
            stack = contextlib.ExitStack()
            config.add_cleanup(stack.close)
            endpoint = stack.enter_context(seaweed.running_server()).endpoint
            os.environ[registries.VARIABLE] = endpoint  # for the fork server, and other test processes
        registries.install(endpoint)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Groups the tests, where several processes run them."""
    if not hasattr(config, "workerinput"):
        return (yield)
    groups.group_by_module(items)
    yield
    groups.name_groups(items)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Looks for no garbage while tests are collected: nearly all that is made then is kept."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="session")
def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryServer]:
    """One running registry for all tests of a process: each uses repositories of its own."""
    kind = request.config.getoption("--nodes")
    if kind is None:
        with running_registry() as server:
            yield server
        return
    from tests.cluster.nodes import balanced_nodes

    with balanced_nodes(tmp_path_factory.mktemp("nodes"), redirect=kind == "redirect") as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL server for all tests of a process, of whatever room: it stops after the last of them."""
    with running_cluster() as cluster:
        yield cluster


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a test was tried once more: that it passed then explains nothing."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"tried once more: {report.nodeid}", sep="_")
        terminalreporter.write_line(report.longreprtext[-_REASON:])
