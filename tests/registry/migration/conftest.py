"""Registries on a disk, and places to move them to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import seaweed
from tests.postgresql import Cluster
from tests.registry.backup.support import make_root
from tests.registry.migration.support import MakePlace, Place
from tests.stores import needs_disk


@pytest.fixture(scope="session")
def s3_server() -> Iterator[seaweed.S3Server]:
    """One S3 server for all tests of a process."""
    with seaweed.running_server() as server:
        yield server


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "root"
    make_root(root)
    return root


@pytest.fixture
def new_database(postgresql: Cluster) -> Iterator[Callable[[], str]]:
    """Makes empty databases, which go with the test."""
    urls: list[str] = []

    def make() -> str:
        urls.append(postgresql.new_database())
        return urls[-1]

    yield make
    for url in urls:
        postgresql.drop_database(url)


@pytest.fixture
def old(template: Path, tmp_path: Path) -> Place:
    """A registry on the disk, of this test's own, which nobody serves."""
    root = needs_disk(Path(shutil.copytree(template, tmp_path / "root")))
    file = tmp_path / "old.toml"
    file.write_text(f'root = "{root}"\n')
    return Place(file)


@pytest.fixture
def new_place(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakePlace]:
    """Makes empty stores: in a root, ``s3`` or ``postgresql`` beside it, or ``both`` without a root."""
    places: list[Place] = []

    def make(kind: str) -> Place:
        name = f"{kind}-{os.urandom(4).hex()}"
        lines = [] if kind == "both" else [f'root = "{tmp_path / name}"']
        lines.append("[storage]")
        if kind in {"s3", "both"}:
            server: seaweed.S3Server = request.getfixturevalue("s3_server")
            for variable, value in seaweed.environment(server.endpoint).items():
                monkeypatch.setenv(variable, value)
            lines.append(f'blobs = "s3://{server.bucket}/{name}"')
        if kind in {"postgresql", "both"}:
            lines.append(f'database = "{request.getfixturevalue("new_database")()}"')
        file = tmp_path / f"{name}.toml"
        file.write_text("\n".join(lines) + "\n")
        places.append(Place(file))
        return places[-1]

    yield make
    for place in places:
        place.close()
