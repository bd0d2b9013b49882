"""Real clients at a registry with users and rules: they log in, push, pull, and are refused in words."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.engines import Engine, Layout, docker_archive, tar
from tests.registry.access.support import PASSWORDS, guarded, of
from tests.support import RegistryServer, digestry

RULES = """
[[rule]]
who = "alice"
repository = "team/**"
actions = ["pull", "push", "move-tag", "delete", "audit"]

[[rule]]
who = ["bob", "robot$reader"]
repository = ["team/**"]
actions = ["pull"]

[[rule]]
who = "robot$ci"
repository = "team/**"
actions = ["pull", "push"]

[[rule]]
who = "carol"
actions = ["admin"]

[[rule]]
who = "anonymous"
repository = "public/**"
actions = ["pull"]

[[quota]]
repository = "team/small/**"
bytes = "1 MiB"
"""

DOCKER = pytest.mark.xdist_group("docker")
PODMAN = pytest.mark.xdist_group("podman")


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with guarded(RULES) as server:
        carol = of(server, "carol")
        for name in ("team/app", "public/base", "secret/x"):
            assert carol.push_image(name, "1", tar({name: name.encode()})).status == 201
        yield server


def robot(server: RegistryServer, name: str) -> str:
    """The secret of a robot token, made anew."""
    command = digestry("token", "revoke", "--root", server.root, name)
    subprocess.run(command, capture_output=True, check=False)
    made = subprocess.run(
        digestry("token", "create", "--root", server.root, name), capture_output=True, text=True, check=True
    )
    return made.stdout.strip()


def fresh(engine: Engine, directory: Path) -> Engine:
    """The same engine for a user who has not logged in anywhere."""
    directory.mkdir(exist_ok=True)
    return Engine(
        engine.command,
        {
            **engine.environment,
            "DOCKER_CONFIG": str(directory),
            "REGISTRY_AUTH_FILE": str(directory / "auth.json"),
        },
    )


def log_in(engine: Engine, server: RegistryServer, name: str, password: str, *options: str) -> None:
    engine("login", *options, "-u", name, "--password-stdin", server.host, stdin=password.encode())


def refused(engine: Engine, *arguments: str | Path) -> str:
    """What a command that must fail said."""
    done = engine.attempt(*arguments)
    assert done.returncode != 0, done.stdout
    return done.stderr + done.stdout


# -- docker ---------------------------------------------------------------------------------------


@pytest.mark.long
@DOCKER
def test_docker(server: RegistryServer, docker: Engine, tmp_path: Path) -> None:
    engine = fresh(docker, tmp_path / "alice")
    image = f"{server.host}/team/docker:1"
    engine("tag", "base:1", image)
    assert "requested access to the resource is denied" in refused(engine, "push", image)
    done = engine.attempt("login", "-u", "alice", "--password-stdin", server.host, stdin=b"wrong")
    assert done.returncode != 0
    assert "the user name or the password is wrong" in done.stderr
    log_in(engine, server, "alice", PASSWORDS["alice"])
    stored = json.loads((tmp_path / "alice" / "config.json").read_text())["auths"][server.host]
    assert stored.get("identitytoken")  # and not the password
    engine("push", image)
    engine("rmi", image)
    engine("pull", image)
    engine("rmi", image)


@pytest.mark.long
@DOCKER
def test_docker_is_refused_in_words(server: RegistryServer, docker: Engine, tmp_path: Path) -> None:
    engine = fresh(docker, tmp_path / "bob")
    log_in(engine, server, "bob", PASSWORDS["bob"])
    engine("pull", f"{server.host}/team/app:1")
    image = f"{server.host}/team/docker-bob:1"
    engine("tag", "base:1", image)
    assert "bob may not push to repository team/docker-bob" in refused(engine, "push", image)
    engine("rmi", image, f"{server.host}/team/app:1")
    assert "secret/x is not known to this registry" in refused(engine, "pull", f"{server.host}/secret/x:1")


@pytest.mark.long
@DOCKER
def test_docker_with_a_robot_token(server: RegistryServer, docker: Engine, tmp_path: Path) -> None:
    engine = fresh(docker, tmp_path / "robot")
    log_in(engine, server, "robot$ci", robot(server, "ci"))
    image = f"{server.host}/team/docker-robot:1"
    engine("tag", "base:1", image)
    engine("push", image)
    engine("import", "-", f"{server.host}/team/app:1", stdin=tar({"moved": b"moved"}))
    told = refused(engine, "push", f"{server.host}/team/app:1")
    assert "robot$ci may not move tag 1 of team/app" in told
    engine("rmi", image, f"{server.host}/team/app:1")


@pytest.mark.long
@DOCKER
def test_docker_without_a_login(server: RegistryServer, docker: Engine, tmp_path: Path) -> None:
    engine = fresh(docker, tmp_path / "nobody")
    engine("pull", f"{server.host}/public/base:1")
    engine("rmi", f"{server.host}/public/base:1")
    told = refused(engine, "pull", f"{server.host}/team/app:1")
    assert "log in to pull in repository team/app" in told or "docker login" in told


@pytest.mark.long
@DOCKER
@pytest.mark.parametrize("size", [3 << 20, 40 << 20], ids=["short", "long"])
def test_docker_over_the_quota(server: RegistryServer, docker: Engine, tmp_path: Path, size: int) -> None:
    engine = fresh(docker, tmp_path / "alice")
    log_in(engine, server, "alice", PASSWORDS["alice"])
    image = f"{server.host}/team/small/quota:{size}"
    engine("load", stdin=docker_archive(image, [tar({"large": os.urandom(size)})]))
    assert "quota" in refused(engine, "push", image)
    engine("rmi", image)


# -- podman and skopeo ------------------------------------------------------------------------------


@pytest.mark.long
@PODMAN
def test_podman(server: RegistryServer, podman: Engine, tmp_path: Path) -> None:
    engine = fresh(podman, tmp_path / "auth")
    insecure = "--tls-verify=false"
    image = f"{server.host}/team/podman:1"
    engine("tag", "base:1", image)
    done = engine.attempt("login", insecure, "-u", "alice", "--password-stdin", server.host, stdin=b"wrong")
    assert done.returncode != 0
    log_in(engine, server, "alice", PASSWORDS["alice"], insecure)
    engine("push", insecure, image)
    engine("rmi", image)
    engine("pull", insecure, image)
    engine("logout", server.host)
    engine("rmi", image)
    engine("pull", insecure, f"{server.host}/public/base:1")
    assert "log in to pull" in refused(engine, "pull", insecure, image)
    log_in(engine, server, "robot$reader", robot(server, "reader"), insecure)
    engine("pull", insecure, image)
    assert "robot$reader may not push to repository team/podman" in refused(engine, "push", insecure, image)
    assert "not known to this registry" in refused(engine, "pull", insecure, f"{server.host}/secret/x:1")


@pytest.mark.long
def test_skopeo(server: RegistryServer, skopeo: Engine, tmp_path: Path) -> None:
    engine = fresh(skopeo, tmp_path / "auth")
    layout = Layout(tmp_path / "layout")
    layout.name(layout.image([tar({"file": b"content"})]), "1")
    to = f"docker://{server.host}/team/skopeo:1"
    copy = ("copy", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:1")
    told = refused(engine, *copy, to)
    assert "unauthorized" in told or "access to the resource is denied" in told or "401" in told
    log_in(engine, server, "alice", PASSWORDS["alice"], "--tls-verify=false")
    engine(*copy, to)
    engine("inspect", "--tls-verify=false", to)
    mounted = ("copy", "--src-tls-verify=false", "--dest-tls-verify=false", to)
    engine(*mounted, to.replace("team/skopeo", "team/skopeo/mounted"))
    engine("delete", "--tls-verify=false", to.replace("team/skopeo", "team/skopeo/mounted"))
    told = refused(engine, *copy, to.replace("team/", "secret/"))
    assert "alice may not push to repository secret/skopeo" in told
    engine("logout", server.host)
    log_in(engine, server, "robot$reader", robot(server, "reader"), "--tls-verify=false")
    engine("inspect", "--tls-verify=false", to)
    assert "robot$reader may not push" in refused(engine, *copy, to.replace(":1", ":2"))
    told = refused(engine, "delete", "--tls-verify=false", to)
    assert "403" in told or "denied" in told.lower() or "may not" in told


# -- digestry ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_digestry(server: RegistryServer, tool: Engine, tmp_path: Path) -> None:
    home = Path(tool.environment["HOME"])

    def log_in_as(name: str, password: str) -> None:
        credentials = {"username": name, "password": password}
        (home / "config.json").write_text(json.dumps({"auths": {server.host: credentials}}))

    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    image = f"{server.host}/team/digestry:1"
    tool("pack", tree, "--tag", image)
    tool("pull", f"{server.host}/public/base:1")
    assert "log in with an account that may" in refused(tool, "push", image)
    log_in_as("bob", PASSWORDS["bob"])
    assert "bob may not push to repository team/digestry" in refused(tool, "push", image)
    log_in_as("robot$ci", robot(server, "ci"))
    tool("push", image)
    assert "robot$ci" not in tool("log", image)  # that takes a right of its own
    log_in_as("alice", PASSWORDS["alice"])
    assert "robot$ci" in tool("log", image)
    tool("tags", f"{server.host}/team/digestry")
    assert "secret/x" in refused(tool, "pull", f"{server.host}/secret/x:1")
