"""The servers that nodes need, one of each for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import seaweed
from tests.cluster.nodes import Nodes, registry_nodes
from tests.postgresql import Cluster
from tests.support import RegistryServer


@pytest.fixture(scope="session")
def s3() -> Iterator[seaweed.S3Server]:
    with seaweed.running_server() as server:
        yield server


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory, postgresql: Cluster, s3: seaweed.S3Server
) -> Iterator[Nodes]:
    """A registry whose nodes a module's tests start."""
    with registry_nodes(tmp_path_factory.mktemp("nodes"), postgresql, s3) as found:
        yield found


@pytest.fixture(scope="module")
def three(nodes: Nodes) -> tuple[RegistryServer, RegistryServer, RegistryServer]:
    """Three nodes that started on an empty database, one after the other."""
    return nodes.start(), nodes.start(), nodes.start()
