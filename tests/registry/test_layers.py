"""Layers: which images have one, and what refers to one, over all repositories of a registry."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.registry.test_resolution import attach, push_index, resolve
from tests.support import RegistryServer, descriptor


def push(registry: RegistryServer, name: str, tag: str, *layers: bytes) -> Digest:
    document = registry.image(name, layers[0])
    document["layers"] = [
        descriptor(media_types.OCI_LAYER, registry.push_blob(name, layer), len(layer)) for layer in layers
    ]
    document["annotations"] = {"name": f"{name}:{tag}"}
    return registry.push_manifest(name, tag, document)


def images(registry: RegistryServer, layer: Digest, name: str = "", query: str = "") -> dict[str, Any]:
    where = f"/v2/{name}/_digestry" if name else "/v2/_digestry"
    answer = registry.request("GET", f"{where}/layers/{layer}{query}")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    assert found["layer"] == str(layer)
    return found


def test_the_images_with_a_layer_the_smallest_first(registry: RegistryServer) -> None:
    one, two = os.urandom(8), os.urandom(8)
    layer = Digest.of(one)
    app = push(registry, "layers/app", "1", one, two)
    base = push(registry, "layers/base", "12", one)
    listing = push_index(registry, "layers/base", "multi", base)
    registry.push_image("layers/other", "1", os.urandom(8))
    found = images(registry, layer)["images"]
    assert [(image["repository"], image["digest"], image["layers"]) for image in found] == [
        ("layers/base", str(base), 1),
        ("layers/app", str(app), 2),
    ]
    # The tag that came last, to the image or to an index of it.
    assert (found[0]["tag"], found[0]["tagDigest"], found[0]["still"]) == ("multi", str(listing), True)
    (here,) = images(registry, layer, "layers/app")["images"]
    assert here == found[1]
    page = images(registry, layer, query="?n=1")
    assert page["images"] == found[:1]
    assert page["more"] is True


def test_a_deleted_image_is_known_and_said_to_be(registry: RegistryServer) -> None:
    content = os.urandom(8)
    base = push(registry, "layers/gone", "12", content)
    assert registry.request("DELETE", f"/v2/layers/gone/manifests/{base}").status == 202
    (image,) = images(registry, Digest.of(content))["images"]
    assert (image["present"], image["tag"], image.get("still")) == (False, "12", None)


def test_what_is_no_layer_has_no_images(registry: RegistryServer) -> None:
    digest = registry.push_image("layers/none", "1", os.urandom(8))
    assert images(registry, digest)["images"] == []
    assert images(registry, Digest.of(b"never"), "layers/none")["images"] == []
    assert registry.request("GET", "/v2/_digestry/layers/x").code == "DIGEST_INVALID"


def test_artifacts_are_no_base(registry: RegistryServer) -> None:
    content = os.urandom(8)
    image = push(registry, "layers/artifacts", "1", content, os.urandom(8))
    attach(registry, "layers/artifacts", image, content)
    assert [one["digest"] for one in images(registry, Digest.of(content))["images"]] == [str(image)]


def test_a_bulk_answer_has_what_refers_to_the_parts(registry: RegistryServer) -> None:
    one, two = os.urandom(8), os.urandom(8)
    layer = Digest.of(one)
    base, app = (
        push(registry, "layers/bulk/base", "12", one),
        push(registry, "layers/bulk/app", "1", one, two),
    )
    alone = push(registry, "layers/bulk/alone", "1", two)
    older = attach(registry, "layers/bulk/base", layer)
    newer = attach(registry, "layers/bulk/base", layer)
    removed = attach(registry, "layers/bulk/base", layer)
    registry.request("DELETE", f"/v2/layers/bulk/base/manifests/{removed}")
    queries = [
        {"repository": "layers/bulk/app", "tags": ["1"]},
        {"repository": "layers/bulk/alone", "digests": [str(alone)]},
    ]
    answer = registry.request(
        "POST", "/v2/_digestry/resolve", json.dumps({"queries": queries, "contents": True})
    ).json()
    found, nothing = answer["resolutions"]
    assert found["parts"] == {str(app): [str(layer)]}
    (referrers,) = found["partReferrers"]
    assert (referrers["part"], referrers["repository"]) == (str(layer), "layers/bulk/base")
    listed = registry.request("GET", f"/v2/layers/bulk/base/referrers/{layer}").json()["manifests"]
    assert referrers["referrers"] == listed
    assert [one["digest"] for one in listed] == [str(newer), str(older)]
    assert found["bases"][str(layer)]["digest"] == str(base)
    assert {str(newer), str(older)} <= set(answer["contents"])
    assert nothing["parts"] == {str(alone): []}
    assert "partReferrers" not in nothing


def test_a_config_that_is_referred_to_is_a_part(registry: RegistryServer) -> None:
    image = push(registry, "layers/config", "1", os.urandom(8))
    config = registry.request("GET", f"/v2/layers/config/manifests/{image}").json()["config"]["digest"]
    attach(registry, "layers/config", Digest.parse(config))
    (found,) = resolve(registry, {"repository": "layers/config", "digests": [str(image)]})
    assert found["parts"] == {str(image): [config]}
    assert "bases" not in found


def test_the_tags_of_a_layer_are_those_of_its_images_if_asked_for(registry: RegistryServer) -> None:
    content = os.urandom(8)
    image = push(registry, "layers/whose", "1", content)
    listing = push_index(registry, "layers/whose", "multi", image)
    path = f"/_digestry/whose/{Digest.of(content)}"
    for where in ("/v2/layers/whose", "/v2"):
        assert registry.request("GET", where + path).json()["spans"] == []
        spans = registry.request("GET", f"{where}{path}?layers=true").json()["spans"]
        assert {(span["tag"], span["digest"]) for span in spans} == {
            ("1", str(image)),
            ("multi", str(listing)),
        }
        assert registry.request("GET", f"{where}{path}?layers=x").status == 400


@pytest.mark.long
def test_a_flood_of_referrers_is_cut(registry: RegistryServer) -> None:
    content = os.urandom(8)
    image = push(registry, "layers/flood", "1", content)
    for number in range(103):
        attach(registry, "layers/flood", Digest.of(content), annotations={"number": str(number)})
    (found,) = resolve(registry, {"repository": "layers/flood", "digests": [str(image)]})
    (referrers,) = found["partReferrers"]
    assert len(referrers["referrers"]) == 101
