"""Signed advisories, as the program states, lists and judges them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.advisories.signed import PASSWORD, RECORDED, signing_key
from tests.cli.test_advisory import name
from tests.cli.test_audit import environment, run
from tests.support import RegistryServer

__all__ = ["environment", "name"]  # fixtures

KEY = RECORDED / "cosign.key"


@pytest.fixture
def image(registry: RegistryServer, name: str) -> str:
    return f"{registry.host}/{name}@{registry.push_image(name, '1', name.encode())}"


@pytest.fixture
def trusting(environment: dict[str, str]) -> dict[str, str]:
    """An environment whose settings trust cosign's key, for good news alone; with the key's password."""
    home = Path(environment["DIGESTRY_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(RECORDED / "cosign.pub", home / "team.pub")
    settings = '[[advisories.rules]]\nstatuses = ["fixed", "not_affected"]\nsigners = ["team"]\n'
    settings += '[advisories.trusted-keys]\nteam = "team.pub"\n'
    (home / "config.toml").write_text(settings)
    return {**environment, "COSIGN_PASSWORD": PASSWORD.decode()}


def listed(environment: dict[str, str], image: str) -> list[tuple[Any, ...]]:
    done = run(environment, "advisory", "list", image, "--format", "json")
    assert done.returncode == 0, done.stderr
    return [
        (row["vulnerability"], row["status"], row["signature"], row["signer"])
        for row in json.loads(done.stdout)
    ]


@pytest.mark.long
@pytest.mark.parametrize("form", ["bundle", "tag"])
def test_add_signs(trusting: dict[str, str], image: str, form: str) -> None:
    add = ("advisory", "add", image, "--status", "fixed", "--id")
    done = run(trusting, *add, "CVE-1", "--key", str(KEY), "--signed-as", form)
    assert done.returncode == 0, done.stderr
    assert "does not count" not in done.stderr
    assert listed(trusting, image) == [("CVE-1", "fixed", "verified", "team")]
    assert "team" in run(trusting, "advisory", "list", image).stdout.splitlines()[1]
    (shown,) = json.loads(run(trusting, "advisory", "show", image).stdout)
    assert (shown["signature"], shown["signer"]) == ("verified", "team")
    # What is not signed does not count, which is said at once and wherever it is met.
    done = run(trusting, *add, "CVE-2")
    assert done.returncode == 0
    assert "does not count: only team may state fixed" in done.stderr
    done = run(trusting, "advisory", "list", image)
    assert "(unsigned) has 1 statement without effect: only team may state fixed" in done.stderr
    assert done.returncode == 0
    assert "CVE-2" not in done.stdout
    done = run(trusting, "advisory", "add", image, "--status", "affected", "--id", "CVE-3")
    assert "does not count" not in done.stderr
    assert ("CVE-3", "affected", None, None) in listed(trusting, image)


@pytest.mark.long
def test_a_signed_document_is_not_removed_by_its_statement(trusting: dict[str, str], image: str) -> None:
    assert run(
        trusting, "advisory", "add", image, "--status", "affected", "--id", "CVE-1", "--key", str(KEY)
    ).returncode == 0  # fmt: skip
    removed = run(trusting, "advisory", "remove", image, "--id", "CVE-1", "--yes")
    assert "CVE-1" in removed.stderr
    assert [row[0] for row in listed(trusting, image)] == ["CVE-1"]


@pytest.mark.long
def test_import_signs(trusting: dict[str, str], image: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(
        json.dumps(
            {
                "@context": "https://openvex.dev/ns/v0.2.0", "@id": "urn:x", "author": "them", "version": 1,
                "timestamp": "2026-11-01T00:00:00Z",
                "statements": [{"vulnerability": {"name": "CVE-9"}, "status": "fixed", "products": []}],
            }
        )
    )  # fmt: skip
    done = run(trusting, "advisory", "import", str(report), "--for", image, "--key", str(KEY))
    assert done.returncode == 0, done.stderr
    assert listed(trusting, image) == [("CVE-9", "fixed", "verified", "team")]


def test_the_password_comes_from_a_file(environment: dict[str, str], image: str, tmp_path: Path) -> None:
    add = ("advisory", "add", image, "--status", "fixed", "--id", "CVE-1", "--key", str(KEY))
    password = tmp_path / "password"
    password.write_bytes(PASSWORD + b"\n")
    assert run(environment, *add, "--key-password-file", str(password)).returncode == 0
    assert listed(environment, image) == [("CVE-1", "fixed", "not verified", None)]


@pytest.mark.parametrize(
    ("password", "why"), [(None, "there is nobody to ask for it"), ("wrong-secret", "the password is wrong")]
)
def test_nothing_is_written_without_the_password(
    environment: dict[str, str], image: str, password: str | None, why: str
) -> None:
    chosen = environment if password is None else {**environment, "DIGESTRY_KEY_PASSWORD": password}
    done = run(chosen, "advisory", "add", image, "--status", "fixed", "--id", "C", "--key", str(KEY))
    assert done.returncode == 2
    assert why in done.stderr
    assert "wrong-secret" not in done.stderr
    assert listed(environment, image) == []


def test_a_mistake_in_the_settings_is_named(environment: dict[str, str], image: str) -> None:
    home = Path(environment["DIGESTRY_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text('[advisories.trusted-keys]\nteam = "missing.pub"\n')
    for command in (("advisory", "list", image), ("audit", "--source", "file:nothing.json")):
        done = run(environment, *command)
        assert done.returncode == 2
        assert "missing.pub" in done.stderr
    # Other commands do not read the keys.
    assert run(environment, "digest", image).returncode == 0


def test_another_key_is_not_trusted(trusting: dict[str, str], image: str, tmp_path: Path) -> None:
    from tests.advisories.signed import pem

    other = tmp_path / "other.key"
    other.write_bytes(pem("P-384"))
    assert signing_key("P-384").public_pem
    done = run(
        trusting, "advisory", "add", image, "--status", "affected", "--id", "CVE-1", "--key", str(other)
    )
    assert "does not count: no trusted key has made its signature" in done.stderr
    assert listed(trusting, image) == []
    report = run(trusting, "advisory", "list", image)
    assert report.returncode == 0
    assert "does not count: no trusted key has made its signature" in report.stderr


def test_explain_says_who_may_state_what(trusting: dict[str, str]) -> None:
    done = run(trusting, "config", "explain", "registry.example.com/app", "--format", "json")
    said = {one["key"]: one["value"] for one in json.loads(done.stdout)["statements"]}
    assert {key: value for key, value in said.items() if key.startswith("states ")} == {
        "states affected": "anybody",
        "states under_investigation": "anybody",
        "states fixed": "signed by team",
        "states not_affected": "signed by team",
    }
    assert "states" not in run(trusting, "config", "explain", "registry.example.com").stdout


@pytest.mark.long
def test_a_layer_is_signed_as_a_bundle_alone(
    trusting: dict[str, str], image: str, registry: RegistryServer
) -> None:
    where, _, digest = image.partition("@")
    name = where.partition("/")[2]
    manifest = registry.request("GET", f"/v2/{name}/manifests/{digest}").json()
    layer = f"{where}@{manifest['layers'][0]['digest']}"
    add = ("advisory", "add", layer, "--status", "affected", "--id", "CVE-1", "--key", str(KEY))
    refused = run(trusting, *add, "--signed-as", "tag")
    assert refused.returncode == 2
    assert "is a layer, and cosign's tags are those of images" in refused.stderr
    assert run(trusting, *add).returncode == 0
    assert listed(trusting, layer) == [("CVE-1", "affected", "verified", "team")]
