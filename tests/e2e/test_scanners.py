"""Scanners and signers: Trivy reads what digestry states, and digestry reads what cosign attaches."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.advisories.signed import pem, signing_key
from tests.e2e.engines import Engine
from tests.e2e.peers import built
from tests.peers.build import cache
from tests.support import RegistryServer, lacking

VULNERABILITY = "CVE-2026-4242"
INSTALLED = """P:openssl
V:3.3.1-r0
A:x86_64
o:openssl

"""


@pytest.fixture
def trivy(tmp_path: Path) -> Engine:
    """Trivy, with a database of its own that knows one vulnerability of one package, and no network."""
    program, maker = built("trivy"), built("trivy-db")
    cache = tmp_path / "trivy"
    Engine((str(maker),))(cache, VULNERABILITY, "openssl", "3.3.2-r0")
    return Engine((str(program), "--cache-dir", str(cache), "--quiet"), {"HOME": str(tmp_path)})


@pytest.fixture
def image(tool: Engine, registry: RegistryServer, repository: str, tmp_path: Path) -> str:
    """An image that digestry packed, of an Alpine that has the vulnerable package."""
    root = tmp_path / "root"
    for name, content in {
        "etc/os-release": "ID=alpine\nVERSION_ID=3.20.1\n",
        "etc/alpine-release": "3.20.1\n",
        "lib/apk/db/installed": INSTALLED,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    name = f"{registry.host}/{repository}"
    tool("pack", root, "-t", f"{name}:1", "--push")
    answer = registry.request("HEAD", f"/v2/{repository}/manifests/1")
    return f"{name}@{answer.headers['docker-content-digest']}"


def scanned(trivy: Engine, image: str, *options: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The vulnerabilities that Trivy reports, and what it suppresses, with the status that it read."""
    command = ("image", "--skip-db-update", "--offline-scan", "--scanners", "vuln", "--format", "json")
    report = trivy.json(*command, "--insecure", *options, image)
    found: list[str] = []
    suppressed: list[tuple[str, str]] = []
    for result in report.get("Results", []):
        found += [one["VulnerabilityID"] for one in result.get("Vulnerabilities") or []]
        modified = result.get("ExperimentalModifiedFindings") or []
        suppressed += [(one["Finding"]["VulnerabilityID"], one["Status"]) for one in modified]
    return found, suppressed


@pytest.mark.long
@pytest.mark.parametrize("status", ["not_affected", "fixed"])
def test_trivy_believes_an_advisory(trivy: Engine, tool: Engine, image: str, status: str) -> None:
    assert scanned(trivy, image) == ([VULNERABILITY], [])
    why = ("--justification", "vulnerable_code_not_present") if status == "not_affected" else ()
    tool("advisory", "add", image, "--status", status, "--id", VULNERABILITY, *why)
    options = ("--vex", "oci", "--show-suppressed")
    assert scanned(trivy, image, *options) == ([], [(VULNERABILITY, status)])


@pytest.mark.long
def test_trivy_still_reports_what_is_affected(trivy: Engine, tool: Engine, image: str) -> None:
    tool("advisory", "add", image, "--status", "affected", "--id", VULNERABILITY)
    assert scanned(trivy, image, "--vex", "oci", "--show-suppressed") == ([VULNERABILITY], [])


@pytest.mark.long
@pytest.mark.parametrize("form", ["json", "sarif", "cyclonedx"])
def test_what_trivy_reports_is_imported(
    trivy: Engine, tool: Engine, image: str, form: str, tmp_path: Path
) -> None:
    # A bill of materials lists vulnerabilities, and does not analyse them.
    status = "under_investigation" if form == "cyclonedx" else "affected"
    report = tmp_path / "report"
    options = ("--skip-db-update", "--offline-scan", "--scanners", "vuln", "--insecure")
    trivy("image", *options, "--format", form, "--output", report, image)
    (imported,) = json.loads(tool("advisory", "import", report, "--format", "json"))["images"]
    assert f"{imported['name']}@{imported['digest']}" == image
    assert imported["new"] == {status: 1}
    listed = tool("advisory", "list", image).splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [[VULNERABILITY, status]]
    # A judgement of somebody who has looked stands, whatever the scanner finds again.
    looked = ("--status", "not_affected", "--justification", "vulnerable_code_not_present")
    tool("advisory", "add", image, "--id", VULNERABILITY, *looked)
    trivy("image", *options, "--format", "json", "--output", report, image)
    (again,) = json.loads(tool("advisory", "import", report, "--format", "json"))["images"]
    assert (again["new"], again["assessed"]) == ({}, 1)
    suppressed = [(VULNERABILITY, "not_affected")]
    assert scanned(trivy, image, "--vex", "oci", "--show-suppressed") == ([], suppressed)


