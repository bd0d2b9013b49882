"""The start, the periodic tasks and the shutdown of one worker process's service."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from digestry.errors import DigestryError
from digestry.registry.access.gate import Gate
from digestry.registry.sequencer import Sequencer
from digestry.registry.service import Service
from digestry.registry.webhook_dispatcher import WebhookDispatcher

log: Final = logging.getLogger("digestry.registry")

_SWEEP_INTERVAL: Final = 3600.0
_WATCH_INTERVAL: Final = 1.0
_LOGINS_END_SECONDS: Final = 60.0
"""The longest that a request waits for its client's authentication, docs/registry.md."""


class Lifecycle:
    """Starts and stops a service, and does its periodic work in between. On the event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._webhooks = _dispatcher(service)
        self._sequencer = Sequencer(service.stores.coordination, service.stores.catalog.sequencing)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the periodic work. Raises :class:`InvalidConfiguration`, :class:`StorageError`."""
        service = self._service
        service.gate.start()
        self._sequencer.start()
        self._webhooks.start()
        if service.mirrors is not None:
            service.mirrors.start()
        loop = asyncio.get_running_loop()
        for work in (self._sweep_forever(), self._watch_forever(), service.observer.publish_forever()):
            self._tasks.append(loop.create_task(work))

    async def change(self, service: Service) -> None:
        """Go on with ``service``, which has another configuration. Requests may still use the earlier one."""
        earlier, self._service = self._service, service
        if service.config.webhooks != earlier.config.webhooks:
            await asyncio.to_thread(self._webhooks.stop)
            self._webhooks = _dispatcher(service)
            self._webhooks.start()
        if service.gate is not earlier.gate:
            self._tasks.append(asyncio.get_running_loop().create_task(_close_later(earlier.gate)))

    async def stop(self) -> None:
        """Stop the periodic work, and wait for tasks under way."""
        service = self._service
        for task in self._tasks:
            task.cancel()
        self._sequencer.stop()
        self._webhooks.stop()
        if service.mirrors is not None:
            await asyncio.to_thread(service.mirrors.stop)
        service.executors.shutdown()
        await service.stores.close()
        await service.gate.close()
        service.observer.close()

    async def _watch_forever(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_INTERVAL)
            try:
                await self._service.gate.refresh()
            except DigestryError as error:
                log.error("looking for changed users and keys failed; trying again: %s", error.message)
            except Exception:
                log.exception("looking for changed users and keys failed; trying again")

    async def _sweep_forever(self) -> None:
        while True:
            service = self._service
            try:
                if not service.config.read_only:
                    await service.executors.run(service.upload_sweep.run)
            except DigestryError as error:
                log.error("dropping stale uploads failed; trying again: %s", error.message)
            except Exception:
                log.exception("dropping stale uploads failed; trying again")
            await asyncio.sleep(min(_SWEEP_INTERVAL, service.config.upload_timeout / 2))


def _dispatcher(service: Service) -> WebhookDispatcher:
    stores = service.stores
    webhooks = service.config.webhooks
    return WebhookDispatcher(stores.coordination, stores.catalog.delivery_queue, webhooks, now=service.now)


async def _close_later(gate: Gate) -> None:
    """Close a gate that no new request gets, once logins under way have ended."""
    await asyncio.sleep(_LOGINS_END_SECONDS)
    await gate.close()
