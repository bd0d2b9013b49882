"""The stores in memory, with which the registry's tests can run, keep the contract themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blobs.contract import Damage, StoreContract
from tests.blobs.memory import MemoryBlobs
from tests.blobs.memory_server import MemoryServer, RemoteBlobs


class TestMemory(StoreContract):
    """MemoryBlobs keeps the contract."""

    @pytest.fixture
    def store(self) -> MemoryBlobs:
        return MemoryBlobs()

    @pytest.fixture
    def damage(self, store: MemoryBlobs) -> Damage:
        return store.damage


class TestRemote(StoreContract):
    """RemoteBlobs keeps the contract."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[RemoteBlobs]:
        server = MemoryServer(str(tmp_path / "socket"))
        blobs = RemoteBlobs(server.address, tmp_path / "root")
        blobs.prepare()
        yield blobs
        server.close()

    @pytest.fixture
    def damage(self, store: RemoteBlobs) -> Damage:
        return store.damage
