"""One upstream, and one registry with many mirrors of it: what one of them suffers, the others do not."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.registry.pull_through.support import Upstream, mirroring, upstream
from tests.support import RegistryServer

_SOUND = {
    "docker.io": 'tag-ttl = "1h"\ndefault = true\nrepository = ["library/**", "own/**"]',
    "asking.test": "tag-ttl = 0",
    "asking2.test": "tag-ttl = 0",
    "fresh.test": 'tag-ttl = "1h"',
    "held.test": "tag-ttl = 0",
    "some.test": 'tag-ttl = 0\nrepository = "allowed/*"',
    "never-stale.test": 'tag-ttl = 0\nstale = "off"',
    "large.test": 'prefix = "deep/in/here"',
}
# Each is of one test: what fails is left alone for a while, and other tests would find it so.
_TROUBLED = {f"trouble{number}.test": "tag-ttl = 0" for number in range(20)}
_SILENT = {"trouble3.test": "5s", "trouble6.test": "2s", "trouble9.test": "2s"}
"""Those that say nothing, and how long they are waited for."""
_MIRRORS = {
    # A busy machine is no reason to leave an upstream alone.
    name: f'timeout = "{_SILENT.get(name, "60s")}"\n{keys}'
    for name, keys in {**_SOUND, **_TROUBLED}.items()
}


@pytest.fixture(scope="session")
def hub() -> Iterator[Upstream]:
    with upstream() as made:
        yield made


@pytest.fixture(scope="session")
def mirror(hub: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry of two worker processes."""
    sections = "\n".join(f'[mirror."{name}"]\nurl = "{hub.url}"\n{keys}\n' for name, keys in _MIRRORS.items())
    rule = '[[immutability]]\nrepository = "held.test/**"\ntag = "**"\nmode = "immutable"\n'
    with mirroring(tmp_path_factory.mktemp("mirror"), f"workers = 2\n{sections}\n{rule}") as server:
        yield server


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An upstream's repository for one test alone."""
    return "own/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
