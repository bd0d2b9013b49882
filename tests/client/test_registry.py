"""One registry as a library's user has it, against a real one."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

import digestry
from digestry.errors import (
    Forbidden,
    InvalidConfiguration,
    InvalidReference,
    RemoteNotFound,
    Unauthorized,
)
from digestry.model.digest_prefix import DigestPrefix
from tests.registry.access.support import PASSWORDS, guarded, of
from tests.support import RegistryServer


def test_a_repository_by_its_name(registry: RegistryServer) -> None:
    digest = registry.push_image("one/app", "1", b"one first")
    moved = registry.push_image("one/app", "1", b"one second")
    with digestry.Registry(registry.host) as opened:
        app = opened.repository("one/app")
        assert list(app.tags()) == ["1"]
        assert app.resolve("1").digest == moved
        image = app.pull_manifest(str(digest))
        assert isinstance(image, digestry.Image)
        assert image.digest == digestry.Digest.of(image.raw) == digest
        assert app.pull_config(image).digest == image.config.digest
        assert [layer.size for layer in image.layers] == [len(b"one first")]
        history = app.tag_history("1")
        assert history is not None
        assert [event.to_digest for event in history] == [moved, digest]
        assert opened.find_digest(DigestPrefix.parse(digest.short)) == digest
        spans = opened.tags_for_digest(digest)
        assert spans is not None
        assert [(span.repository, span.tag, span.still) for span in spans] == [("one/app", "1", False)]
        with pytest.raises(RemoteNotFound):
            app.resolve("2")


def test_a_connection_that_is_given_stays_open(registry: RegistryServer) -> None:
    registry.push_image("one/shared", "1")
    with digestry.Session() as session:
        with digestry.Registry(registry.host, connection=session.connection) as opened:
            found = opened.repository("one/shared").resolve("1")
        assert session.repository(digestry.Reference(registry.host, "one/shared")).resolve("1") == found


@pytest.mark.parametrize("host", ["", "http://localhost:5000", "localhost:5000/app", "localhost:99999"])
def test_what_is_not_a_host(host: str) -> None:
    with pytest.raises(InvalidReference):
        digestry.Registry(host)


def test_credentials_are_given_or_come_from_the_environment(tmp_path: Path) -> None:
    with guarded() as server:
        assert of(server, "carol").push_image("team/app", "1").status == 201
        with digestry.Registry(server.host) as nobody, pytest.raises(Unauthorized):
            nobody.repository("team/app").resolve("1")
        alice = digestry.Credential("alice", PASSWORDS["alice"])
        with digestry.Registry(
            server.host, credentials=digestry.StaticCredentials({server.host: alice})
        ) as known:
            digest = known.repository("team/app").resolve("1").digest
        elsewhere = digestry.StaticCredentials({"localhost:1": alice})
        with digestry.Registry(server.host, credentials=elsewhere) as other, pytest.raises(Unauthorized):
            other.repository("team/app").resolve("1")
        pair = base64.b64encode(f"alice:{PASSWORDS['alice']}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": pair}}}))
        options = digestry.ClientOptions.from_environment({"DOCKER_CONFIG": str(tmp_path)})
        with digestry.Registry(server.host, options=options) as login:
            assert login.repository("team/app").resolve("1").digest == digest


@pytest.mark.parametrize(
    ("environment", "docker"),
    [
        ({}, None),
        ({"HOME": "/home/a"}, Path("/home/a/.docker")),
        ({"HOME": "/home/a", "DOCKER_CONFIG": "/etc/d"}, Path("/etc/d")),
    ],
)
def test_where_logins_are_kept(environment: dict[str, str], docker: Path | None) -> None:
    assert digestry.ClientOptions.from_environment(environment).docker_config == docker


def test_the_environment_says_what_is_configured_for_registries(tmp_path: Path) -> None:
    directory = tmp_path / ".config/containers"
    directory.mkdir(parents=True)
    (directory / "registries.conf").write_text('[[registry]]\nlocation = "a.example"\nblocked = true\n')
    options = digestry.ClientOptions.from_environment({"HOME": str(tmp_path)})
    with digestry.Registry("a.example", options=options) as registry, pytest.raises(Forbidden):
        registry.repository("app").resolve("1")
    assert directory / "certs.d" in options.certificate_directories
    (directory / "registries.conf").write_text("[[registry]]\n")
    with pytest.raises(InvalidConfiguration, match=r"registries\.conf"):
        digestry.ClientOptions.from_environment({"HOME": str(tmp_path)})
