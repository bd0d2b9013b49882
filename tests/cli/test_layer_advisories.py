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
