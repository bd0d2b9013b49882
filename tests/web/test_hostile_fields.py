"""Every field that others write is shown as text: no page runs what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from digestry.model import media_types
from tests.support import RegistryServer, running_registry
from tests.web.browser import Browser
from tests.web.images import attach, image, openvex

EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{1337*1337}}</title></style><!--"
ALLOWED = {"src": "/static/", "href": "/", "action": "/"}


class Checker(HTMLParser):
    """Fails for an element or attribute that no template has."""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        assert tag not in {"iframe", "object", "embed", "base", "style"}
        assert not any(name.startswith("on") or name == "style" for name in values)
        for name, beginning in ALLOWED.items():
            if name in values:
                assert (values[name] or "").startswith((beginning, "#"))
        if tag == "img":
            assert values["src"] != "x"
        if tag == "script":
            assert set(values) == {"src", "defer"}


def check(page: str) -> None:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert "1787569" not in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with running_registry() as server:
        yield server


@pytest.mark.long
def test_the_fields_of_an_image_its_config_and_its_index(server: RegistryServer) -> None:
    settings = {
        "Entrypoint": [EVIL],
        "Cmd": EVIL,
        "Env": [f"A={EVIL}"],
        "User": EVIL,
        "WorkingDir": EVIL,
        "Labels": {EVIL: EVIL},
        "ExposedPorts": {EVIL: {}},
        "Volumes": {EVIL: {}},
    }
    history = [{"created_by": EVIL, "created": EVIL, "comment": EVIL} for _ in range(2)]
    manifest = image(
        server,
        "evil",
        "one",
        architecture=EVIL,
        history=history,
        settings=settings,
        annotations={EVIL: EVIL},
        artifactType="application/x+json",
    )
    digest = server.push_manifest("evil", "1", manifest)
    for path in ("/", "/r/evil", f"/r/evil@{digest}", f"/r/evil@{manifest['config']['digest']}"):
        page = Browser(server).text(path)
        check(page)
    assert "&lt;script&gt;alert(2)" in Browser(server).text(f"/r/evil@{digest}")
    other = server.push_manifest("evil", "1", image(server, "evil", "two"))
    for pair in (f"old={digest}&new={other}", f"old={other}&new={digest}"):
        page = Browser(server).text(f"/changes/evil?{pair}")
        check(page)
        assert "&lt;script&gt;alert(2)" in page


def test_the_texts_of_advisories(server: RegistryServer) -> None:
    digest = server.push_manifest("vexed", "1", image(server, "vexed", "one"))
    statement = {
        "vulnerability": {"name": EVIL, "aliases": [EVIL]},
        "status": "affected",
        "products": [{"@id": EVIL, "subcomponents": [{"@id": EVIL}]}],
        "action_statement": EVIL,
        "impact_statement": EVIL,
        "status_notes": EVIL,
    }
    attach(server, "vexed", digest, openvex(statement, author=EVIL))
    page = Browser(server).text(f"/r/vexed@{digest}")
    assert "&lt;img src=x" in page
    check(page)


def test_the_types_of_artifacts_and_layers(server: RegistryServer) -> None:
    blob = server.push_blob("types", b"x")
    for place in ("layer", "artifact"):
        kind = "application/" + "x" * 100
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": {"mediaType": kind, "digest": str(blob), "size": 1},
            "layers": [{"mediaType": kind, "digest": str(blob), "size": 1, "annotations": {EVIL: EVIL}}],
            **({"artifactType": kind} if place == "artifact" else {}),
        }
        digest = server.push_manifest("types", place, manifest)
        check(Browser(server).text(f"/r/types@{digest}"))


def test_the_place_of_a_sighting(server: RegistryServer) -> None:
    digest = server.push_manifest("seen", "1", image(server, "seen", "one"))
    seen = {"repository": "seen", "digest": str(digest), "place": EVIL, "containers": 1}
    assert server.request("POST", "/v2/_digestry/sightings", json.dumps({"sightings": [seen]})).status == 200
    other = server.push_manifest("seen", "1", image(server, "seen", "two"))
    for path in (f"/r/seen@{digest}", f"/changes/seen?old={digest}&new={other}"):
        page = Browser(server).text(path)
        assert "&lt;img src=x" in page
        check(page)


def test_the_client_that_moved_a_tag(server: RegistryServer) -> None:
    raw = json.dumps(image(server, "moved", "one")).encode()
    kind = {"Content-Type": media_types.OCI_MANIFEST, "User-Agent": EVIL}
    assert server.request("PUT", "/v2/moved/manifests/1", raw, kind).status == 201
    page = Browser(server).text("/r/moved:1")
    assert "&lt;img" in page
    check(page)


@pytest.mark.parametrize(
    "path",
    ["/", "/r/evil", "/r/evil:1", "/r/evil:{}", "/changes/evil", "/r/{}", "/{}", "/sign-in", "/search"],
)
def test_parameters_and_addresses(server: RegistryServer, path: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in EVIL.encode())
    browser = Browser(server)
    parameters = ("filter", "after", "order", "q", "next", "before", "last", "old", "new", "platform", "tag")
    for query in (*parameters, quoted):
        answer = browser.get(f"{path.format(quoted)}?{query}={quoted}")
        assert answer.status in {200, 400, 404}
        check(answer.body.decode())


def test_bytes_that_are_no_text(server: RegistryServer) -> None:
    for path in ("/%ff%fe", "/r/%00", "/?filter=%ff%fe%00", "/?%ff=1", "/r/x@sha256:%0a"):
        answer = Browser(server).get(path)
        assert answer.status in {200, 404}
        check(answer.body.decode())
