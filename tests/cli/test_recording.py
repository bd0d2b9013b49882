"""``digestry audit --record``: registries are told what runs, and ``digestry whose`` shows it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from digestry.model.digest import Digest
from tests.cli.test_audit_output import watching
from tests.client.docker_registry import running_docker_registry
from tests.client.liar import Reply, Request, lying
from tests.registry.access.support import guarded, of
from tests.support import RegistryServer, run_digestry, start_registry, wait_until


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Nothing of this machine's own: no engine answers here, and nobody is logged in."""
    return {
        "PATH": str(tmp_path), "HOME": str(tmp_path), "DIGESTRY_HOME": str(tmp_path / "home"),
        "DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "XDG_RUNTIME_DIR": str(tmp_path),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "DOCKER_CONFIG": str(tmp_path),
    }  # fmt: skip


@pytest.fixture
def name() -> str:
    return f"recording/{secrets.token_hex(6)}"


def run(environment: Mapping[str, str], *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    done = run_digestry(*arguments, env=environment, given=given, timeout=60)  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def fleet(reference: str, digest: Digest, *hosts: str) -> list[dict[str, str]]:
    return [
        {"host": host, "name": f"c{number}", "reference": reference, "digest": str(digest)}
        for number, host in enumerate(hosts)
    ]


def record(
    environment: Mapping[str, str], entries: list[dict[str, str]], *arguments: str
) -> subprocess.CompletedProcess[str]:
    return run(environment, "audit", "--source", "file:-", "--record", *arguments, given=json.dumps(entries))


def places(registry: RegistryServer, name: str, digest: object) -> dict[str, int]:
    found = registry.request("GET", f"/v2/{name}/_digestry/sightings/{digest}").json()
    return {one["place"]: one["containers"] for one in found["sightings"]}


def test_each_digest_once_for_each_place(
    environment: dict[str, str], registry: RegistryServer, name: str
) -> None:
    old, new = (registry.push_image(name, "1.5", os.urandom(8)) for _ in range(2))
    reference = f"{registry.host}/{name}:1.5"
    entries = fleet(reference, old, "n1", "n1", "n2") + fleet(reference, new, "n1")
    done = record(environment, entries, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["containers"]) == 4  # nothing else is on standard output
    assert done.stderr == f"digestry: recorded at {registry.host}: 3 sightings\n"
    assert places(registry, name, old) == {"n1": 2, "n2": 1}
    assert places(registry, name, new) == {"n1": 1}
    # Without the option nothing is told.
    run(environment, "audit", "--source", "file:-", given=json.dumps(fleet(reference, old, "n3")))
    assert set(places(registry, name, old)) == {"n1", "n2"}


def test_whose_shows_where(environment: dict[str, str], registry: RegistryServer, name: str) -> None:
    digest = registry.push_image(name, "1.5", os.urandom(8))
    full = f"{registry.host}/{name}"
    before = run(environment, "whose", f"{full}@{digest}")
    assert "SEEN AT" not in before.stdout
    record(environment, fleet(f"{full}:1.5", digest, "n1", "n1", "node \u202ereversed"))
    lines = run(environment, "whose", f"{full}@{digest}").stdout.splitlines()
    assert lines[:2] == before.stdout.splitlines()
    assert lines[3].split() == ["SEEN", "AT", "CONTAINERS", "FIRST", "LAST"]
    assert lines[4].split()[:2] == ["n1", "2"]
    assert lines[5].startswith("node \\u202ereversed   1")
    alone = ("whose", str(digest), "--registry", registry.host)
    assert f"{name}   n1" in run(environment, *alone).stdout
    (row,) = json.loads(run(environment, *alone, "--format", "json").stdout)
    first = row["seen"][0]
    assert (first["place"], first["containers"]) == ("n1", 2)
    assert first["last_seen_at"].endswith("Z")


def test_what_is_left_out_is_said(environment: dict[str, str], registry: RegistryServer, name: str) -> None:
    digest = registry.push_image(name, "1.5", os.urandom(8))
    entries = fleet(f"{registry.host}/{name}:1.5", digest, "n1")
    entries += fleet(f"{registry.host}/{name}:1.5", Digest.of(os.urandom(8)), "n1", "n2")
    done = record(environment, entries)
    assert done.stderr.splitlines() == [
        f"digestry: recorded at {registry.host}: 1 sighting",
        "digestry: not recorded: 2 containers whose image no registry confirmed",
    ]


def test_another_registry_is_not_sent_what_runs(environment: dict[str, str], name: str) -> None:
    with running_docker_registry() as host:
        other = RegistryServer(host, None, Path())  # type: ignore[arg-type]  # it is asked, not stopped
        digest = _push(other, name)
        done = record(environment, fleet(f"{host}/{name}:1", digest, "n1"))
        assert done.returncode == 0, done.stderr
        assert done.stderr == f"digestry: not recorded: {host} keeps no sightings\n"


def _push(registry: RegistryServer, name: str) -> Digest:
    """As registries want it that know no upload in one request."""
    document = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    ).encode()
    kind = "application/vnd.oci.image.manifest.v1+json"
    start = registry.request("POST", f"/v2/{name}/blobs/uploads/")
    path = start.headers["location"].partition(registry.host)[2]
    digest = Digest.of(document)
    assert registry.request("PUT", f"{path}&digest={digest}", document).status == 201
    config = {
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(digest), "size": len(document)
    }  # fmt: skip
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []}
    return registry.push_manifest(name, "1", manifest)


