"""The S3 store keeps the contract of all stores, on a real server."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from digestry.blobs.s3.config import S3Config
from digestry.blobs.s3.store import S3Blobs
from tests.blobs.contract import Damage, StoreContract
from tests.blobs.s3.stores import damage as put_other_bytes
from tests.blobs.s3.stores import make_store


@pytest.fixture
def store(s3_config: S3Config, tmp_path: Path) -> S3Blobs:
    blobs = make_store(tmp_path, s3_config)
    blobs.prepare()
    return blobs


class TestContract(StoreContract):
    """S3Blobs keeps the contract."""

    @pytest.fixture
    def damage(self, store: S3Blobs) -> Damage:
        return partial(put_other_bytes, store)
