"""Pages leave threads for the API, however many are asked for at once."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

from digestry.registry.executors import Executors
from digestry.registry.page_host import PageHost
from tests.support import PATIENCE


def test_slow_pages_leave_threads_for_the_api() -> None:
    executors = Executors(cast("Any", None), cast("Any", None))
    host = PageHost(lambda: cast("Any", SimpleNamespace(executors=executors)))
    go_on = threading.Event()

    async def ask() -> None:
        pages = [asyncio.create_task(host.run(go_on.wait, PATIENCE)) for _ in range(100)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(executors.run(lambda: "a pull"), PATIENCE / 2) == "a pull"
        go_on.set()
        assert await asyncio.gather(*pages) == [True] * 100

    try:
        asyncio.run(ask())
    finally:
        go_on.set()
        executors.shutdown()
