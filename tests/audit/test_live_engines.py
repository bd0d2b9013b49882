"""Three engines on one machine, and a registry that remembers beside one that is shut down: what the
audit says of each container, in one call."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from digestry.errors import Unreachable
from digestry.inventory.engines.client import Engine as Asked
from digestry.inventory.engines.endpoints import TLS, Endpoint
from digestry.model.json_values import as_object
from tests import certificates
from tests.e2e.engines import (
    Engine,
    Layout,
    docker_engine,
    docker_registry,
    podman_only,
    podman_service,
    podman_storage,
    root_file_system,
    tar,
)
from tests.support import PATIENCE, RegistryServer, digestry, free_port, program, running_registry

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("docker"),
    pytest.mark.peer("dockerd"),
    pytest.mark.peer("podman"),
]

_INSECURE = "--tls-verify=false"
_FOREVER = ("busybox", "sleep", "1000")


@dataclass
class Site:
    """The engines and registries, and which digest is which."""

    first: Engine
    second: Engine
    podman: Engine
    registry: RegistryServer
    sources: list[str]
    environment: dict[str, str]
    digests: dict[str, str] = field(default_factory=dict)

    def build(self, name: str, says: str) -> str:
        """Builds and pushes an image from the first engine; returns its digest."""
        lines = f"FROM base:1\nLABEL says={says}\nENV PATH=/bin\nCMD {json.dumps(_FOREVER)}\n"
        content = tar({"Dockerfile": lines.encode()})
        self.first("build", "--quiet", "--network=none", f"--tag={name}", "-", stdin=content)
        self.first("push", name)
        repository = name.rpartition(":")[0]
        pairs = self.first.json("image", "inspect", "--format={{json .RepoDigests}}", name)
        digest = next(pair.rpartition("@")[2] for pair in pairs if pair.startswith(repository + "@"))
        self.digests[says] = digest
        return str(digest)

    def start(self, engine: Engine, image: str, name: str) -> None:
        engine("run", "--detach", "--network=none", f"--name={name}", image)

    def start_podman(self, image: str, name: str) -> None:
        self.podman("pull", "--quiet", _INSECURE, image)
        # The limits of the machine's defaults may be above what this process may set.
        limits = ("--ulimit=nofile=256:256", "--ulimit=nproc=512:512")
        self.podman("run", "--detach", "--network=none", *limits, f"--name={name}", image)

    def audit(self, *options: str) -> tuple[int, dict[str, Any]]:
        """``digestry audit`` of all three engines: its exit code, and its document."""
        sources = [f"--source={one}" for one in self.sources]
        tool = Engine(tuple(digestry("audit", "--format", "json", *sources)), self.environment)
        done = tool.attempt(*options)
        assert done.returncode in {0, 1, 3}, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, document


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("site")
    pki = certificates.make(home / "pki")
    certificate, key = pki.server
    port = free_port()
    with contextlib.ExitStack() as stack:
        registry = stack.enter_context(running_registry())
        first = stack.enter_context(docker_engine())
        second = stack.enter_context(
            docker_engine(
                f"--host=tcp://127.0.0.1:{port}",
                "--tlsverify",
                f"--tlscacert={pki.authority}",
                f"--tlscert={certificate}",
                f"--tlskey={key}",
            )
        )
        storage = stack.enter_context(podman_storage())
        podman = Engine((program("podman"), *storage, *podman_only(home)), {"HOME": str(home)})
        service = stack.enter_context(podman_service(podman))
        first("import", "-", "base:1", stdin=root_file_system())
        yield Site(
            first,
            second,
            podman,
            registry,
            [
                f"docker:{first.environment['DOCKER_HOST']}",
                f"docker:https://127.0.0.1:{port}",
                f"podman:{service}",
            ],
            {"DOCKER_CERT_PATH": str(pki.directory), "HOME": str(home), "DIGESTRY_HOME": str(home)},
        )


@pytest.fixture(scope="module")
def rows(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is started, in the order of time, and then the audit's document, with rows by name."""
    app = f"{site.registry.host}/live/app"
    site.build(f"{app}:1", "one")
    site.start(site.first, f"{app}:1", "d-one")
    site.build(f"{app}:1", "two")  # the tag moves
    site.start(site.second, f"{app}:1", "e-two")
    site.build(f"{app}:1", "three")  # and again
    site.start_podman(f"{app}:1", "p-three")
    site.build(f"{app}:1", "four")  # and again
    site.start(site.first, f"{app}:1", "d-four")
    site.start(site.second, f"{app}@{site.digests['one']}", "e-pinned")

    site.build(f"{app}:loaded", "loaded")
    archive = tmp_path_factory.mktemp("archive") / "image.tar"
    site.first("save", f"--output={archive}", f"{app}:loaded")
    site.second("load", f"--input={archive}")
    site.start(site.second, f"{app}:loaded", "e-loaded")

    site.build(f"{app}:gone", "gone")
    site.start_podman(f"{app}:gone", "p-gone")
    assert site.registry.request("DELETE", "/v2/live/app/manifests/gone").status == 202

    layout = Layout(tmp_path_factory.mktemp("layout") / "oci")
    images = [
        layout.image([root_file_system(arch=name.encode())], *_FOREVER, architecture=name)
        for name in ("amd64", "arm64")
    ]
    site.digests["child"] = images[0]["digest"]
    site.digests["index"] = str(layout.name(layout.index(images), "multi"))
    skopeo = Engine((program("skopeo"), "--insecure-policy"))
    target = f"docker://{site.registry.host}/live/multi:1"
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout.path}:multi", target)
    site.start(site.second, f"{site.registry.host}/live/multi:1", "e-multi")
    site.start_podman(f"{site.registry.host}/live/multi:1", "p-multi")

    with docker_registry() as down:
        site.build(f"{down}/away/app:1", "away")
        site.start(site.first, f"{down}/away/app:1", "d-away")
        site.digests["down"] = down

    tool = Engine(tuple(digestry()), site.environment)
    tool(
        *("advisory", "add", f"{app}@{site.digests['one']}", "--id", "CVE-2026-1", "--status", "affected"),
        *("--fixed-by", f"{app}@{site.digests['four']}"),
    )
    code, document = site.audit()
    document["code"] = code
    document["rows"] = {row["name"]: row for row in document["containers"]}
    return document


