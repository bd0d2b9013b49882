"""The S3 store keeps the contract of all stores, on a real server."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from digestry.blobs.s3.store import S3Blobs
from tests import seaweed
from tests.blobs.contract import Damage, StoreContract
from tests.blobs.s3.stores import damage as put_other_bytes
from tests.blobs.s3.stores import make_store
from tests.seaweed import S3Server


@pytest.fixture
def store(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Blobs:
    for name, value in seaweed.environment(s3_server.endpoint).items():
        monkeypatch.setenv(name, value)
    blobs = make_store(tmp_path, s3_server.config())
    blobs.prepare()
    return blobs


class TestContract(StoreContract):
    """S3Blobs keeps the contract."""

    @pytest.fixture
    def damage(self, store: S3Blobs) -> Damage:
        return partial(put_other_bytes, store)
