"""``digestry token``: the tokens that programs log in with."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.backend import open_backend
from tests.registry.access.support import As, basic, bearer, guarded, of, token
from tests.registry.support import query
from tests.support import RegistryServer, run_digestry, start_registry, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with guarded() as server:
        assert of(server, "alice").push_image("team/app", "1").status == 201
        yield server


def call(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    verb, *rest = arguments
    return run_digestry("token", verb, "--root", root, *rest, timeout=30)


def created(server: RegistryServer, name: str) -> str:
    done = call(server.root, "create", name)
    assert done.returncode == 0, done.stderr
    assert f"robot${name}, until " in done.stderr
    return done.stdout.strip()


@pytest.mark.long
def test_a_robot_logs_in_pushes_and_pulls(server: RegistryServer) -> None:
    secret = created(server, "ci")
    assert secret.startswith("dgr_")
    for headers in (basic("robot$ci", secret), bearer(secret)):
        asking = As(server, headers)
        assert asking.request("GET", "/v2/").status == 200
        assert asking.push_image("team/robots", f"t{len(headers['Authorization'])}").status == 201
        assert asking.push_image("team/robots", "moved", headers["Authorization"].encode()).status in {
            201,
            403,
        }
        assert asking.push_image("bob/tool", "1").status == 403
        assert asking.request("GET", "/v2/secret/x/tags/list").status == 404
    given = token(server, "repository:team/robots:pull", headers=basic("robot$ci", secret))["token"]
    assert server.request("GET", "/v2/team/robots/tags/list", headers=bearer(given)).status == 200
    actors = query(server, "SELECT DISTINCT actor FROM journal WHERE repository = 'team/robots'")
    assert actors == [("robot$ci",)]
    rows = query(server, "SELECT * FROM robot_tokens")
    assert secret not in str(rows)
    # The secret is of that name alone.
    assert server.request("GET", "/v2/", headers=basic("robot$other", secret)).status == 401


@pytest.mark.long
def test_a_revoked_token_ends_with_what_was_made_of_it(server: RegistryServer) -> None:
    secret = created(server, "ci-old")
    basic_headers = basic("robot$ci-old", secret)
    given = token(server, "repository:team/app:pull", headers=basic_headers, offline_token="true")
    path = "/v2/team/app/manifests/1"
    for headers in (basic_headers, bearer(secret), bearer(given["token"])):
        assert server.request("GET", path, headers=headers).status == 200
    assert call(server.root, "revoke", "robot$ci-old").returncode == 0
    for headers in (basic_headers, bearer(secret), bearer(given["token"])):
        wait_until(
            lambda headers=headers: server.request("GET", path, headers=headers).status == 401,
            what="the token's end",
        )
    body = f"grant_type=refresh_token&refresh_token={given['refresh_token']}"
    assert server.request("POST", "/token", body).status == 401
    again = call(server.root, "revoke", "ci-old")
    assert (again.returncode, "revoked already" in again.stderr) == (4, True)
    assert created(server, "ci-old") != secret  # the name is free again


@pytest.mark.long
def test_an_expired_token(server: RegistryServer) -> None:
    robots = open_backend(server.root).open_robot_tokens()
    secret = robots.create("ci-short", expires_at=int((time.time() + 3) * 1e6))
    robots.close()
    headers = basic("robot$ci-short", secret)
    given = token(server, "repository:team/app:pull", headers=headers)
    assert given["expires_in"] <= 3
    path = "/v2/team/app/manifests/1"
    assert server.request("GET", path, headers=bearer(given["token"])).status == 200
    for each in (headers, bearer(secret), bearer(given["token"])):
        wait_until(
            lambda each=each: server.request("GET", path, headers=each).status == 401,
            what="its end",
        )
    listed = call(server.root, "list").stdout
    assert any("robot$ci-short" in line and "expired" in line for line in listed.splitlines())


def test_the_list_for_programs(server: RegistryServer) -> None:
    secret = created(server, "ci-listed")
    assert call(server.root, "revoke", "ci-listed").returncode == 0
    listed = call(server.root, "list", "--format", "json").stdout
    assert secret not in listed
    rows = {row["user"]: row for row in json.loads(listed)}
    row = rows["robot$ci-listed"]
    assert set(row) == {"user", "created_at", "expires_at", "state", "place"}
    assert row["state"] == "revoked"
    assert row["created_at"] < row["expires_at"]


@pytest.mark.long
def test_names(server: RegistryServer) -> None:
    created(server, "ci-twice")
    twice = call(server.root, "create", "ci-twice")
    assert (twice.returncode, "there is a token named ci-twice already" in twice.stderr) == (2, True)
    for name in ("UP", "a b", "", "-x", "x" * 65):
        assert call(server.root, "create", "--", name).returncode == 2
    assert call(server.root, "revoke", "none").returncode == 4


def test_the_key_can_be_changed(server: RegistryServer) -> None:
    done = call(server.root, "rotate-key")
    assert done.returncode == 0
    assert (server.root / "keys" / f"{done.stdout.strip()}.json").exists()
    assert call(server.root, "rotate-key", "--retire").returncode == 0
    assert len(list((server.root / "keys").iterdir())) == 1


def test_only_where_a_registry_is(tmp_path: Path) -> None:
    for verb in (["create", "x"], ["list"], ["revoke", "x"], ["rotate-key"]):
        done = call(tmp_path / "root", *verb)
        assert done.returncode == 4
        assert "there is no registry in" in done.stderr
    start_registry(tmp_path / "stopped").stop()
    assert call(tmp_path / "stopped", "create", "x").returncode == 0
