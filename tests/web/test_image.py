"""A digest's page: indexes, images, blobs, and what is known of them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.advisories.signed import RECORDED
from tests.registry.access.support import basic, guarded
from tests.support import (
    RegistryServer,
    Response,
    descriptor,
    run_digestry,
    running_registry,
    start_registry,
)
from tests.web.browser import Browser, signed_in
from tests.web.images import attach, image, openvex, push_index


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with running_registry() as server:
        yield server


def plain(page: str) -> str:
    """What somebody reads of a page, in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", page.partition("<main")[2]).split())


@pytest.mark.long
def test_an_index_has_its_platforms_and_is_pulled_by_tag_and_digest(server: RegistryServer) -> None:
    digest = push_index(server, "app", "1.0", "one")
    page = Browser(server).text(f"/r/app@{digest}")
    assert f"docker pull 127.0.0.1:{server.port}/app:1.0@{digest}" in page
    assert f'data-copy="docker pull 127.0.0.1:{server.port}/app:1.0@{digest}"' in page
    text = plain(page)
    assert "Platforms 3" in text
    assert "linux/amd64" in text
    assert "linux/arm64" in text
    assert "attestation" in text
    assert "points here now" in text


def test_an_image_has_its_layers_with_the_steps_that_made_them(server: RegistryServer) -> None:
    digest = server.push_manifest("app", "2.0", image(server, "app", "two"))
    text = plain(Browser(server).text(f"/r/app@{digest}"))
    base = Digest.of(b"the base").encoded
    at = [text.index(part) for part in (base, "ADD file:", "no layer", "CMD [", "RUN install curl")]
    assert at == sorted(at)
    assert "Entry point /run" in text
    assert "LANG=C.UTF-8" in text


def test_an_image_whose_history_does_not_fit_shows_its_layers_alone(server: RegistryServer) -> None:
    digest = server.push_manifest("app", "odd", image(server, "app", "odd", history=[{"created_by": "x"}]))
    text = plain(Browser(server).text(f"/r/app@{digest}"))
    assert Digest.of(b"the base").encoded in text
    assert media_types.OCI_LAYER in text


def test_a_layer_says_which_images_have_it(server: RegistryServer) -> None:
    digest = server.push_manifest("layers", "1", image(server, "layers", "one"))
    page = Browser(server).text(f"/r/layers@{Digest.of(b'the base')}")
    assert "Layer" in plain(page)
    assert "No tag pointed here" not in page
    assert f'href="/r/layers@{digest}"' in page


def test_a_tag_that_moved_away_and_a_deleted_manifest_are_remembered(server: RegistryServer) -> None:
    first = server.push_manifest("past", "1", image(server, "past", "one"))
    server.push_manifest("past", "1", image(server, "past", "two"))
    page = Browser(server).text(f"/r/past@{first}")
    assert f"docker pull 127.0.0.1:{server.port}/past@{first}" in page
    assert "points here now" not in page
    assert 'href="/r/past:1"' in page
    assert server.request("DELETE", f"/v2/past/manifests/{first}").status == 202
    page = Browser(server).text(f"/r/past@{first}")
    assert "was deleted on" in page
    assert "docker pull" not in page


def test_an_advisory_on_an_image_an_index_and_a_layer_is_on_the_page_of_what_it_reaches(
    server: RegistryServer,
) -> None:
    index = push_index(server, "vex", "1", "one")
    raw = server.request("GET", f"/v2/vex/manifests/{index}", headers={"Accept": media_types.OCI_INDEX})
    child = Digest.parse(raw.json()["manifests"][0]["digest"])
    attach(
        server,
        "vex",
        index,
        openvex(
            {
                "vulnerability": {"name": "CVE-2026-1"},
                "status": "affected",
                "products": [{"@id": "pkg:oci/vex"}],
                "action_statement": "Update.",
            }
        ),
    )
    attach(
        server,
        "vex",
        Digest.of(b"the base"),
        openvex(
            {
                "vulnerability": {"name": "CVE-2026-2"},
                "status": "under_investigation",
                "products": [{"@id": "pkg:oci/vex"}],
            }
        ),
    )
    text = plain(Browser(server).text(f"/r/vex@{child}"))
    assert text.index("CVE-2026-1") < text.index("CVE-2026-2")
    assert "affected" in text
    assert "under investigation" in text
    assert "Update." in text
    assert "unsigned" in text
    assert "CVE-2026-2" not in plain(Browser(server).text(f"/r/vex@{index}"))


def test_a_good_word_about_a_layer_is_none_about_the_image(server: RegistryServer) -> None:
    manifest = image(server, "layered", "x")
    digest = server.push_manifest("layered", "1", manifest)
    layer = Digest.parse(manifest["layers"][0]["digest"])
    bad = {"vulnerability": {"name": "CVE-2026-71"}, "status": "affected"}
    attach(server, "layered", digest, openvex(bad))
    good = {
        "vulnerability": {"name": "CVE-2026-71"}, "status": "not_affected",
        "impact_statement": "fine", "timestamp": "2026-11-25T10:00:00Z",
    }  # fmt: skip
    attach(server, "layered", layer, openvex(good, author="somebody else"))
    page = Browser(server).text(f"/r/layered@{digest}")
    states = re.findall(r'<span class="state \w*">(affected|not affected)</span>', page)
    assert states == ["affected"]
    assert "not affected" in Browser(server).text(f"/r/layered@{layer}")


