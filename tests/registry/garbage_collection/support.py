"""What the tests of collection share: a registry in which nothing is kept for long, and its runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from digestry.catalog import clock
from digestry.catalog.removals import Removed, Stayed
from digestry.registry.config import RegistryConfig, load
from digestry.registry.garbage_run import CollectionCounts
from tests.support import RegistryServer

AT_ONCE: Final = """
[collection]
every = "off"
lease = "600s"
untagged = "0s"
sighted = "0s"
"""


def config(server: RegistryServer, settings: Path) -> RegistryConfig:
    return load(settings, {"root": server.root})


def later(seconds: float = 3600) -> clock.Clock:
    """A clock that runs ahead: by it, all leases are over."""
    return lambda: clock.now() + int(seconds * clock.SECOND)


def gathered(
    run: Callable[..., CollectionCounts], config: RegistryConfig, **more: Any
) -> list[Removed | Stayed]:
    """What a run tells of, when all leases are over."""
    items: list[Removed | Stayed] = []
    run(config, tell=items.append, now=later(), **more)
    return items