@pytest.mark.long
def test_trivy_reads_an_export(trivy: Engine, tool: Engine, image: str, tmp_path: Path) -> None:
    looked = ("--status", "not_affected", "--justification", "vulnerable_code_not_present")
    tool("advisory", "add", image, "--id", VULNERABILITY, *looked)
    tool("advisory", "export", image, "--output", tmp_path / "vex.json")
    tool("advisory", "remove", image, "--id", VULNERABILITY, "--yes")
    assert scanned(trivy, image, "--vex", "oci") == ([VULNERABILITY], [])
    options = ("--vex", str(tmp_path / "vex.json"), "--show-suppressed")
    assert scanned(trivy, image, *options) == ([], [(VULNERABILITY, "not_affected")])


@pytest.mark.long
def test_trivy_scans_by_digest(
    trivy: Engine, tool: Engine, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, _, cache, _ = trivy.command
    for name, value in {"CACHE_DIR": cache, "SKIP_DB_UPDATE": "1", "OFFLINE_SCAN": "1"}.items():
        monkeypatch.setenv(f"TRIVY_{name}", value)
    monkeypatch.setenv("PATH", str(Path(program).parent))
    (found,) = json.loads(tool("scan", image, "--format", "json"))["images"]
    assert (f"{found['name']}@{found['digest']}", found["new"]) == (image, {"affected": 1})
    (row,) = json.loads(tool("advisory", "list", image, "--format", "json"))
    assert row["vulnerability"] == VULNERABILITY
    assert re.fullmatch(r"Trivy \S+ \(database of \d{4}-\d\d-\d\d\)", row["author"])


@pytest.fixture
def cosign(tmp_path: Path) -> Engine:
    """cosign 3, with a key of its own; it talks to no transparency log."""
    program = shutil.which("cosign") or shutil.which("cosign", path=cache() / "debian/forky/usr/bin")
    if program is None:
        lacking("cosign", "no such program on the PATH; tools/debian_roots.py brings one")
    home = {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path), "COSIGN_PASSWORD": ""}
    engine = Engine((program,), home)
    engine("generate-key-pair", "--output-key-prefix", tmp_path / "cosign")
    return engine


@pytest.mark.long
@pytest.mark.parametrize(
    "status",
    ["affected", *(pytest.param(other, marks=pytest.mark.long) for other in ("not_affected", "fixed"))],
)
def test_what_cosign_attaches_is_read(
    cosign: Engine, tool: Engine, image: str, status: str, tmp_path: Path
) -> None:
    attach(cosign, image, status, tmp_path)
    listed = tool("advisory", "list", image).splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [[VULNERABILITY, status]]


@pytest.mark.long
@pytest.mark.parametrize("form", ["bundle", "tag"])
def test_what_cosign_signs_is_verified(
    cosign: Engine, tool: Engine, image: str, form: str, tmp_path: Path
) -> None:
    settings = Path(tool.environment["DIGESTRY_HOME"]) / "config.toml"
    key = tmp_path / "cosign.pub"
    settings.write_text(f'[advisories]\nrequire-signature = true\ntrusted-keys.team = "{key}"\n')
    attach(cosign, image, "fixed", tmp_path, f"--new-bundle-format={str(form == 'bundle').lower()}")
    tool("advisory", "add", image, "--status", "affected", "--id", VULNERABILITY)
    (row,) = json.loads(tool("advisory", "list", image, "--format", "json"))
    assert (row["status"], row["signature"], row["signer"]) == ("fixed", "verified", "team")