def test_an_advisory_that_cannot_be_read_is_mentioned(server: RegistryServer) -> None:
    digest = server.push_manifest("broken", "1", image(server, "broken", "one"))
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "artifactType": media_types.IN_TOTO,
        "manifests": [],
        "subject": descriptor(media_types.OCI_MANIFEST, digest, 1),
        "annotations": {media_types.PREDICATE_TYPE: "https://openvex.dev/ns/v0.2.0"},
    }
    raw = json.dumps(manifest).encode()
    server.push_manifest("broken", str(Digest.of(raw)), raw)
    assert "1 advisory could not be read here" in plain(Browser(server).text(f"/r/broken@{digest}"))


def test_referrers_and_annotations_are_listed(server: RegistryServer) -> None:
    annotations = {"org.opencontainers.image.source": "https://git.example/app"}
    digest = server.push_manifest("notes", "1", image(server, "notes", "one", annotations=annotations))
    referrer = attach(server, "notes", digest, openvex())
    page = Browser(server).text(f"/r/notes@{digest}")
    assert f'href="/r/notes@{referrer}"' in page
    assert "https://git.example/app" in plain(page)
    assert 'href="https://git.example' not in page  # whoever pushes does not make links here


def test_what_never_was_there_is_not_found(server: RegistryServer) -> None:
    browser = Browser(server)
    server.push_image("here", "1")
    assert browser.get(f"/r/here@{Digest.of(b'nothing')}").status == 404
    assert browser.get("/r/here@sha256:abc").status == 404
    assert browser.get("/r/here@sha512:" + "a" * 64).status == 400


@pytest.mark.long
def test_what_counts_is_what_the_configuration_trusts(tmp_path: Path) -> None:
    shutil.copy(RECORDED / "cosign.pub", tmp_path)
    configuration = tmp_path / "registry.toml"
    rule = '[[advisories.rules]]\nstatuses = ["fixed"]\nsigners = ["team"]\n'
    configuration.write_text(f'[advisories.trusted-keys]\nteam = "cosign.pub"\n{rule}')
    server = start_registry(tmp_path / "root", "--config", str(configuration))
    try:
        digest = server.push_manifest("signed", "1", image(server, "signed", "one"))
        name = f"{server.host}/signed@{digest}"
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COSIGN_PASSWORD": "correct-horse"}
        add = ("advisory", "add", name, "--status", "fixed", "--id")
        assert run_digestry(*add, "CVE-1", env=environment, timeout=30).returncode == 0
        key = str(RECORDED / "cosign.key")
        signed = run_digestry(*add, "CVE-2", "--key", key, env=environment, timeout=30)
        assert signed.returncode == 0, signed.stderr
        text = plain(Browser(server).text(f"/r/signed@{digest}"))
        assert "signed by team" in text
        assert "CVE-2" in text
        assert "CVE-1" not in text
        assert "A statement does not count: only team may state fixed." in text
    finally:
        server.stop()


class AsCarol(RegistryServer):
    """A registry with users, asked by one who may do everything."""

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        return super().request(method, path, body, {**basic("carol"), **(headers or {})})


def test_an_advisory_on_a_layer_is_shown_from_the_repositories_that_a_visitor_may_read() -> None:
    with guarded() as guarded_server:
        as_carol = AsCarol(guarded_server.host, guarded_server.process, guarded_server.root)
        manifests = {}
        for name in ("public/base", "secret/base", "team/app"):
            content = image(as_carol, name, name)  # they share their first layer
            manifests[name] = as_carol.push_manifest(name, "1", content)
            layer = Digest.parse(content["layers"][0]["digest"])
        for name in ("public/base", "secret/base"):
            for status, number in (("affected", 1), ("not_affected", 2)):
                statement = {
                    "vulnerability": {"name": f"CVE-2026-{number}-{name.partition('/')[0]}"},
                    "status": status,
                    "impact_statement": "none",
                }
                attach(as_carol, name, layer, openvex(statement, author="the base's team"))
        path = f"/r/team/app@{manifests['team/app']}"
        carol, alice = (signed_in(guarded_server, user).text(path) for user in ("carol", "alice"))
        for page, shown in ((carol, True), (alice, False)):
            text = plain(page)
            assert "CVE-2026-1-public" in text
            assert f'href="/r/public/base@{layer}"' in page
            assert "stated in public/base" in text
            assert ("CVE-2026-1-secret" in text) == shown
            assert ("secret/base" in page) == shown
            assert "CVE-2026-2" not in text  # a good word about a layer says nothing of the image
        # The page of the layer in that repository says all of it.
        text = plain(signed_in(guarded_server, "alice").text(f"/r/team/app@{layer}"))
        assert "CVE-2026-1-public" in text
        assert "CVE-2026-2-public" in text
        assert "secret" not in text
