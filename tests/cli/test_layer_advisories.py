"""Advisories on layers and configs, by the commands, against a running registry."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.cli.test_audit import environment, inventory, run
from tests.support import RegistryServer, descriptor

__all__ = ["environment"]  # a fixture


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "cli/layers/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


def push(registry: RegistryServer, name: str, target: str, *layers: bytes, code: str = "") -> Digest:
    """Push an image of ``layers``, each of which a step of its own made."""
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "code": code,
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer)) for layer in layers]},
            "history": [
                *({"created_by": f"COPY {layer.decode()}"} for layer in layers),
                {"created_by": "CMD run", "empty_layer": True},
            ],
        }
    ).encode()  # fmt: skip
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, registry.push_blob(name, config), len(config)),
        "layers": [
            descriptor(media_types.OCI_LAYER, registry.push_blob(name, layer), len(layer)) for layer in layers
        ],
    }
    return registry.push_manifest(name, target, document)


def audited(
    environment: dict[str, str], registry: RegistryServer, *images: str, code: int = 1
) -> list[dict[str, Any]]:
    """Return the rows of an audit of containers that run these images, REPOSITORY:TAG@DIGEST."""
    seen = inventory(
        *(
            {
                "host": "n1",
                "name": str(number),
                "reference": f"{registry.host}/{image.partition('@')[0]}",
                "digest": image.partition("@")[2],
            }
            for number, image in enumerate(images)
        )
    )
    done = run(environment, "audit", "--source", "file:-", "--format", "json", stdin=seen)
    assert done.returncode == code, done.stderr + done.stdout
    answer = json.loads(done.stdout)
    assert answer["problems"] == []
    rows: list[dict[str, Any]] = sorted(answer["containers"], key=lambda row: int(row["name"]))
    return rows


def test_a_layer_reaches_every_image_with_it(
    environment: dict[str, str], registry: RegistryServer, name: str
) -> None:
    layers = [f"{name} base".encode(), f"{name} tools".encode(), f"{name} app".encode(), b"other"]
    base = push(registry, f"{name}/base", "12", layers[0])
    child = push(registry, f"{name}/child", "1", *layers[:2])
    grandchild = push(registry, f"{name}/app", "1", *layers[:3])
    other = push(registry, f"{name}/other", "1", layers[3])
    bad = Digest.of(layers[0])
    added = run(
        environment, "advisory", "add", f"{registry.host}/{name}/base@{bad}", "--status", "affected",
        "--id", "CVE-9", "--author", "sec@example",
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    assert f"{bad} is a layer" in added.stderr
    rows = audited(
        environment, registry, f"{name}/base:12@{base}", f"{name}/child:1@{child}",
        f"{name}/app:1@{grandchild}", f"{name}/other:1@{other}",
    )  # fmt: skip
    assert [row["advisory_state"] for row in rows] == ["affected"] * 3 + ["not_assessed"]
    for row in rows[:3]:
        (stated,) = row["advisories"]
        assert stated["part"] == {
            "kind": "layer",
            "digest": str(bad),
            "base": f"{registry.host}/{name}/base:12@{base}",
            "made_by": f"COPY {layers[0].decode()}",
        }


@pytest.fixture
def story(registry: RegistryServer, name: str) -> dict[str, Any]:
    """A base image, and one that was built on it: their digests, and those of the layers."""
    layers = [f"{name} base".encode(), f"{name} app".encode()]
    return {
        "base": push(registry, f"{name}/base", "12", layers[0]),
        "app": push(registry, f"{name}/app", "1", *layers),
        "layer": Digest.of(layers[0]),
        "step": f"COPY {layers[0].decode()}",
    }


def test_whose_a_layer_is(
    environment: dict[str, str], registry: RegistryServer, name: str, story: dict[str, Any]
) -> None:
    layer = story["layer"]
    anywhere = run(environment, "whose", str(layer), "--registry", registry.host, "--format", "json")
    assert anywhere.returncode == 0, anywhere.stderr
    found = {(row["repository"], row["tag"], row["via"]) for row in json.loads(anywhere.stdout)}
    assert found == {
        (f"{name}/base", "12", str(story["base"])), (f"{name}/app", "1", str(story["app"])),
    }  # fmt: skip
    one = run(environment, "whose", f"{registry.host}/{name}/app@{layer}", "--format", "json")
    assert [row["tag"] for row in json.loads(one.stdout)] == ["1"]


def test_a_layer_is_inspected(
    environment: dict[str, str], registry: RegistryServer, name: str, story: dict[str, Any]
) -> None:
    where = f"{registry.host}/{name}"
    done = run(environment, "inspect", f"{where}/app@{story['layer']}", "--format", "json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["image"] is None
    assert shown["part"] == {
        "kind": "layer",
        "base": f"{where}/base:12@{story['base']}",
        "made_by": story["step"],
        "images": [f"{where}/base:12@{story['base']}", f"{where}/app:1@{story['app']}"],
    }
    text = run(environment, "inspect", f"{where}/app@{story['layer']}").stdout
    assert f"{where}/base:12@{story['base']}" in text
    image = json.loads(run(environment, "inspect", f"{where}/app:1", "--format", "json").stdout)
    assert image["image"]["layers"][0]["made_by"] == story["step"]
    assert image["part"] is None


@pytest.mark.long
def test_statements_about_a_layer_are_listed_exported_and_removed(
    environment: dict[str, str], registry: RegistryServer, name: str, story: dict[str, Any]
) -> None:
    where = f"{registry.host}/{name}/base@{story['layer']}"
    add = ("advisory", "add", where, "--id", "CVE-1", "--id", "CVE-2", "--status", "affected")
    assert run(environment, *add, "--fixed-by", f"{registry.host}/{name}/app:1").returncode == 0
    listed = json.loads(run(environment, "advisory", "list", where, "--format", "json").stdout)
    assert {row["vulnerability"] for row in listed} == {"CVE-1", "CVE-2"}
    assert {row["digest"] for row in listed} == {str(story["layer"])}
    (shown,) = json.loads(run(environment, "advisory", "show", where).stdout)
    assert len(shown["document"]["statements"]) == 2
    of_image = run(environment, "advisory", "list", f"{registry.host}/{name}/app:1", "--format", "json")
    assert f"2 statements about its layer {where} count for it" in of_image.stderr
    rows = {row["vulnerability"]: row for row in json.loads(of_image.stdout)}
    assert {row["part"] for row in rows.values()} <= {None, str(story["layer"])}
    exported = run(environment, "advisory", "export", where).stdout
    dry = run(environment, "advisory", "remove", where, "--id", "CVE-1", "--dry-run")
    assert "nothing was removed" in dry.stderr
    assert run(environment, "advisory", "remove", where, "--id", "CVE-1", "--yes").returncode == 0
    listed = json.loads(run(environment, "advisory", "list", where, "--format", "json").stdout)
    assert [row["vulnerability"] for row in listed] == ["CVE-2"]
    # What was exported is imported again: the layer is found by its digest.
    again = run(environment, "advisory", "import", "-", stdin=exported)
    assert again.returncode == 0, again.stderr
    listed = json.loads(run(environment, "advisory", "list", where, "--format", "json").stdout)
    assert {row["vulnerability"] for row in listed} == {"CVE-1", "CVE-2"}


@pytest.mark.long
def test_what_is_stated_about_a_layer_is_listed_and_exported_with_its_images(
    environment: dict[str, str], registry: RegistryServer, name: str, story: dict[str, Any]
) -> None:
    layer, image = str(story["layer"]), f"{registry.host}/{name}/app:1"
    add = ("advisory", "add", f"{registry.host}/{name}/base@{layer}", "--id", "CVE-5")
    assert run(environment, *add, "--status", "affected").returncode == 0
    (row,) = json.loads(run(environment, "advisory", "list", image, "--format", "json").stdout)
    assert (row["vulnerability"], row["status"], row["part"]) == ("CVE-5", "affected", layer)
    assert row["repository"] == f"{registry.host}/{name}/base"
    assert layer.partition(":")[2][:12] in run(environment, "advisory", "list", image).stdout
    done = run(environment, "advisory", "export", image)
    (statement,) = json.loads(done.stdout)["statements"]
    assert str(story["app"]).partition(":")[2] in json.dumps(statement["products"])
    assert "subcomponents" not in json.dumps(statement)
    assert f"Stated of the layer {layer} by" in statement["status_notes"]
    assert json.loads(run(environment, "advisory", "show", image).stdout) == []


@pytest.mark.long
@pytest.mark.parametrize("digits", [7, 12])
def test_a_layer_and_a_config_are_named_by_their_first_digits(
    environment: dict[str, str], registry: RegistryServer, name: str, story: dict[str, Any], digits: int
) -> None:
    where = f"{registry.host}/{name}"
    layer = str(story["layer"])
    short = layer.partition(":")[2][:digits]
    anywhere = run(environment, "whose", short, "--registry", registry.host, "--format", "json")
    assert anywhere.returncode == 0, anywhere.stderr
    assert f"{short} is {layer}" in anywhere.stderr
    assert {row["tag"] for row in json.loads(anywhere.stdout)} == {"12", "1"}
    one = run(environment, "whose", f"{where}/app@sha256:{short}", "--format", "json")
    assert [row["tag"] for row in json.loads(one.stdout)] == ["1"]
    who = run(environment, "fleet", "who", short, "--registry", registry.host, "--format", "json")
    assert f"{short} is {layer}" in who.stderr
    assert who.returncode == 3, who.stderr  # no agent reports there
    assert json.loads(run(environment, "inspect", f"{where}/app@{short}", "--format", "json").stdout)["part"]
    add = ("advisory", "add", f"{where}/base@{short}", "--id", "CVE-9", "--status", "affected")
    stated = run(environment, *add)
    assert f"base@{layer}" in stated.stdout


@pytest.mark.long
def test_an_import_finds_a_layer_by_its_digest_alone(
    environment: dict[str, str], registry: RegistryServer, name: str, story: dict[str, Any]
) -> None:
    """Thousands of ids are one document on the layer."""
    number = 3000
    layer = story["layer"]
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0", "@id": "urn:x", "author": "them",
        "timestamp": "2026-11-21T10:00:00Z", "version": 1,
        "statements": [
            {
                "vulnerability": {"name": f"CVE-2026-{one}"}, "status": "affected",
                "action_statement": "Wait.",
                "products": [{"@id": str(layer), "hashes": {"sha-256": layer.encoded}}],
            }
            for one in range(number)
        ],
    }  # fmt: skip
    assert run(environment, "config", "set", "registry", registry.host).returncode == 0
    given = json.dumps(document)
    dry = run(environment, "advisory", "import", "-", "--dry-run", stdin=given)
    assert dry.returncode == 0, dry.stderr
    referrers = f"/v2/{name}/base/referrers/{layer}"
    assert registry.request("GET", referrers).json()["manifests"] == []
    done = run(environment, "advisory", "import", "-", stdin=given)
    assert done.returncode == 0, done.stderr
    assert len(registry.request("GET", referrers).json()["manifests"]) == 1
    (row,) = audited(environment, registry, f"{name}/app:1@{story['app']}")
    assert len(row["advisories"]) == number
    assert {one["part"]["digest"] for one in row["advisories"]} == {str(layer)}


@pytest.mark.parametrize("format_", ["table", "csv", "markdown", "html", "junit", "sarif"])
def test_every_report_names_the_layer_and_its_base(
    environment: dict[str, str], registry: RegistryServer, name: str, story: dict[str, Any], format_: str
) -> None:
    where = f"{registry.host}/{name}"
    stated = run(
        environment,
        "advisory",
        "add",
        f"{where}/base@{story['layer']}",
        "--id",
        "CVE-1",
        "--status",
        "affected",
    )
    assert stated.returncode == 0, stated.stderr
    seen = inventory({"host": "n", "name": "web", "reference": f"{where}/app:1", "digest": str(story["app"])})
    done = run(environment, "audit", "--source", "file:-", "--format", format_, stdin=seen)
    assert done.returncode == 1, done.stderr
    printed = re.sub(r"\s", "", done.stdout)
    assert str(story["layer"]) in printed
    assert f"{where}/base:12@{story['base']}" in printed
