"""What the settings, and the files of docker and containers, say of registries: every command obeys."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from digestry.cli import exit_codes
from digestry.cli.image_names import IMAGE
from tests import certificates
from tests.certificates import Certificates
from tests.cli.conftest import Run
from tests.cli.test_imports import registry as content
from tests.client.liar import Liar, lying
from tests.support import free_port, program


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the user's configuration, of a user without files."""
    home = tmp_path / "user"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.delenv("CONTAINERS_REGISTRIES_CONF", raising=False)
    made = home / ".config"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def run(user: Path, run: Run) -> Run:
    """Runs commands for that user."""
    return run


@pytest.fixture
def server() -> Iterator[Liar]:
    with lying(content) as made:
        yield made


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("pki") / "pki")


def containers(user: Path, name: str, text: str) -> Path:
    path = user / "containers" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


# -- the settings ---------------------------------------------------------------------------------


def test_keys_of_a_registry_are_set_shown_and_unset(run: Run, tmp_path: Path, pki: Certificates) -> None:
    block = ["config", "set", "--registry", "a.example:5000"]
    run(*block, "mirrors", "m.example, localhost:1/x")
    run(*block, "mirror-by-digest-only", "true")
    run(*block, "ca", pki.authority)
    file = tmp_path / "home/config.toml"
    assert (
        f'mirrors = ["m.example", "localhost:1/x"]\nmirror-by-digest-only = true\nca = ["{pki.authority}"]'
        in (file.read_text())
    )
    assert (
        run("config", "get", "--registry", "a.example:5000", "mirrors").stdout == "m.example,localhost:1/x\n"
    )
    shown = run("config", "show").stdout
    assert "a.example:5000   mirrors                 m.example,localhost:1/x" in shown
    explained = json.loads(run("config", "explain", "a.example:5000/x", "--format", "json").stdout)
    assert explained["name"] == "a.example:5000/x:latest"
    said = {one["key"]: (one["value"], one["origin"]) for one in explained["statements"]}
    mirrors = "m.example (by digest only), localhost:1/x (by digest only)"
    assert said["mirrors"] == (mirrors, f"{file}, a.example:5000")
    assert said["ca"] == (str(pki.authority), str(file))
    assert said["skip-verify"] == ("false", "default")
    for key in ("mirrors", "mirror-by-digest-only", "ca"):
        run("config", "unset", "--registry", "a.example:5000", key)
    assert file.read_text().strip() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--registry", "a.example", "mirror", "x"], "Did you mean mirrors?"),
        (["--registry", "https://a.example", "blocked", "true"], "registry host"),
        (["--registry", "a.example", "blocked", "yes"], "blocked is true or false"),
        (["--registry", "a.example", "mirrors", "https://x"], "mirrors: registry host"),
        (["--registry", "a.example/team", "insecure", "true"], "insecure is about a whole registry"),
        (["--registry", "a.example", "client-key", "/dev/null/x"], "there is no file /dev/null/x"),
        (["read-files-of", "podman"], "'podman' is no program whose files are read"),
    ],
)
def test_what_cannot_be_set(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run("config", "set", *arguments, status=exit_codes.USAGE)
    assert message in done.stderr
    assert not (tmp_path / "home/config.toml").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('registries = "x"', "registries must have a table for each registry"),
        ("[registries]\nx = 1", 'registries."x"] must be a table'),
        ('[registries."a.example"]\nca = 1', "ca must be a string, or a list of strings, and not empty"),
        ('[registries."a.example"]\ninsecure = "yes"', "insecure must be true or false"),
        ('[registries."a.example"]\nlocation = "b:x"', "location: registry host"),
        ('[registries."a.example"]\nclient-key = "k"', "client-key without client-cert"),
        ("[registries.a.example]\nblocked = true", "unknown key 'example'"),
    ],
)
def test_a_wrong_block_is_named(run: Run, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "home/config.toml"
    file.parent.mkdir()
    file.write_text(text)
    done = run("pull", "a.example/x", status=exit_codes.USAGE)
    assert message in done.stderr
    assert str(file) in done.stderr


# -- commands -------------------------------------------------------------------------------------


@pytest.mark.long
def test_every_command_that_asks_a_registry_obeys_a_block(run: Run, server: Liar, tmp_path: Path) -> None:
    run("config", "set", "--registry", server.host, "blocked", "true")
    name = f"{server.host}/team/app"
    (tmp_path / "file").write_text('{"schemaVersion":2,"manifests":[]}')
    digest = f"sha256:{'0' * 64}"
    for line in (
        ["pull", f"{name}:1"],
        ["copy", f"{name}:1", f"oci:{tmp_path / 'layout'}"],
        ["digest", f"{name}:1"],
        ["tags", name],
        ["ls", server.host],
        ["rm", f"{name}:1", "--yes"],
        ["manifest", "get", f"{name}:1"],
        ["blob", "get", f"{name}@{digest}"],
        ["index", "create", f"{name}:2", f"{name}:1"],
        ["referrers", f"{name}:1"],
        ["attach", f"{name}:1", str(tmp_path / "file"), "--artifact-type", "a/b"],
        ["log", name],
        ["whose", f"{name}@{digest}"],
        ["restore", f"{name}:1", "--to", digest],
        ["inspect", f"{name}:1"],
        ["validate", f"{name}:1"],
        ["history", f"{name}:1"],
        ["export", f"{name}:1", "--output", str(tmp_path / "root.tar")],
        ["login", "--username", "u", "--password", "p", server.host],
        ["advisory", "list", f"{name}:1"],
        ["manifest", "put", f"{name}:1", str(tmp_path / "file")],
        ["blob", "put", name, str(tmp_path / "file")],
    ):
        done = run(*line, status=exit_codes.USAGE)
        assert "is blocked: " in done.stderr, (line, done.stderr)
    assert server.seen == []


def test_a_pull_says_that_it_came_from_a_mirror(run: Run, server: Liar) -> None:
    run("config", "set", "--registry", "far.example", "mirrors", f"{server.host}/cache")
    done = run("pull", "far.example/team/app:1")
    assert (
        f"digestry: far.example/team/app is read from the mirror {server.host}/cache/team/app" in done.stderr
    )
    assert done.stdout.endswith("far.example/team/app:1\n")
    assert server.paths()[0] == "GET /v2/cache/team/app/manifests/1"


@pytest.mark.long
def test_what_is_used_comes_from_a_mirror_of_a_registry_that_is_away(
    run: Run, server: Liar, tmp_path: Path
) -> None:
    away = f"127.0.0.1:{free_port()}"
    run("config", "set", "--registry", away, "mirrors", f"{server.host}/cache")
    run("copy", f"{away}/team/app:1", f"oci:{tmp_path / 'layout'}")
    file = tmp_path / "sync.toml"
    file.write_text(f'[[copy]]\nsource = "{away}/team/app:1"\ntarget = "oci:{tmp_path / "synced"}:1"\n')
    run("sync", file)
    run("digest", f"{away}/team/app:1", status=exit_codes.REMOTE)
    done = run("export", f"{away}/team/app:1", "--output", tmp_path / "root.tar", status=exit_codes.CONTENT)
    assert "layer" in done.stderr  # it is no archive; that is found out when all of it has come


def test_certificates_come_from_dockers_directory(run: Run, user: Path, pki: Certificates) -> None:
    with lying(content, tls=pki.context(wants_client=True)) as server:
        # This machine may have any certificate: a rule says that this one is verified.
        run("config", "set", "--registry", server.host, "skip-verify", "false")
        failed = run("digest", f"{server.host}/team/app:1", status=exit_codes.REMOTE)
        assert "certificate cannot be trusted" in failed.stderr
        folder = user / "docker/certs.d" / server.host
        folder.mkdir(parents=True)
        certificate, key = pki.client
        for name, file in (("ca.crt", pki.authority), ("a.cert", certificate), ("a.key", key)):
            (folder / name).write_bytes(file.read_bytes())
        done = run("digest", f"{server.host}/team/app:1")
        assert done.stderr == ""
        (folder / "a.key").unlink()
        failed = run("digest", f"{server.host}/team/app:1", status=exit_codes.USAGE)
        assert "its key a.key is missing" in failed.stderr
        run("config", "set", "read-files-of", "containers")
        failed = run("digest", f"{server.host}/team/app:1", status=exit_codes.REMOTE)
        assert "certificate cannot be trusted" in failed.stderr


def test_a_certificate_that_is_not_verified_is_said_once_a_command(run: Run, pki: Certificates) -> None:
    with lying(content, tls=pki.context()) as server:
        done = run("pull", f"{server.host}/team/app:1")
        assert done.stderr.count("NOT verified") == 1
        assert f"the certificate of {server.host} is NOT verified" in done.stderr
        run("config", "set", "--registry", server.host, "ca", pki.authority)
        assert "NOT verified" not in run("digest", f"{server.host}/team/app:1").stderr


def test_containers_files_are_read_unless_they_are_not_to_be(run: Run, user: Path, server: Liar) -> None:
    file = containers(user, "registries.conf", f'[[registry]]\nlocation = "{server.host}"\nblocked = true\n')
    done = run("pull", f"{server.host}/team/app:1", status=exit_codes.USAGE)
    assert f"{file} blocks {server.host}" in done.stderr
    containers(user, "registries.conf", "[[registry]]\nblocked = true\n")
    assert "number 1 has neither" in run("digest", "a.example/x", status=exit_codes.USAGE).stderr
    run("config", "set", "read-files-of", "none")
    run("pull", f"{server.host}/team/app:1")


def test_a_policy_rejects_what_is_used_and_not_what_is_looked_at(run: Run, user: Path, server: Liar) -> None:
    containers(
        user,
        "policy.json",
        json.dumps({"default": [{"type": "reject"}], "transports": {"docker": {}}}),
    )
    name = f"{server.host}/team/app:1"
    assert "is rejected: " in run("pull", name, status=exit_codes.USAGE).stderr
    assert "is rejected: " in run("copy", name, "local:x", status=exit_codes.USAGE).stderr
    run("digest", name)
    run("inspect", name)
    explained = run("config", "explain", name).stdout
    assert "reject" in explained


@pytest.mark.peer("skopeo")
@pytest.mark.parametrize("scope", ["{parent}", "{layout}", "{layout}:1", "{layout}2", ""])
def test_a_policy_rejects_files_as_it_does_for_skopeo(
    run: Run, user: Path, tmp_path: Path, server: Liar, scope: str
) -> None:
    layout, accept = tmp_path / "layout", [{"type": "insecureAcceptAnything"}]
    run("copy", f"{server.host}/team/app:1", f"oci:{layout}:1")
    said = {scope.format(layout=layout, parent=tmp_path): [{"type": "reject"}]}
    policy = {"default": accept, "transports": {"oci": said, "docker-archive": {}}}
    file = containers(user, "policy.json", json.dumps(policy))
    skopeo = [program("skopeo"), "--policy", str(file), "copy", f"oci:{layout}:1", f"dir:{tmp_path}/dir"]
    theirs = subprocess.run(skopeo, capture_output=True, text=True, check=False)
    rejected = "rejected by policy" in theirs.stderr
    assert rejected is (":" not in scope and "2" not in scope)
    status = exit_codes.USAGE if rejected else exit_codes.OK
    done = run("copy", f"oci:{layout}:1", "local:copied:1", status=status)
    assert ("is rejected: " in done.stderr) is rejected


def test_short_names_have_the_aliases_of_containers(run: Run, user: Path, server: Liar) -> None:
    file = containers(
        user,
        "registries.conf",
        f'unqualified-search-registries = ["a.example"]\n[aliases]\n"app" = "{server.host}/team/app"\n',
    )
    done = run("pull", "app:1")
    assert f"digestry: app is short for {server.host}/team/app ({file})" in done.stderr
    assert done.stdout.endswith(f"{server.host}/team/app:1\n")
    assert run("inspect", "app:1").stderr.count("is short for") == 1
    done = run("images", "other")
    assert "other means docker.io/library/other; podman would search a.example" in done.stderr
    # Who has said which registry a name without one means is not contradicted.
    run("config", "set", "registry", server.host)
    assert run("digest", "team/app:1").stderr == ""


def test_a_completion_says_nothing_of_short_names(
    user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    containers(user, "registries.conf", '[aliases]\n"app" = "localhost:1/app"\n')
    monkeypatch.setenv("DIGESTRY_HOME", str(tmp_path / "home"))
    context = click.Context(click.Command("pull"))
    assert IMAGE.shell_complete(context, click.Argument(["reference"]), "app:") == []
    assert capsys.readouterr().err == ""


def test_an_audit_asks_with_the_same_configuration(
    run: Run, user: Path, tmp_path: Path, server: Liar
) -> None:
    containers(user, "registries.conf", f'[[registry]]\nlocation = "{server.host}"\nblocked = true\n')
    inventory = tmp_path / "inventory.csv"
    inventory.write_text(f"host,name,reference\nh,c,{server.host}/team/app:1\n")
    done = run("audit", "--source", f"file:{inventory}", status=exit_codes.REMOTE)
    assert "is blocked" in done.stdout + done.stderr
    assert server.seen == []