@pytest.mark.long
@pytest.mark.parametrize(
    "signed_as",
    [
        pytest.param((kind, form), id=f"{kind}-{form}", marks=() if kind == "cosign" else pytest.mark.long)
        for kind in ("cosign", "P-384", "Ed25519", "RSA-2048")
        for form in ("bundle", "tag")
    ],
)
def test_cosign_verifies_what_digestry_signs(
    cosign: Engine, tool: Engine, image: str, signed_as: tuple[str, str], tmp_path: Path
) -> None:
    kind, form = signed_as
    key, public = tmp_path / "cosign.key", tmp_path / "cosign.pub"
    if kind != "cosign":
        key.write_bytes(pem(kind))
        public.write_bytes(signing_key(kind).public_pem)
    options = [
        "--insecure-ignore-tlog",
        "--allow-insecure-registry",
        "--type",
        "openvex",
        "--key",
        str(public),
    ]
    if form == "tag":
        options.append("--new-bundle-format=false")
    password = tmp_path / "password"
    password.write_text("")
    assert cosign.attempt("verify-attestation", *options, image).returncode != 0
    signed = ("--key", key, "--key-password-file", password, "--signed-as", form)
    tool("advisory", "add", image, "--status", "fixed", "--id", VULNERABILITY, *signed)
    envelope = json.loads(cosign("verify-attestation", *options, image).strip().splitlines()[-1])
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicate"]["statements"][0]["vulnerability"]["name"] == VULNERABILITY


@pytest.mark.long
def test_a_scan_that_cosign_attests_is_read(
    trivy: Engine, cosign: Engine, tool: Engine, image: str, tmp_path: Path
) -> None:
    settings = Path(tool.environment["DIGESTRY_HOME"]) / "config.toml"
    settings.write_text(f'[advisories]\ntrusted-keys.team = "{tmp_path}/cosign.pub"\n')
    report = tmp_path / "scan.json"
    options = ("--skip-db-update", "--offline-scan", "--scanners", "vuln", "--insecure")
    trivy("image", *options, "--format", "cosign-vuln", "--output", report, image)
    cosign(
        *("attest", "--yes", "--key", tmp_path / "cosign.key", "--type", "vuln", "--predicate", report),
        *("--use-signing-config=false", "--tlog-upload=false", "--allow-insecure-registry", image),
    )
    (row,) = json.loads(tool("advisory", "list", image, "--format", "json"))
    assert (row["vulnerability"], row["status"], row["signer"]) == (VULNERABILITY, "affected", "team")
    assert row["component"].startswith("pkg:apk/alpine/openssl@")


@pytest.mark.long
def test_what_cosign_attaches_in_a_registry_without_referrers(
    cosign: Engine, tool: Engine, image: str, peer_registry: str, tmp_path: Path
) -> None:
    repository = image.partition("@")[0].partition("/")[2]
    name = f"{peer_registry}/{repository}"
    tool("pull", image)
    tool("pack", tmp_path / "root", "-t", f"{name}:1", "--push")
    there = f"{name}@{image.partition('@')[2]}"
    attach(cosign, there, "affected", tmp_path)
    listed = tool("advisory", "list", there).splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [[VULNERABILITY, "affected"]]


def attach(cosign: Engine, image: str, status: str, tmp_path: Path, *options: str) -> None:
    """Has cosign sign an OpenVEX statement about ``image`` and hang it on that."""
    product, _, digest = image.partition("@sha256:")
    last = product.rpartition("/")[2]
    purl = (
        f"pkg:oci/{last}@sha256%3A{digest}?repository_url={product.replace(':', '%3A').replace('/', '%2F')}"
    )
    statement: dict[str, Any] = {
        "vulnerability": {"name": VULNERABILITY},
        "products": [{"@id": purl}],
        "status": status,
    }
    if status == "not_affected":
        statement["justification"] = "vulnerable_code_not_present"
    if status == "affected":
        statement["action_statement"] = "update"
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "https://example.org/vex/1",
        "author": "somebody",
        "timestamp": "2026-01-01T00:00:00Z",
        "version": 1,
        "statements": [statement],
    }
    predicate = tmp_path / "vex.json"
    predicate.write_text(json.dumps(document))
    cosign(
        *("attest", "--yes", "--key", tmp_path / "cosign.key", "--type", "openvex", "--predicate", predicate),
        *("--use-signing-config=false", "--tlog-upload=false", "--allow-insecure-registry", *options, image),
    )
