"""Which images have a layer: ``_digestry/layers``, in one repository or in all."""

from __future__ import annotations

from typing import Final

from digestry.model.digest import Digest
from digestry.model.image_parts import LayerImage, LayerImages
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service

_PAGE: Final = 100
_MOST: Final = 1000


async def list_images(service: Service, exchange: Exchange, name: str, text: str) -> None:
    """Answer with the images of a repository that have a layer, those with the fewest layers first."""
    layer, limit = Digest.parse(text), _limit(exchange)
    found = await service.executors.run(
        service.stores.queries.images_with_layer, name, layer, limit=limit + 1
    )
    await exchange.json(_page(layer, found, limit))


async def list_images_anywhere(service: Service, exchange: Exchange, _: str, text: str) -> None:
    """As :func:`list_images`, over all repositories that the principal may see."""
    layer, limit = Digest.parse(text), _limit(exchange)
    visible = exchange.principal.may_see
    found = await service.executors.run(
        service.stores.catalog.images_with_layer_anywhere, layer, visible=visible, limit=limit + 1
    )
    await exchange.json(_page(layer, found, limit))


def _limit(exchange: Exchange) -> int:
    return max(1, exchange.number("n", default=_PAGE, most=_MOST))


def _page(layer: Digest, found: list[LayerImage], limit: int) -> LayerImages:
    return LayerImages(layer, tuple(found[:limit]), more=len(found) > limit)