@pytest.fixture
def refusing(registry: RegistryServer) -> Iterator[str]:
    """A registry that tells everything, and takes no sightings."""

    def answer(request: Request) -> Reply:
        if request.path == "/v2/_digestry/sightings":
            return Reply(507, b'{"errors":[{"code":"UNKNOWN","message":"no space left"}]}')
        found = registry.request(request.method, request.target, request.body or None, request.headers)
        kept = {"content-type", "docker-content-digest"}
        headers = {key: value for key, value in found.headers.items() if key in kept}
        return Reply(found.status, found.body, headers)

    with lying() as liar:
        liar.answer = answer
        yield liar.host


def test_a_registry_that_takes_nothing_is_a_warning(
    environment: dict[str, str], registry: RegistryServer, refusing: str, name: str
) -> None:
    digest = registry.push_image(name, "1.5", os.urandom(8))
    done = record(environment, fleet(f"{refusing}/{name}:1.5", digest, "n1"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 container on n1: 1 not assessed\n")
    assert f"not recorded at {refusing}: cannot tell what runs" in done.stderr
    assert "no space left" in done.stderr


@pytest.mark.long
def test_who_has_no_name_is_told_to_log_in(environment: dict[str, str], tmp_path: Path) -> None:
    with guarded() as server:
        pushed = of(server, "carol").push_image("public/base", "1", os.urandom(8))
        digest = Digest.parse(pushed.headers["docker-content-digest"])
        entries = fleet(f"{server.host}/public/base:1", digest, "n1")
        done = record(environment, entries)
        assert done.returncode == 0, done.stdout
        assert "log in to report what runs" in done.stderr
        assert f"digestry login {server.host}" in done.stderr
        login = of(server, "bob").headers["Authorization"].removeprefix("Basic ")
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": login}}}))
        assert record(environment, entries).stderr == f"digestry: recorded at {server.host}: 1 sighting\n"


@pytest.mark.long
def test_again_and_again(
    environment: dict[str, str], registry: RegistryServer, name: str, tmp_path: Path
) -> None:
    digest = registry.push_image(name, "1.5", os.urandom(8))
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(fleet(f"{registry.host}/{name}:1.5", digest, "n1")))
    with watching(environment, "--source", f"file:{path}", "--record"):
        wait_until(lambda: places(registry, name, digest) == {"n1": 1}, what="the first round")
        first = _last(registry, name, digest)
        path.write_text(json.dumps(fleet(f"{registry.host}/{name}:1.5", digest, "n1", "n1")))
        wait_until(lambda: places(registry, name, digest) == {"n1": 2}, what="another round")
        assert _last(registry, name, digest) > first


def _last(registry: RegistryServer, name: str, digest: Digest) -> str:
    found: dict[str, Any] = registry.request("GET", f"/v2/{name}/_digestry/sightings/{digest}").json()
    return str(found["sightings"][0]["last"])


@pytest.mark.long
def test_what_runs_is_kept_though_its_tag_has_left_it(environment: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "registry.toml"
    config.write_text('[collection]\nevery = "off"\nlease = "1s"\nuntagged = "0s"\nsighted = "90d"\n')
    root = tmp_path / "root"
    server = start_registry(root, "--config", str(config))
    try:
        ran, idle, current = (server.push_image("app", "1.5", os.urandom(8)) for _ in range(3))
        assert "1 sighting\n" in record(environment, fleet(f"{server.host}/app:1.5", ran, "n1")).stderr

        def status(digest: Digest) -> int:
            return server.request("HEAD", f"/v2/app/manifests/{digest}").status

        def collected() -> bool:
            done = run(environment, "gc", "--root", str(root), "--config", str(config), "--format", "json")
            assert done.returncode == 0, done.stderr
            gone = [item for item in json.loads(done.stdout)["items"] if item["kind"] == "manifest"]
            return str(idle) in [item["name"] for item in gone]

        # As soon as the lease of the push has ended.
        wait_until(collected, what="the collection of what nothing holds")
        time.sleep(1.1)  # what the audit looked at has a lease, too
        assert not collected()
        assert [status(digest) for digest in (ran, idle, current)] == [200, 404, 200]
    finally:
        server.stop()
