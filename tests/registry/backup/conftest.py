from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.registry.backup.support import make_root


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "root"
    make_root(root)
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """A registry's root of this test's own, which nobody serves."""
    return Path(shutil.copytree(template, tmp_path / "root"))


@pytest.fixture(autouse=True)
def _restores_to_a_directory(request: pytest.FixtureRequest) -> None:
    """Skip the test with ``--store s3``: the rows of such a store are in the catalog, which comes last."""
    if request.config.getoption("--store") == "s3":
        pytest.skip("a backup is restored to a directory")
