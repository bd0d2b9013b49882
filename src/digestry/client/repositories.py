"""The list of a registry's repositories (``/v2/_catalog``, distribution's docs/spec/api.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Final
from urllib.parse import urlencode

import msgspec

from digestry.client.endpoint import RegistryEndpoint
from digestry.client.extensions import UNSUPPORTED
from digestry.client.paging import pages
from digestry.errors import InvalidReference, RemoteError
from digestry.model.digest import shown
from digestry.model.reference import check_repository

_PAGE: Final = 1000
_LARGEST_PAGE: Final = 16 << 20


class _Catalog(msgspec.Struct):
    """The body of ``GET /v2/_catalog``; its entries need not be text."""

    repositories: Annotated[list[object], msgspec.Meta(max_length=1_000_000)] | None


def list_repositories(
    endpoint: RegistryEndpoint, on_invalid: Callable[[str], None] | None = None
) -> Iterator[str]:
    """Yield the names of all repositories, in the registry's order. See :meth:`Registry.repositories`."""
    # A registry may answer anonymous requests with the public part only: /v2/ gives the challenge to log in.
    endpoint.request("GET", "").close()
    for number, response in enumerate(pages(endpoint, f"_catalog?{urlencode({'n': _PAGE})}")):
        if number == 0 and response.status in UNSUPPORTED:
            raise RemoteError(
                f"{endpoint.host} does not list its repositories",
                hint="digestry tags REPO lists the tags of a repository whose name is known",
            )
        if response.status != 200:
            response.fail(f"list the repositories of {endpoint.host}")
        page = response.json(_Catalog, _LARGEST_PAGE)
        response.entries = len(page.repositories or ())
        for name in page.repositories or ():
            try:
                if not isinstance(name, str):
                    raise InvalidReference(f"{shown(str(name))} is not text")
                yield check_repository(name)
            except InvalidReference as error:
                if on_invalid is not None:
                    on_invalid(f"the registry lists an invalid repository: {error.message}")
