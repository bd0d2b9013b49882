"""``digestry scan``, as its own program, with a scanner that a test wrote, against a running registry."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.advisories.test_scanner_reports import openssl, trivy
from tests.cli.test_audit import environment, run
from tests.support import RegistryServer

__all__ = ["environment"]  # a fixture

SCANNER = """
import json, sys
from pathlib import Path
layout, report = map(Path, sys.argv[1:3])
(entry,) = json.loads((layout / "index.json").read_text())["manifests"]
manifest = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_text())
value = json.loads(report.read_text())
value["Metadata"] = {"ImageID": manifest["config"]["digest"]}
value["ArtifactName"] = str(layout)
json.dump(value, sys.stdout)
"""


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "cli/scan/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


@pytest.fixture
def scanner(tmp_path: Path) -> str:
    (tmp_path / "scanner.py").write_text(SCANNER)
    (tmp_path / "report.json").write_text(json.dumps(trivy(openssl(), openssl("CVE-2", Severity="LOW"))))
    program, report = tmp_path / "scanner.py", tmp_path / "report.json"
    return f"{shlex.quote(sys.executable)} {program} {{layout}} {report}"


def test_what_a_scanner_finds_is_stated(
    environment: dict[str, str], registry: RegistryServer, name: str, scanner: str
) -> None:
    digest = registry.push_image(name, "1", name.encode())
    image = f"{registry.host}/{name}:1"
    done = run(environment, "scan", image, "--scanner", scanner, "--severity", "HIGH")
    assert done.returncode == 0, done.stderr
    assert "1 statement left out by --severity" in done.stderr
    listed = json.loads(run(environment, "advisory", "list", image, "--format", "json").stdout)
    (row,) = listed
    assert (row["vulnerability"], row["author"]) == ("CVE-1", "Trivy 0.74.0")
    assert (row["repository"], row["digest"]) == (f"{registry.host}/{name}", str(digest))
    assert not list((Path(environment["DIGESTRY_HOME"]) / "transfers").glob("scan-*"))


@pytest.mark.long
def test_the_platforms_of_an_index_are_scanned(
    environment: dict[str, str], registry: RegistryServer, name: str, scanner: str
) -> None:
    where = f"{registry.host}/{name}"
    platforms = ("linux/amd64", "linux/arm64")
    for platform in platforms:
        folder = Path(environment["HOME"]) / platform
        folder.mkdir(parents=True)
        (folder / "file").write_text(platform)
        tag = platform.partition("/")[2]
        packed = run(
            environment, "pack", str(folder), "--tag", f"{where}:{tag}", "--platform", platform, "--push"
        )
        assert packed.returncode == 0, packed.stderr
    made = run(environment, "index", "create", f"{where}:1", f"{where}:amd64", f"{where}:arm64")
    assert made.returncode == 0, made.stderr
    options = [option for platform in platforms for option in ("--platform", platform)]
    done = run(environment, "scan", f"{where}:1", "--scanner", scanner, *options, "--format", "json")
    assert done.returncode == 0, done.stderr
    stated = json.loads(done.stdout)["images"]
    children = {run(environment, "digest", f"{where}:{tag}").stdout.strip() for tag in ("amd64", "arm64")}
    assert {one["digest"] for one in stated} == children
    assert [one["new"] for one in stated] == [{"affected": 2}, {"affected": 2}]


@pytest.mark.parametrize(
    ("choice", "code", "says"),
    [
        ("", 2, "neither trivy nor grype is on the PATH: nothing was scanned"),
        ("trivy", 2, "trivy is not on the PATH: nothing was scanned"),
        ("other", 2, "other is not a scanner that is known here"),
        ("/bin/false {layout}", 3, "false ended with exit code 1, and printed no report"),
        ("/bin/nothing-here {layout}", 2, "cannot run nothing-here: No such file"),
        ("/bin/echo {layout}", 3, "echo: it is not JSON"),
        ("'{layout}", 2, "the scanner's command cannot be read"),
    ],
)
def test_a_scanner_that_is_not_there_or_fails(
    environment: dict[str, str], registry: RegistryServer, choice: str, code: int, says: str
) -> None:
    name = "cli/scan/failing"
    registry.push_image(name, "1", name.encode())
    done = run(environment, "scan", f"{registry.host}/{name}:1", "--scanner", choice)
    assert done.returncode == code, done.stderr
    assert says in done.stderr


def test_a_report_on_another_image_is_not_believed(
    environment: dict[str, str], registry: RegistryServer, name: str, tmp_path: Path
) -> None:
    registry.push_image(name, "1", name.encode())
    (tmp_path / "report.json").write_text(json.dumps(trivy(openssl())))
    done = run(
        environment, "scan", f"{registry.host}/{name}:1", "--scanner",
        f"/bin/sh -c '/bin/cat {tmp_path}/report.json' {{layout}}",
    )  # fmt: skip
    assert done.returncode == 3
    assert "it is about another image" in done.stderr
