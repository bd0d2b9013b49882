"""Which engine is meant: by an address, by docker's environment and contexts, by podman's connections."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from digestry.errors import InvalidConfiguration
from digestry.inventory.engines.endpoints import (
    TLS,
    Endpoint,
    docker_endpoint,
    podman_endpoint,
    podman_sockets,
    users_sockets,
)
from digestry.inventory.source_selection import parse_source


def context(home: Path, name: str, host: str, *, skip: bool = False, tls: tuple[str, ...] = ()) -> None:
    """A context, as ``docker context create`` writes it."""
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = home / "contexts" / "meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    document = {
        "Name": name,
        "Metadata": {},
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip}},
    }
    meta.write_text(json.dumps(document))
    for file in tls:
        path = home / "contexts" / "tls" / key / "docker" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("PEM")


def test_the_order_is_that_of_dockers_client(tmp_path: Path) -> None:
    environment: dict[str, str] = {"DOCKER_CONFIG": str(tmp_path)}
    assert docker_endpoint("", environment).url == "unix:///var/run/docker.sock"
    context(tmp_path, "far", "ssh://me@far")
    context(tmp_path, "near", "unix:///near.sock")
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    assert docker_endpoint("", environment).url == "ssh://me@far"
    environment["DOCKER_CONTEXT"] = "near"
    assert docker_endpoint("", environment).url == "unix:///near.sock"
    environment["DOCKER_HOST"] = "tcp://10.0.0.1:2375"
    assert docker_endpoint("", environment) == Endpoint("tcp://10.0.0.1:2375")
    assert docker_endpoint("far", environment).url == "ssh://me@far"
    assert docker_endpoint("default", environment).url == "tcp://10.0.0.1:2375"
    assert docker_endpoint("unix:///given.sock", environment).url == "unix:///given.sock"


def test_the_home_directory_is_where_contexts_are(tmp_path: Path) -> None:
    context(tmp_path / ".docker", "far", "ssh://far")
    assert docker_endpoint("far", {"HOME": str(tmp_path)}).url == "ssh://far"


def test_a_contexts_tls_is_its_own(tmp_path: Path) -> None:
    environment = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/else"}
    context(tmp_path, "safe", "tcp://far:2376", tls=("ca.pem", "cert.pem", "key.pem"))
    context(tmp_path, "lax", "tcp://far:2376", skip=True)
    context(tmp_path, "plain", "tcp://far:2375")
    safe = docker_endpoint("safe", environment).tls
    assert safe is not None
    assert safe.verify
    assert [path and path.name for path in (safe.authority, safe.certificate, safe.key)] == [
        "ca.pem", "cert.pem", "key.pem",
    ]  # fmt: skip
    assert docker_endpoint("lax", environment).tls == TLS(verify=False)
    assert docker_endpoint("plain", environment).tls is None


def test_the_environments_tls(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    assert Endpoint.parse("tcp://far", {}).tls is None
    assert Endpoint.parse("tcp://far", {}).port == 2375
    for key in ("DOCKER_TLS_VERIFY", "DOCKER_TLS"):
        one = Endpoint.parse("tcp://far", {key: "1", "DOCKER_CERT_PATH": str(tmp_path)})
        assert one.tls == TLS(authority=tmp_path / "ca.pem")  # verified in either case
        assert one.port == 2376
    by_default = Endpoint.parse("tcp://far", {"DOCKER_TLS_VERIFY": "1", "DOCKER_CONFIG": str(tmp_path)})
    assert by_default.tls == TLS(authority=tmp_path / "ca.pem")
    assert Endpoint.parse("https://far", {}).tls == TLS()
    assert Endpoint.parse("unix:///x", {"DOCKER_TLS_VERIFY": "1"}).tls is None


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("unix:///x", False),
        ("tcp://127.0.0.1:2375", False),
        ("ssh://me@localhost", False),
        ("ssh://me@far:22", True),
        ("tcp://far", True),
    ],
)
def test_another_machine(url: str, remote: bool) -> None:
    assert Endpoint.parse(url, {}).is_remote is remote


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ("{", "cannot be read"),
        ('{"Endpoints": []}', "cannot be read"),
        ('{"Endpoints": {}}', "cannot be read"),
    ],
)
def test_a_broken_context_is_named(tmp_path: Path, meta: str, says: str) -> None:
    context(tmp_path, "far", "ssh://far")
    next(tmp_path.glob("contexts/meta/*/meta.json")).write_text(meta)
    with pytest.raises(InvalidConfiguration, match=says):
        docker_endpoint("far", {"DOCKER_CONFIG": str(tmp_path)})


def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    context(tmp_path, "far", "ssh://far")
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    with pytest.raises(InvalidConfiguration, match="no context 'gone'") as caught:
        docker_endpoint("gone", environment)
    assert caught.value.hint == "there are: default, far"
    for name in ("../far", "a b", "-x"):
        with pytest.raises(InvalidConfiguration, match="neither an engine's address"):
            docker_endpoint(name, environment)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidConfiguration, match="current context is not known"):
        docker_endpoint("", environment)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        Endpoint.parse("ssh://me:secret@far", {})
    assert "secret" not in caught.value.message + caught.value.hint


def test_pipes_of_windows() -> None:
    with pytest.raises(InvalidConfiguration, match="npipe:// is not supported"):
        parse_source("docker:npipe:////./pipe/docker_engine")


# -- podman -------------------------------------------------------------------------------------


def podman(directory: Path, monkeypatch: pytest.MonkeyPatch, prints: Any, *, code: int = 0) -> None:
    path = directory / "podman"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(prints)}\nEND\nexit {code}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")


def test_podmans_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {
        "Name": "far",
        "URI": "ssh://core@far:22/run/podman/podman.sock",
        "Identity": "/k",
        "Default": True,
    }
    podman(tmp_path, monkeypatch, [entry, {"Name": 7}, "x"])
    found = podman_endpoint("far")
    assert found == Endpoint("ssh://core@far:22/run/podman/podman.sock", None, "/k", "podman")
    with pytest.raises(InvalidConfiguration, match="nor one of podman's connections") as caught:
        podman_endpoint("gone")
    assert "there are: far" in caught.value.hint
    assert podman_endpoint("ssh://far").program == "podman"


def test_podman_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    podman(tmp_path, monkeypatch, [], code=125)
    with pytest.raises(InvalidConfiguration, match="cannot be listed"):
        podman_endpoint("far")


def test_sockets_of_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert podman_sockets({}) == [
        Path("/run/user/1000/podman/podman.sock"), Path("/run/podman/podman.sock"),
    ]  # fmt: skip
    assert podman_sockets({"XDG_RUNTIME_DIR": "/run/user/1000"}) == podman_sockets({})
    assert users_sockets(tmp_path) == []
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(Path, "is_socket", lambda _: True)
    for name in ("1000/podman/podman.sock", "1001/docker.sock"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert users_sockets(tmp_path) == [
        ("docker", tmp_path / "1001/docker.sock"), ("podman", tmp_path / "1000/podman/podman.sock"),
    ]  # fmt: skip
