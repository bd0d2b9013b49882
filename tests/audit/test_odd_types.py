"""Documents of strangers with fields of the wrong types: statements, engines' answers and inventories. What
cannot be read is named; nothing ends as a defect, and nothing odd is a green answer."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from digestry.advisories import documents
from digestry.advisories.statements import Document
from digestry.audit.audit import audit
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.reports import table_layout, to_csv, to_json, to_sarif, to_table
from digestry.errors import DigestryError
from digestry.inventory.engines.client import Engine
from digestry.inventory.sources.docker import DockerSource
from digestry.inventory.sources.file import FileSource
from digestry.model.digest import Digest
from tests.advisories.test_attachments import (
    APP,
    COMPONENTS,
    csaf,
    cyclonedx,
    enveloped,
    found,
    hang,
    in_toto,
    openvex,
    purl,
    said,
)
from tests.audit.fakes import HOST, FakeRegistries
from tests.inventory.fakes import Listed, engine, recording
from tests.typefuzz import mutations, sampled

DIGEST = Digest.of(b"x")
PRODUCT = {
    "@id": purl(DIGEST),
    "subcomponents": [{"@id": "pkg:deb/debian/curl@8.1"}],
    "hashes": {"sha-256": "x"},
}
STATEMENTS: dict[str, Any] = {
    "OpenVEX": openvex(
        said("fixed", PRODUCT, impact_statement="x", action_statement=f"use {HOST}/team/app@{DIGEST}")
    ),
    "in-toto": in_toto(openvex(said("affected", PRODUCT)), DIGEST),
    "an envelope": enveloped(in_toto(openvex(said("affected", PRODUCT)), DIGEST)),
    "a bundle": {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "dsseEnvelope": enveloped(in_toto(openvex(said("affected", PRODUCT)), DIGEST)),
        "verificationMaterial": {},
    },
    "CycloneDX": cyclonedx(
        "exploitable", "curl-1", components=COMPONENTS, metadata={"component": COMPONENTS[0]}
    ),
    "CSAF": csaf("known_affected", {"product_identification_helper": {"purl": purl(DIGEST)}}),
}


@pytest.mark.parametrize("kind", STATEMENTS)
def test_a_statement(kind: str) -> None:
    for what, raw in mutations(STATEMENTS[kind]):
        for stating in (True, False):
            assert documents.decode_documents(raw, stating=stating), what


@sampled(23, many=5)
@pytest.mark.parametrize("kind", ["OpenVEX", "CycloneDX", "CSAF"])
def test_a_statement_that_hangs_on_an_image(kind: str, every: int) -> None:
    """Judged and reported, whatever it is: of an odd one nothing is known, or it is as if not there."""
    for number, (what, raw) in enumerate(mutations(STATEMENTS[kind])):
        if number % every:
            continue
        registries = FakeRegistries()
        app = registries.at(APP)
        image = app.image("one", "1")
        hang(app, image.manifest, raw)
        finding = found(registries, image)
        assert finding.assessment.state != "not_assessed" or not finding.assessment.advisories, what


def whole(observations: Iterable[Any]) -> str:
    """An audit of what was seen, in four formats."""
    report = audit([Listed(*observations)], RegistryQueries(FakeRegistries()))
    table = "".join(table_layout.plain(line) for line in to_table.write(report))
    return table + "".join((*to_json.write(report), *to_sarif.write(report), *to_csv.write(report)))


@sampled(71, many=17)
@pytest.mark.parametrize("part", ["/containers/json", "container", "image", "/info", "/version"])
def test_an_engine(part: str, every: int) -> None:
    recorded = recording("docker-20.10")
    listed = recorded["/containers/json"]["body"]
    listed[:] = listed[:1]
    container = f"/containers/{listed[0]['Id']}/json"
    image = f"/images/{recorded[container]['body']['Image']}/json"
    path = {"container": container, "image": image}.get(part, part)
    document = recorded[path]["body"] if path in recorded else {"Name": "vm"}
    for number, (what, raw) in enumerate(mutations(document)):
        if number % every:
            continue

        def write(out: BinaryIO, raw: bytes = raw) -> None:
            out.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(raw) + raw)

        answers = copy.copy(recorded) | {path: write}
        with engine(answers) as (url, _), contextlib.suppress(DigestryError):
            assert whole(DockerSource("docker", Engine(url, timeout=20)).observe()), what


POD = {
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "ownerReferences": [{"kind": "ReplicaSet", "name": "x"}],
    },
    "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": f"{APP}:1"}]},
    "status": {
        "phase": "Running",
        "containerStatuses": [
            {
                "name": "app",
                "image": f"{APP}:1",
                "imageID": f"docker-pullable://{APP}@{DIGEST}",
                "containerID": "containerd://abc",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }
        ],
    },
}
INVENTORIES: dict[str, Any] = {
    "rows": [
        {
            "host": "h",
            "namespace": "n",
            "name": "x",
            "id": "1",
            "reference": f"{APP}:1",
            "digest": str(DIGEST),
        }
    ],
    "pods": {"apiVersion": "v1", "kind": "PodList", "items": [{"apiVersion": "v1", "kind": "Pod", **POD}]},
    "docker ps": {"ID": "abc", "Image": f"{APP}:1", "Names": "web", "State": "running", "Status": "Up 1 s"},
    "docker inspect": [
        {
            "Id": "a" * 64,
            "Name": "/web",
            "Image": str(DIGEST),
            "Config": {"Image": f"{APP}:1", "Labels": {"com.docker.compose.project": "p"}},
            "State": {"Status": "running", "Running": True},
        }
    ],
    "podman ps": [
        {"Id": "a" * 64, "Image": f"{APP}:1", "ImageID": DIGEST.encoded, "Names": ["web"], "State": "running"}
    ],
    "crictl": {
        "containers": [
            {
                "id": "a" * 64,
                "metadata": {"name": "x"},
                "image": {"image": str(DIGEST)},
                "imageRef": f"{APP}@{DIGEST}",
                "state": "CONTAINER_RUNNING",
                "labels": {"io.kubernetes.pod.name": "p"},
            }
        ]
    },
}


@pytest.mark.long
@sampled(17, many=4)
@pytest.mark.parametrize("form", INVENTORIES)
def test_an_inventory(form: str, every: int, tmp_path: Path) -> None:
    path = tmp_path / "inventory"
    for number, (what, raw) in enumerate(mutations(INVENTORIES[form])):
        if number % every:
            continue
        path.write_bytes(raw)
        with contextlib.suppress(DigestryError):
            assert whole(FileSource("file:f", str(path)).observe()), what


def test_what_these_are_made_of_is_read(tmp_path: Path) -> None:
    path = tmp_path / "inventory"
    for form, document in INVENTORIES.items():
        path.write_text(json.dumps(document))
        shown = whole(FileSource("file:f", str(path)).observe())
        assert APP in shown or str(DIGEST) in shown, form
    for kind, document in STATEMENTS.items():
        (read,) = documents.decode_documents(json.dumps(document).encode())
        assert isinstance(read, Document), kind
