"""The table of routes: what it finds, and that the pages and the list of extensions say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from digestry.registry.resources.discovery import describe
from digestry.registry.route import UNKNOWN, Route
from digestry.registry.routes import ROUTES, find, table

DOCS = Path(__file__).parents[2] / "docs"
VALUES = {"<name>": "team/app", "<reference>": "1.5", "<tag>": "1.5", "<id>": "0", "<prefix>": "0123456"}


def example(route: Route) -> str:
    return re.sub("<[a-z]+>", lambda found: VALUES.get(found[0], f"sha256:{'0' * 64}"), route.path)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_route_is_found_by_its_own_path(route: Route) -> None:
    found, name, last = find(example(route))
    assert found is route
    assert name == ("team/app" if "<name>" in route.path and route.metric != "discover" else name)
    if route.path.endswith(">"):  # a deep one too: the example has one segment
        assert last == example(route).rpartition("/")[2]


@pytest.mark.parametrize(
    ("path", "metric", "name", "last"),
    [
        ("/v2/a/manifests/b/manifests/c", "manifest", "a/manifests/b", "c"),
        ("/v2/blobs/uploads/blobs/uploads/", "upload", "blobs/uploads", ""),
        ("/v2/tags/list/tags/list", "tags", "tags/list", "list"),
        ("/v2/a/_digestry/journal/", "journal", "a", ""),
        ("/v2/a/_digestry/tag/b/c", "tag", "a", "b/c"),
        ("/v2/a/_oci/tag-history/", "history", "a", ""),
        ("/v2/_digestry/whose/", "whose", "", ""),
        ("/v2/manifests/1", "manifest", "", "1"),
    ],
)
def test_a_path_is_read_from_its_end(path: str, metric: str, name: str, last: str) -> None:
    route, *rest = find(path)
    assert (route.metric, *rest) == (metric, name, last)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/v1/", "/v2/x", "/v2/x/tags/", "/v2/x/uploads/y", "/v2/_digestry/none", "/v2/_digestry/"),
        *("/v2/x/_oci/none", "/v2/x/_oci/tag-history", "/tokens", "/metrics/x"),
    ],
)
def test_a_path_that_leads_nowhere(path: str) -> None:
    assert find(path) == (UNKNOWN, "", "")


@pytest.mark.parametrize("what", ["none", "holders/", "holders", "journal/x", ""])
def test_an_extension_that_there_is_not_is_not_a_path_that_there_is_not(what: str) -> None:
    route, name, _ = find(f"/v2/a/_digestry/{what}")
    assert (route.path, route.metric, name, route.allow) == ("", "other", "a", "GET, HEAD")


def test_no_two_routes_have_one_path() -> None:
    assert len({route.path for route in ROUTES}) == len(ROUTES)


def test_only_what_changes_something_has_an_audit_event() -> None:
    for route in ROUTES:
        for operation in route.operations.values():
            writes = operation.method not in {"GET", "HEAD"} and route.changes
            assert bool(operation.audit_event) == writes, (route.path, operation.method)
            assert route.audited or not operation.audit_event


def test_the_page_of_the_api_has_the_table() -> None:
    assert table() in (DOCS / "http-api.md").read_text()


def test_the_page_of_observability_names_every_route() -> None:
    page = (DOCS / "observability.md").read_text()
    named = set(re.findall("`([a-z]+)`", page.partition("`route` is one of ")[2].partition(".\n")[0]))
    assert {route.metric for route in ROUTES} | {UNKNOWN.metric} == named


def test_the_list_of_extensions_has_their_routes() -> None:
    listed = {path for one in describe(ROUTES)["extensions"] for path in one["endpoints"]}
    tails = {re.sub("^/v2/(<name>/)?", "", route.path) for route in ROUTES}
    assert listed == {tail for tail in tails if tail.startswith(("_oci/", "_digestry/"))}
    assert {"_oci/tag-history/<tag>", "_digestry/whose/<digest>", "_digestry/resolve"} < listed
