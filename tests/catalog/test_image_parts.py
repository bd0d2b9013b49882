"""What refers to the parts of images, and which images have a layer, in each database."""

from __future__ import annotations

import json

from digestry.catalog.catalog import Catalog
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.resolution import ResolveQuery
from tests.catalog.support import image, index, put
from tests.catalog.test_garbage import advisory_on


def everything(_repository: str) -> bool:
    return True


def built_on(catalog: Catalog, base: Manifest, name: str) -> Manifest:
    """An image in ``name`` with the layers of ``base`` and one of its own."""
    body = json.loads(image(catalog, name).raw)
    body["layers"] = json.loads(base.raw)["layers"] + body["layers"]
    for layer in base.layers:
        catalog.add_blob(name, layer.digest, layer.size)
    return Manifest.parse(json.dumps(body).encode())


def test_the_images_with_a_layer(catalog: Catalog) -> None:
    base = put(catalog, "base", image(catalog, "base"), "12")
    app = put(catalog, "app", built_on(catalog, base, "app"))
    listing = put(catalog, "app", index(app), "1")
    layer = base.layers[0].digest
    found = catalog.images_with_layer_anywhere(layer, visible=everything, limit=10)
    assert [(one.repository, one.digest, one.layers, one.tag, one.tag_digest) for one in found] == [
        ("base", base.digest, 1, "12", base.digest),
        ("app", app.digest, 2, "1", listing.digest),
    ]
    assert catalog.images_with_layer("app", layer, limit=10) == found[1:]
    assert catalog.images_with_layer_anywhere(layer, visible=lambda name: name == "app", limit=1) == found[1:]
    assert catalog.images_with_layer("none", layer, limit=10) == []
    spans = catalog.tag_history.tags_for_digest("app", layer, layers=True, limit=10)
    assert [(span.tag, span.digest) for span in spans] == [("1", listing.digest)]
    assert catalog.tag_history.tags_for_digest("app", layer, limit=10) == []
    assert catalog.repositories_of(layer, layers=True) == ["app", "base"]
    assert catalog.repositories_of(layer) == []


def test_what_refers_to_parts_in_any_repository(catalog: Catalog) -> None:
    base = put(catalog, "base", image(catalog, "base"), "12")
    app = put(catalog, "app", built_on(catalog, base, "app"), "1")
    other = put(catalog, "other", image(catalog, "other"), "1")
    layer = base.layers[0]
    assert app.config is not None
    on_layer = put(catalog, "base", advisory_on(catalog, layer, name="base"))
    on_config = put(catalog, "app", advisory_on(catalog, app.config, name="app"))
    queries = [ResolveQuery("app", tags=("1",)), ResolveQuery("other", tags=("1",))]
    found, nothing = catalog.resolve(queries, contents=True, visible=everything).resolutions
    assert found.parts == {str(app.digest): tuple(sorted((layer.digest, app.config.digest)))}
    assert {
        (one.part, one.repository): [d.digest for d in one.referrers] for one in found.part_referrers
    } == {
        (layer.digest, "base"): [on_layer.digest],
        (app.config.digest, "app"): [on_config.digest],
    }
    assert nothing.parts == {str(other.digest): ()}
    (hidden, _) = catalog.resolve(queries, contents=True, visible=lambda name: name != "base").resolutions
    parts: dict[str, tuple[Digest, ...]] = {str(app.digest): (app.config.digest,)}
    assert hidden.parts == parts
