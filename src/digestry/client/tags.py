"""The list of a repository's tags (distribution-spec, "Listing Tags")."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Final
from urllib.parse import urlencode

import msgspec

from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.paging import pages
from digestry.errors import InvalidReference
from digestry.model.digest import shown
from digestry.model.reference import check_tag

_PAGE: Final = 1000
_LARGEST_PAGE: Final = 16 << 20


class _TagList(msgspec.Struct):
    """The body of ``GET /v2/<name>/tags/list``; its entries need not be text."""

    tags: Annotated[list[object], msgspec.Meta(max_length=1_000_000)] | None


def list_tags(
    endpoint: RepositoryEndpoint,
    on_invalid: Callable[[str], None] | None = None,
    pace: Callable[[], None] | None = None,
) -> Iterator[str]:
    """Yield all tags, in the registry's order. See :meth:`Repository.tags`."""
    for response in pages(endpoint, f"tags/list?{urlencode({'n': _PAGE})}", pace):
        if response.status != 200:
            response.fail(f"list the tags of {endpoint.name}")
        page = response.json(_TagList, _LARGEST_PAGE)
        response.entries = len(page.tags or ())
        for tag in page.tags or ():
            try:
                if not isinstance(tag, str):
                    raise InvalidReference(f"{shown(str(tag))} is not text")
                yield check_tag(tag)
            except InvalidReference as error:
                if on_invalid is not None:
                    on_invalid(f"the registry lists an invalid tag: {error.message}")
