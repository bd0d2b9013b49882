"""Attested results of scans: a scanner's report in cosign's predicate, a list in in-toto's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from digestry.model import media_types
from tests.advisories.signed import RECORDED
from tests.advisories.test_attachments import APP, hang, in_toto, verdict
from tests.advisories.test_scanner_reports import openssl, trivy
from tests.audit.fakes import FakeRegistries, FakeRepository, Image

COSIGN = "https://cosign.sigstore.dev/attestation/vuln/v1"
LISTED = "https://in-toto.io/attestation/vulns/v0.2"


@pytest.fixture
def registries() -> FakeRegistries:
    return FakeRegistries()


@pytest.fixture
def app(registries: FakeRegistries) -> FakeRepository:
    return registries.at(APP)


@pytest.fixture
def image(app: FakeRepository) -> Image:
    return app.image("one", "1")


def attach(app: FakeRepository, image: Image, result: Any, kind: str = COSIGN, **more: Any) -> None:
    predicate = {
        "scanner": {"uri": "pkg:x/scanner", "version": "3", "result": result},
        "metadata": {"scanFinishedOn": "2026-11-02T00:00:00Z"},
    }  # fmt: skip
    hang(app, image.manifest, in_toto(predicate | more, image.manifest, kind=kind))


@pytest.mark.parametrize("name", ["grype.json", "grype.sarif"])
def test_a_report_is_about_the_image_that_was_attested(
    registries: FakeRegistries, app: FakeRepository, image: Image, name: str
) -> None:
    """The report names the image as the scanner knew it: under another name, or without one."""
    attach(app, image, json.loads((RECORDED / name).read_bytes()))
    told = verdict(registries, image)
    assert told.state == "affected"
    (one,) = told.advisories
    assert one.statement.vulnerability == "CVE-2026-4242"
    assert one.component.startswith("pkg:apk/alpine/openssl@3.3.1-r0")


def test_a_report_of_trivy(registries: FakeRegistries, app: FakeRepository, image: Image) -> None:
    attach(app, image, trivy(openssl(), openssl("CVE-2")))
    assert {one.statement.vulnerability for one in verdict(registries, image).advisories} == {
        "CVE-1",
        "CVE-2",
    }


def test_a_report_of_trivy_without_its_time_is_of_the_time_of_the_scan(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    report = trivy(openssl())
    del report["CreatedAt"]
    attach(app, image, report)
    (one,) = verdict(registries, image).advisories
    assert one.statement.timestamp.isoformat() == "2026-11-02T00:00:00+00:00"


def test_a_list(registries: FakeRegistries, app: FakeRepository, image: Image) -> None:
    listed = [{"id": "CVE-1", "severity": [{"method": "nvd", "score": "high"}]}, {"id": "CVE-2"}]
    attach(app, image, listed, LISTED)
    told = verdict(registries, image)
    assert told.state == "affected"
    found = {one.statement.vulnerability: one.statement.severity for one in told.advisories}
    assert found == {"CVE-1": "high", "CVE-2": ""}
    assert {one.author for one in told.advisories} == {"pkg:x/scanner 3"}


@pytest.mark.parametrize(("result", "kind"), [([], LISTED), (None, COSIGN), (trivy(), COSIGN)])
def test_a_scan_that_found_nothing_states_nothing(
    registries: FakeRegistries, app: FakeRepository, image: Image, result: Any, kind: str
) -> None:
    attach(app, image, result, kind)
    assert verdict(registries, image).state == "not_assessed"


HOSTILE: dict[str, Any] = {
    "text": "CVE-1",
    "a number": 1,
    "another format": {"results": ["CVE-1"]},
    "a list without names": [{}],
    "a list of other things": [None, 1, "CVE-1", []],
    "a report on a directory": trivy(openssl(), ArtifactType="filesystem"),
    "a report without a time": trivy(openssl(), CreatedAt="yesterday"),
    "SARIF without runs": {"version": "2.1.0", "runs": []},
    "SARIF with a bad run": {"version": "2.1.0", "runs": [{"results": 1}, {"results": []}]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read_is_named(
    registries: FakeRegistries, app: FakeRepository, image: Image, name: str
) -> None:
    attach(app, image, HOSTILE[name])
    told = verdict(registries, image)
    assert told.state == "unknown"
    assert told.reasons


def test_a_scanner_that_is_none(registries: FakeRegistries, app: FakeRepository, image: Image) -> None:
    others: list[object] = [{}, None, [], "scanner"]
    for scanner in others:
        predicate = in_toto({"scanner": scanner}, image.manifest, kind=COSIGN)
        hang(app, image.manifest, predicate, media_types.IN_TOTO)
    assert verdict(registries, image).state == "unknown"
