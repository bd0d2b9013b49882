"""Search: names, tags, digests and their beginnings, and nothing that its visitor may not read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from digestry.model.digest import Digest
from tests.registry.access.support import of
from tests.support import RegistryServer, running_registry, wait_until
from tests.web.browser import Browser, signed_in
from tests.web.images import attach, image, openvex, push_index


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with running_registry() as server:
        push_index(server, "team/golftrack", "1.5", "one")
        server.push_manifest("team/other", "1.5-rc1", image(server, "team/other", "two"))
        yield server


def digest_of(server: RegistryServer, name: str, tag: str) -> Digest:
    answer = server.request("HEAD", f"/v2/{name}/manifests/{tag}")
    return Digest.parse(answer.headers["docker-content-digest"])


@pytest.mark.long
def test_a_part_of_a_name_and_the_beginning_of_a_tag(server: RegistryServer) -> None:
    browser = Browser(server)
    assert 'href="/r/team/golftrack"' in browser.text("/search?q=GOLF")
    page = browser.text("/search?q=1.5")
    assert 'href="/r/team/golftrack:1.5"' in page
    assert 'href="/r/team/other:1.5-rc1"' in page
    assert "Nothing that you may see" in browser.text("/search?q=%25")


def test_a_reference_finds_its_tag_in_its_repository(server: RegistryServer) -> None:
    page = Browser(server).text(f"/search?q=127.0.0.1:{server.port}/team/golftrack:1.5")
    assert 'href="/r/team/golftrack:1.5"' in page
    assert "team/other" not in page


@pytest.mark.parametrize("cut", [7, 12, 40])
def test_the_beginning_of_a_digest(server: RegistryServer, cut: int) -> None:
    digest = digest_of(server, "team/golftrack", "1.5")
    for text in (digest.encoded[:cut], f"sha256:{digest.encoded[:cut]}", digest.encoded[:cut].upper()):
        assert f'href="/r/team/golftrack@{digest}"' in Browser(server).text(f"/search?q={text}")


def test_a_whole_digest_leads_to_its_page(server: RegistryServer) -> None:
    digest = digest_of(server, "team/golftrack", "1.5")
    for text in (str(digest), digest.encoded, f"team/golftrack:1.5@{digest}"):
        answer = Browser(server).request("GET", f"/search?q={text}")
        assert (answer.status, answer.headers["location"]) == (303, f"/r/team/golftrack@{digest}")


def test_a_layer_is_found_in_every_repository_that_has_it(server: RegistryServer) -> None:
    layer = Digest.of(b"the base")
    page = Browser(server).text(f"/search?q={layer}")
    for name in ("team/golftrack", "team/other"):
        assert f'href="/r/{name}@{layer}"' in page


@pytest.mark.long
def test_a_vulnerability_finds_the_images_that_advisories_are_about(server: RegistryServer) -> None:
    digest = digest_of(server, "team/golftrack", "1.5")
    statement = {
        "vulnerability": {"name": "CVE-2026-4711"},
        "status": "affected",
        "action_statement": "Update.",
    }
    attach(
        server, "team/golftrack", digest, openvex({**statement, "products": [{"@id": "pkg:oci/golftrack"}]})
    )
    browser = Browser(server)
    wait_until(lambda: b"CVE-2026-4711" in _row(browser, "cve-2026-4711"), what="the advisory's row")
    assert f'href="/r/team/golftrack@{digest}"'.encode() in _row(browser, "CVE-2026-4711")
    assert not _row(browser, "CVE-2026-471")


@pytest.mark.long
def test_a_vulnerability_may_have_a_colon_in_its_name(server: RegistryServer) -> None:
    digest = digest_of(server, "team/golftrack", "1.5")
    statement = {"vulnerability": {"name": "RHSA-2026:4711"}, "status": "fixed"}
    products = [{"@id": "pkg:oci/golftrack"}]
    attach(server, "team/golftrack", digest, openvex({**statement, "products": products}))
    browser = Browser(server)
    wait_until(lambda: b"RHSA-2026:4711" in _row(browser, "RHSA-2026:4711"), what="the advisory's row")
    href = 'href="/vulnerability?id=RHSA-2026%3A4711"'
    assert href.encode() in _row(browser, "RHSA-2026:4711")
    assert href in browser.text(f"/r/team/golftrack@{digest}")


def _row(browser: Browser, text: str) -> bytes:
    """The table of advisories that a search finds."""
    return browser.get(f"/search?q={text}").body.partition(b"<h2>Advisories")[2]


@pytest.mark.long
def test_nothing_of_what_the_visitor_may_not_read_is_found(guarded_server: RegistryServer) -> None:
    carol = of(guarded_server, "carol")
    secret = carol.request("HEAD", "/v2/secret/x/manifests/1").headers["docker-content-digest"]
    for browser in (Browser(guarded_server), signed_in(guarded_server, "alice")):
        for text in ("secret", "1", "secret/x:1", secret, secret[:20], f"secret/x@{secret}"):
            answer = browser.get(f"/search?q={text}")
            assert answer.status == 200
            assert b'"/r/secret' not in answer.body
    seen = signed_in(guarded_server, "carol").get(f"/search?q={secret}")
    assert b"secret/x" in seen.body


def test_strange_texts_find_nothing(server: RegistryServer) -> None:
    browser = Browser(server)
    for text in ("", "@", ":", "@@", "a:b:c", "sha256:", "sha256:zz", "%00", "%ff", "x" * 400, "no/such:1"):
        assert browser.get(f"/search?q={text}").status == 200
