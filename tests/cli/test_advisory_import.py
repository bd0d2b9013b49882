"""``digestry advisory import``, as its own program, against a running registry."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.advisories.test_scanner_reports import openssl, trivy
from tests.cli.test_audit import environment, inventory, run
from tests.support import RegistryServer

__all__ = ["environment"]  # a fixture


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "cli/import/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


def report(path: Path, image: str, *names: str) -> str:
    findings = [openssl(one) for one in names]
    path.write_text(json.dumps(trivy(*findings, Metadata={"RepoDigests": [image]}, ArtifactName="")))
    return str(path)


def test_from_a_report_to_the_audit(
    environment: dict[str, str], registry: RegistryServer, name: str, tmp_path: Path
) -> None:
    digest = registry.push_image(name, "1", name.encode())
    image = f"{registry.host}/{name}@{digest}"
    file = report(tmp_path / "report.json", image, "CVE-1", "CVE-2")
    dry = run(environment, "advisory", "import", file, "--dry-run")
    assert (dry.returncode, "nothing was written" in dry.stderr) == (0, True)
    listed = run(environment, "advisory", "list", image, "--format", "json")
    assert json.loads(listed.stdout) == []
    done = run(environment, "advisory", "import", file)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{re.escape(registry.host)}/{name} +{digest.short} +2 ", done.stdout)
    seen = inventory(
        {"host": "n", "name": "c", "reference": f"{registry.host}/{name}:1", "digest": str(digest)}
    )
    audited = run(environment, "audit", "--source", "file:-", "--format", "json", stdin=seen)
    (container,) = json.loads(audited.stdout)["containers"]
    assert container["advisory_state"] == "affected"
    assert {one["id"] for one in container["advisories"]} == {"CVE-1", "CVE-2"}
    again = run(environment, "advisory", "import", "-", "--format", "json", stdin=Path(file).read_text())
    assert json.loads(again.stdout)["images"] == [
        {
            "name": f"{registry.host}/{name}", "digest": str(digest), "new": {}, "stated": 2, "assessed": 0,
            "advisories": [],
        }
    ]  # fmt: skip


def test_an_image_that_was_deleted_is_still_stated_about(
    environment: dict[str, str], registry: RegistryServer, name: str, tmp_path: Path
) -> None:
    digest = registry.push_image(name, "1", name.encode())
    assert registry.request("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    done = run(
        environment, "advisory", "import",
        report(tmp_path / "r", f"{registry.host}/{name}@{digest}", "CVE-1"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = registry.request("GET", f"/v2/{name}/referrers/{digest}")
    assert len(json.loads(listed.body)["manifests"]) == 1


def test_what_matched_nothing_is_exit_4_and_what_cannot_be_read_is_exit_2(
    environment: dict[str, str], registry: RegistryServer, name: str, tmp_path: Path
) -> None:
    lost = run(
        environment, "advisory", "import",
        report(tmp_path / "r", f"{registry.host}/{name}@sha256:{'0' * 64}", "CVE-1"),
    )  # fmt: skip
    assert lost.returncode == 4
    assert "1 statement about" in lost.stderr
    assert "matched no image" in lost.stderr
    (tmp_path / "odd").write_text('{"hello": "\\u001b[31m"}')
    odd = run(environment, "advisory", "import", str(tmp_path / "odd"))
    assert (odd.returncode, "of an unknown kind" in odd.stderr) == (2, True)
    assert run(environment, "advisory", "import", str(tmp_path / "none")).returncode == 2
