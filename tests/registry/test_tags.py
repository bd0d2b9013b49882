"""Tags and repositories: their lists, their order, their pages to the very end."""

from __future__ import annotations

import json
import os

import pytest

from digestry.model.digest import Digest
from tests.registry.support import events, every_page, joined, next_path, put_manifest
from tests.support import RegistryServer

TAGS = ["0", "1.10", "1.9", "B", "Latest", "_x", "a", "a-b", "a.b", "b", "latest", "zz"]


@pytest.fixture(scope="module")
def tagged(registry: RegistryServer) -> str:
    name = "tags/listed"
    raw = json.dumps(registry.image(name)).encode()
    shuffled = TAGS[1::2] + TAGS[::2]
    query = "&".join(f"tag={tag}" for tag in shuffled)
    assert put_manifest(registry, name, f"{Digest.of(raw)}?{query}", raw).status == 201
    return name


@pytest.mark.long
def test_all_in_the_order_of_their_bytes(registry: RegistryServer, tagged: str) -> None:
    answer = registry.request("GET", f"/v2/{tagged}/tags/list")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"name": tagged, "tags": TAGS}
    assert sorted(TAGS) == TAGS
    assert "link" not in answer.headers
    head = registry.request("HEAD", f"/v2/{tagged}/tags/list")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 11, 12, 13, 10**17])
def test_pages_lead_to_the_very_end(registry: RegistryServer, tagged: str, size: int) -> None:
    pages = every_page(registry, f"/v2/{tagged}/tags/list?n={size}")
    assert joined(pages, "tags") == TAGS
    assert len(pages) == -(-len(TAGS) // size)
    assert all(len(page.json()["tags"]) == size for page in pages[:-1])


@pytest.mark.parametrize("last", ["", "0", "a", "a-", "between", "zz", "zzz", "%C3%A4", "%00"])
def test_last(registry: RegistryServer, tagged: str, last: str) -> None:
    text = last.replace("%C3%A4", "\u00e4").replace("%00", "\0")
    wanted = [tag for tag in TAGS if tag > text]
    assert registry.request("GET", f"/v2/{tagged}/tags/list?last={last}").json()["tags"] == wanted
    pages = every_page(registry, f"/v2/{tagged}/tags/list?last={last}&n=3")
    assert joined(pages, "tags") == wanted


def test_none_wanted(registry: RegistryServer, tagged: str) -> None:
    answer = registry.request("GET", f"/v2/{tagged}/tags/list?n=0")
    assert (answer.status, answer.json()["tags"]) == (200, [])
    assert "link" not in answer.headers


@pytest.mark.parametrize("size", ["-1", "x", "1.5", "", "%B2", "1e3", "9" * 30, "1&n=2", "+1"])
def test_bad_sizes(registry: RegistryServer, tagged: str, size: str) -> None:
    for path in (f"/v2/{tagged}/tags/list", "/v2/_catalog", f"/v2/{tagged}/_oci/tag-history/a"):
        answer = registry.request("GET", f"{path}?n={size}")
        assert answer.status == 400, (path, answer.body)
        assert "Traceback" not in answer.body.decode()


def test_the_link_keeps_other_parameters(registry: RegistryServer, tagged: str) -> None:
    answer = registry.request("GET", f"/v2/{tagged}/tags/list?n=2&x=%26%20")
    following = next_path(answer.headers)
    assert following is not None
    assert "x=%26+" in following
    assert registry.request("GET", following).json()["tags"] == TAGS[2:4]


def test_an_unknown_repository(registry: RegistryServer) -> None:
    answer = registry.request("GET", "/v2/tags/nowhere/tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


def test_a_repository_whose_tags_are_gone(registry: RegistryServer) -> None:
    registry.push_image("tags/emptied", "t")
    assert registry.request("DELETE", "/v2/tags/emptied/manifests/t").status == 202
    assert registry.request("GET", "/v2/tags/emptied/tags/list").json() == {
        "name": "tags/emptied",
        "tags": [],
    }


def test_a_moved_tag_is_listed_once(registry: RegistryServer) -> None:
    name = "tags/moved"
    digests = [registry.push_image(name, "t", os.urandom(10)) for _ in range(3)]
    assert registry.request("GET", f"/v2/{name}/tags/list").json()["tags"] == ["t"]
    head = registry.request("HEAD", f"/v2/{name}/manifests/t")
    assert head.headers["docker-content-digest"] == str(digests[-1])
    moves = [(event.get("fromDigest"), event.get("toDigest")) for event in events(registry, name)]
    assert moves == [
        (None, str(digests[0])),
        (str(digests[0]), str(digests[1])),
        (str(digests[1]), str(digests[2])),
    ]
    for digest in digests:  # all of them can still be pulled
        assert registry.request("GET", f"/v2/{name}/manifests/{digest}").status == 200


def test_catalog(registry: RegistryServer) -> None:
    names = ["tags/catalog/a", "tags/catalog/a-b", "tags/catalog/a/c", "tags/catalog/b"]
    for name in reversed(names):
        registry.push_image(name, "t")
    registry.request("POST", "/v2/tags/catalog/only-an-upload/blobs/uploads/")
    listed = joined(every_page(registry, "/v2/_catalog?n=3", most=1000), "repositories")
    assert listed == sorted(listed)
    assert [name for name in listed if name.startswith("tags/catalog/")] == names
    answer = registry.request("GET", "/v2/_catalog?n=2&last=tags/catalog/a")
    assert answer.json()["repositories"] == names[1:3]
    assert registry.request("GET", "/v2/_catalog?n=0").json() == {"repositories": []}
    assert registry.request("HEAD", "/v2/_catalog").status == 200
