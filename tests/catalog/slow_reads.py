"""Reads that suspend, as those of a database over a network do: for tests with ``--slow-reads``."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from digestry.catalog.sqlite.read_cache import ReadCache
from digestry.catalog.sqlite.robot_reads import SqliteRobotReads

VARIABLE: Final = "DIGESTRY_TEST_SLOW_READS"
"""In the environment of the fork server: the reads of its registries suspend."""

_SECONDS: Final = (0.0, 0.0, 0.001, 0.005)
_READS: Final = ("manifest", "blob", "damaged", "repository", "tags", "mirrored_tag")


def install() -> None:
    """Let each read of this process, and of those that it forks, suspend before it looks."""
    for name in _READS:
        setattr(ReadCache, name, _slow(getattr(ReadCache, name)))
    for name in ("by_secret", "by_name"):
        setattr(SqliteRobotReads, name, _slow(getattr(SqliteRobotReads, name)))


def _slow(read: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(read)
    async def slow(*arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(random.choice(_SECONDS))
        return await read(*arguments, **options)

    return slow