def test_every_container_has_one_right_row(site: Site, rows: dict[str, Any]) -> None:
    d = site.digests
    keys = ("running_digest", "found_by", "tag_state", "tag_digest", "advisory_state")
    assert {name: tuple(row[key] for key in keys) for name, row in rows["rows"].items()} == {
        "d-one": (d["one"], "repo-digest", "moved", d["four"], "affected"),
        "e-two": (d["two"], "repo-digest", "moved", d["four"], "not_assessed"),
        "p-three": (d["three"], "repo-digest", "moved", d["four"], "not_assessed"),
        "d-four": (d["four"], "repo-digest", "current", d["four"], "fixed"),
        "e-pinned": (d["one"], "repo-digest", "pinned", None, "affected"),
        "e-loaded": (d["loaded"], "image-id", "current", d["loaded"], "not_assessed"),
        "p-gone": (d["gone"], "repo-digest", "moved", None, "not_assessed"),
        "e-multi": (d["index"], "repo-digest", "current", d["index"], "not_assessed"),
        "p-multi": (d["index"], "repo-digest", "current", d["index"], "not_assessed"),
        "d-away": (d["away"], "repo-digest", "unknown", None, "unknown"),
    }
    assert len(rows["containers"]) == len(rows["rows"])
    assert rows["code"] == 1


def test_the_tag_left_each_in_the_order_of_its_moves(rows: dict[str, Any]) -> None:
    left = [rows["rows"][name]["moved_at"] for name in ("d-one", "e-two", "p-three", "p-gone")]
    assert None not in left
    assert left == sorted(left)
    assert len(set(left[:3])) == 3
    assert rows["rows"]["d-four"]["moved_at"] is None
    assert "was deleted" in " ".join(rows["rows"]["p-gone"]["reasons"])


def test_each_is_told_what_to_do(site: Site, rows: dict[str, Any]) -> None:
    app = f"{site.registry.host}/live/app"
    assert rows["rows"]["d-one"]["action"] == f"restart from {app}@{site.digests['four']}"
    (advisory,) = rows["rows"]["e-pinned"]["advisories"]
    assert (advisory["id"], advisory["subject"]) == ("CVE-2026-1", f"{app}@{site.digests['one']}")


