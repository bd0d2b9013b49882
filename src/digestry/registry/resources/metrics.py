"""The metrics of all processes: ``/metrics``."""

from __future__ import annotations

from digestry.registry.exchange import Exchange
from digestry.registry.service import Service


async def get_metrics(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer a scrape with the metrics."""
    await service.observer.publish()
    async with service.scrape.turn:
        body, content_type = await service.executors.run(
            service.scrape.text, exchange.header(b"accept") or ""
        )
    await exchange.respond(200, [("Content-Type", content_type), ("Cache-Control", "no-store")], body)
