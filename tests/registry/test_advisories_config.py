"""Whose advisories count where the registry judges what runs: the configuration, and the judgement."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from digestry.advisories.signatures import UNSIGNED, Signature
from digestry.advisories.trust import TRUST_EVERYBODY
from digestry.errors import InvalidConfiguration
from digestry.model.reference import Reference
from tests.advisories.signed import PASSWORD, RECORDED
from tests.registry.access.test_config import loaded
from tests.registry.test_fleet import image, post, report, started
from tests.support import PATIENCE, RegistryServer, run_digestry, start_registry

TABLE = """
[advisories.trusted-keys]
team = "cosign.pub"

[[advisories.rules]]
repositories = ["prod"]
statuses = ["fixed", "not_affected"]
signers = ["team"]
"""


def test_names_have_no_host(tmp_path: Path) -> None:
    shutil.copy(RECORDED / "cosign.pub", tmp_path)
    trust = loaded(tmp_path, TABLE).trust
    for name, bound in (("prod/app", True), ("prod", True), ("production", False), ("team/prod", False)):
        repository = Reference("any.example", name)
        assert bool(trust.objection(UNSIGNED, "fixed", repository)) == bound
        assert not trust.objection(Signature("verified", "team"), "fixed", repository)
    assert loaded(tmp_path, "").trust is TRUST_EVERYBODY


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (TABLE.replace('"prod"', '"Prod"'), "write the beginning of repositories"),
        (TABLE.replace('"prod"', '"*.example"'), "write the beginning of repositories"),
        (TABLE.replace("cosign.pub", "missing.pub"), "cannot read 'missing.pub'"),
        ("advisories = 1", "must be a table"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, why: str) -> None:
    shutil.copy(RECORDED / "cosign.pub", tmp_path)
    with pytest.raises(InvalidConfiguration) as raised:
        loaded(tmp_path, text)
    assert why in f"{raised.value.message} {raised.value.hint}"


def judged(server: RegistryServer, digest: object) -> Any:
    answer = server.request("GET", f"/v2/_digestry/fleet/runs?digest={digest}&with-images=1").json()
    (one,) = answer["images"]
    return one


@pytest.mark.long
def test_the_registry_judges_by_it(tmp_path: Path) -> None:
    shutil.copy(RECORDED / "cosign.pub", tmp_path)
    configuration = tmp_path / "registry.toml"
    configuration.write_text(TABLE)
    server = start_registry(tmp_path / "root", "--config", str(configuration))
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "DIGESTRY_HOME": str(tmp_path / "home"),
        "COSIGN_PASSWORD": PASSWORD.decode(),
    }  # fmt: skip
    try:
        digest = server.push_image("prod/app", "1", os.urandom(8))
        name = f"{server.host}/prod/app@{digest}"
        post(server, report("h1", started("c1"), images={"i": image(name.replace("@", ":1@"), digest)}))
        add = ("advisory", "add", name, "--id", "CVE-1", "--status")
        assert run_digestry(*add, "fixed", env=environment, timeout=30).returncode == 0
        assert (
            run_digestry(
                *add, "affected", "--timestamp", "2020-01-01T00:00:00Z", env=environment, timeout=30
            ).returncode
            == 0
        )
        until(server, digest, "affected")
        signed = run_digestry(
            *add, "fixed", "--key", str(RECORDED / "cosign.key"), env=environment, timeout=30
        )
        assert signed.returncode == 0, signed.stderr
        until(server, digest, "fixed")
    finally:
        server.stop()


def until(server: RegistryServer, digest: object, state: str) -> None:
    end = time.monotonic() + PATIENCE
    while (found := judged(server, digest))["verdict"]["state"] != state:
        assert time.monotonic() < end, json.dumps(found)
        time.sleep(0.2)
