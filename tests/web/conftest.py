from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registry.access.support import guarded, of
from tests.support import RegistryServer


@pytest.fixture(scope="package")
def guarded_server() -> Iterator[RegistryServer]:
    """Users, rules, and an image in ``team/app``, ``bob/tool``, ``public/base`` and ``secret/x``."""
    with guarded() as server:
        for name in ("team/app", "bob/tool", "public/base", "secret/x"):
            assert of(server, "carol").push_image(name, "1", name.encode()).status == 201
        yield server
