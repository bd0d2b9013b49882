"""``digestry advisory remove`` and ``export``, as their own programs, against a running registry."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_audit import environment, run
from tests.support import RegistryServer

__all__ = ["environment"]  # a fixture


@pytest.fixture
def image(request: pytest.FixtureRequest, registry: RegistryServer) -> str:
    name = "cli/remove/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    return f"{registry.host}/{name}@{registry.push_image(name, '1', name.encode())}"


def add(environment: dict[str, str], image: str, name: str, status: str = "affected") -> None:
    why = ("--note", "looked") if status == "not_affected" else ()
    done = run(environment, "advisory", "add", image, "--id", name, "--status", status, *why)
    assert done.returncode == 0, done.stderr


def listed(environment: dict[str, str], image: str) -> list[tuple[str, str]]:
    rows = json.loads(run(environment, "advisory", "list", image, "--format", "json").stdout)
    return [(row["vulnerability"], row["status"]) for row in rows]


def attached(registry: RegistryServer, image: str) -> list[Any]:
    repository, _, digest = image.partition("/")[2].partition("@")
    found: list[Any] = json.loads(registry.request("GET", f"/v2/{repository}/referrers/{digest}").body)[
        "manifests"
    ]
    return found


@pytest.mark.long
def test_a_statement_and_all_that_it_replaced_go(
    environment: dict[str, str], registry: RegistryServer, image: str
) -> None:
    add(environment, image, "CVE-1")
    add(environment, image, "CVE-1", "not_affected")
    add(environment, image, "CVE-2")
    dry = run(environment, "advisory", "remove", image, "--id", "cve-1", "--dry-run")
    assert dry.returncode == 0
    assert "CVE-1: not affected, by" in dry.stderr
    assert listed(environment, image) == [("CVE-2", "affected"), ("CVE-1", "not_affected")]
    done = run(environment, "advisory", "remove", image, "--id", "cve-1", "--yes")
    assert done.returncode == 0, done.stderr
    assert "Kept: 1 statement, in advisory sha256:" in done.stdout
    assert listed(environment, image) == [("CVE-2", "affected")]
    assert len(attached(registry, image)) == 1


def test_the_last_statement_leaves_nothing(
    environment: dict[str, str], registry: RegistryServer, image: str
) -> None:
    add(environment, image, "CVE-1")
    assert run(environment, "advisory", "remove", image, "--id", "CVE-1", "--yes").returncode == 0
    assert attached(registry, image) == []


def test_what_others_attached_stays_unless_it_is_named(
    environment: dict[str, str], image: str, tmp_path: Path, registry: RegistryServer
) -> None:
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0", "@id": "urn:x", "author": "them", "version": 1,
        "timestamp": "2026-11-20T00:00:00Z",
        "statements": [{"vulnerability": {"name": "CVE-1"}, "status": "affected"}],
    }  # fmt: skip
    (tmp_path / "vex.json").write_text(json.dumps(document))
    hung = run(
        environment, "attach", image, f"{tmp_path}/vex.json:application/vnd.openvex+json",
        "--artifact-type", "application/vnd.openvex+json",
    )  # fmt: skip
    assert hung.returncode == 0, hung.stderr
    (referrer,) = attached(registry, image)
    done = run(environment, "advisory", "remove", image, "--id", "CVE-1", "--yes")
    assert done.returncode == 0
    assert f"stays, since others attached it: --document {referrer['digest']}" in done.stderr
    assert listed(environment, image) == [("CVE-1", "affected")]
    assert (
        run(environment, "advisory", "remove", image, "--document", referrer["digest"], "--yes").returncode
        == 0
    )
    assert listed(environment, image) == []


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ((), 2, "Name what is to be removed"),
        (("--id", "CVE-9", "--yes"), 4, "nothing is stated about CVE-9"),
        (("--document", f"sha256:{'0' * 64}", "--yes"), 4, "is not an advisory that is attached"),
        (("--id", "CVE-1"), 2, "--yes must say that this is to be removed"),
    ],
)
def test_what_cannot_be_removed(
    environment: dict[str, str], image: str, options: tuple[str, ...], code: int, says: str
) -> None:
    add(environment, image, "CVE-1")
    done = run(environment, "advisory", "remove", image, *options)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert listed(environment, image) == [("CVE-1", "affected")]


@pytest.mark.long
def test_an_export_is_imported_as_it_was(environment: dict[str, str], image: str, tmp_path: Path) -> None:
    add(environment, image, "CVE-1")
    add(environment, image, "CVE-2", "not_affected")
    path = str(tmp_path / "vex.json")
    assert run(environment, "advisory", "export", image, "--output", path).returncode == 0
    document = json.loads(Path(path).read_text())
    assert {one["status"] for one in document["statements"]} == {"affected", "not_affected"}
    assert all("Stated by " in json.dumps(one) for one in document["statements"])
    again = run(environment, "advisory", "import", path, "--format", "json")
    assert json.loads(again.stdout)["images"][0]["stated"] == 2
    assert (
        run(environment, "advisory", "remove", image, "--id", "CVE-1", "--id", "CVE-2", "--yes").returncode
        == 0
    )
    assert run(environment, "advisory", "import", path).returncode == 0
    assert listed(environment, image) == [("CVE-1", "affected"), ("CVE-2", "not_affected")]
