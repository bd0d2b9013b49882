"""The list of extensions: ``_oci/ext/discover`` (distribution-spec, extensions/_oci.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypedDict

from digestry.registry.exchange import Exchange
from digestry.registry.route import Handler, Route
from digestry.registry.service import Service

_EXTENSIONS: Final = {
    "_oci": (
        "Where a tag has pointed, newest first, deletions included.",
        "https://github.com/opencontainers/distribution-spec/pull/606",
    ),
    "_digestry": (
        "The journal, who holds a digest, advisories, what runs where, many at once.",
        "docs/http-api.md",
    ),
}


class Extension(TypedDict):
    """One extension, as the list has it."""

    name: str
    description: str
    url: str
    endpoints: list[str]


def describe(routes: Iterable[Route]) -> dict[str, list[Extension]]:
    """Return the list of extensions, each with the endpoints that ``routes`` have of it."""
    paths = dict.fromkeys(route.path.removeprefix("/v2/").removeprefix("<name>/") for route in routes)
    return {
        "extensions": [
            {
                "name": name,
                "description": description,
                "url": url,
                "endpoints": [path for path in paths if path.startswith(f"{name}/")],
            }
            for name, (description, url) in _EXTENSIONS.items()
        ]
    }


def lister(routes: Callable[[], Iterable[Route]]) -> Handler:
    """Return a handler that answers with the extensions of ``routes``."""

    async def list_extensions(service: Service, exchange: Exchange, _: str, __: str) -> None:
        await exchange.json(describe(routes()))

    return list_extensions