def test_a_registry_that_is_down_is_a_problem_and_no_guess(site: Site, rows: dict[str, Any]) -> None:
    row = rows["rows"]["d-away"]
    assert row["confirmed"] is False
    assert all(other["confirmed"] for name, other in rows["rows"].items() if name != "d-away")
    assert any("no registry confirmed it" in reason for reason in row["reasons"])
    assert [one["source"] for one in rows["problems"]] == [f"registry {site.digests['down']}"]


def test_an_index_is_not_taken_for_its_child(site: Site, rows: dict[str, Any]) -> None:
    for name in ("e-multi", "p-multi"):
        row = rows["rows"][name]
        assert row["manifest_digest"] == site.digests["child"]
        assert row["platform"] == "linux/amd64"


def test_files_say_what_the_engines_say(site: Site, rows: dict[str, Any], tmp_path: Path) -> None:
    """``inspect`` of containers and images, written to a file, is as good as the engine."""
    path = tmp_path / "first.json"
    ids = site.first("ps", "--quiet").split()
    images = site.first("images", "--quiet", "--no-trunc").split()
    path.write_text(site.first("inspect", *ids, *dict.fromkeys(images)))
    tool = Engine(tuple(digestry()), site.environment)
    done = tool.attempt("audit", "--format", "json", f"--source=file:{path}?host=n1")
    found = {row["name"]: row for row in json.loads(done.stdout)["containers"]}
    assert sorted(found) == ["d-away", "d-four", "d-one"]
    assert {row["host"] for row in found.values()} == {"n1"}
    for name, row in found.items():
        for key in (
            "reference",
            "running_digest",
            "found_by",
            "tag_state",
            "moved_at",
            "advisory_state",
            "id",
        ):
            assert row[key] == rows["rows"][name][key], (name, key)


def test_a_real_engine_on_tls(site: Site, tmp_path: Path) -> None:
    pki = Path(site.environment["DOCKER_CERT_PATH"])
    url = site.sources[1].removeprefix("docker:").replace("https:", "tcp:")
    with contextlib.closing(Asked(Endpoint(url, TLS.of_directory(pki)), timeout=PATIENCE)) as engine:
        assert as_object(engine.get("/info"))["Name"]
        assert as_object(engine.get("/version"))["Version"]
    stranger = certificates.make(tmp_path / "pki")
    with pytest.raises(Unreachable, match="not to be trusted"):
        Asked(Endpoint(url, TLS.of_directory(stranger.directory)), timeout=PATIENCE).get("/info")


def test_dockers_context_is_what_docker_asks(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contexts that docker's own client made, with TLS: the same engine answers us and it."""
    pki = Path(site.environment["DOCKER_CERT_PATH"])
    url = site.sources[1].removeprefix("docker:").replace("https:", "tcp:")
    docker = Engine((program("docker"),), {"DOCKER_CONFIG": str(tmp_path)})
    files = f"host={url},ca={pki}/ca.pem,cert={pki}/cert.pem,key={pki}/key.pem"
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    docker("context", "create", "far", "--docker", files)
    docker("context", "use", "far")
    told = set(docker("ps", "--format={{.Names}}").split())
    tool = Engine(
        tuple(digestry()), {**site.environment, "DOCKER_CONFIG": str(tmp_path), "DOCKER_CERT_PATH": ""}
    )
    for source in ("docker", "docker:far"):
        done = tool.attempt("audit", "--format", "json", "--source", source)
        assert {row["name"] for row in json.loads(done.stdout)["containers"]} == told == {
            "e-loaded", "e-multi", "e-pinned", "e-two",
        }  # fmt: skip


def test_over_ssh_the_real_programs_relay(site: Site, rows: dict[str, Any], tmp_path: Path) -> None:
    """``ssh`` is a program that runs here what it was to run there, through a shell as sshd does."""
    path = tmp_path / "ssh"
    path.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift 2\nexec /bin/sh -c "$*"\n')
    path.chmod(0o755)
    environment = {**site.environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    tool = Engine(tuple(digestry()), environment)
    for source, names in (
        (site.sources[0], ["d-away", "d-four", "d-one"]),
        (site.sources[2], ["p-gone", "p-multi", "p-three"]),
    ):
        over = source.replace(":unix://", ":ssh://me@far.example")
        done = tool.attempt("audit", "--format", "json", "--timeout=100", "--source", over)
        found = {row["name"]: row for row in json.loads(done.stdout)["containers"]}
        assert sorted(found) == names
        for name, row in found.items():
            assert row["running_digest"] == rows["rows"][name]["running_digest"]
