"""Groups of tests that one test process runs: those that share what is set up once for their module.

pytest-xdist keeps a group together if a test's ID ends with the group's name. Since pytest 9.2 what
pytest-xdist 3.8 writes into a test is not its ID any more, and groups were ignored without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest


def group_by_module(items: Sequence[pytest.Item]) -> None:
    """Put the tests into their modules' groups that use a fixture of their module's scope."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None and _shares(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def _shares(item: pytest.Item) -> bool:
    fixtures = cast("Any", item)._fixtureinfo.name2fixturedefs.values()
    return any(fixture[-1].scope in {"module", "package"} for fixture in fixtures)


def name_groups(items: Sequence[pytest.Item]) -> None:
    """Let the tests' IDs be those that pytest-xdist gave them."""
    for item in items:
        given = vars(item).get("_nodeid")
        if given is not None and given != item.nodeid:
            one = cast("Any", item)
            one._id = type(one._id).parse(given)
