"""Logging in and out as a user does it, with files that docker, podman and skopeo read and write too."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import select
import stat
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.cli import exit_codes
from tests.registry.access.support import PASSWORDS, guarded, of
from tests.support import PATIENCE, RegistryServer, digestry, program, run_digestry

Run = Callable[..., subprocess.CompletedProcess[str]]
HELPER = """\
#!/bin/sh
# Keeps what it is told in a file for each command that it got.
here=$(dirname "$0")
case $1 in
    store) cat > "$here/stored" ;;
    get) cat > "$here/asked"
         if [ -e "$here/stored" ]; then cat "$here/stored"; else echo credentials not found; exit 1; fi ;;
    erase) cat > "$here/erased"; rm -f "$here/stored" ;;
esac
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with guarded('[[rule]]\nwho = "alice"\nactions = ["pull", "push", "move-tag"]\n') as running:
        assert of(running, "alice").push_image("team/app", "1").status == 201
        yield running


@pytest.fixture
def basic_server() -> Iterator[RegistryServer]:
    rules = '[[rule]]\nwho = "alice"\nactions = ["pull"]\n'
    with guarded(rules, auth='challenge = "basic"\n') as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DIGESTRY_", "DOCKER_"))}
    return {
        **kept,
        "DIGESTRY_HOME": str(tmp_path / "home"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"),
        "HOME": str(tmp_path),
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(*arguments: str | Path, given: str = "", status: int = 0, **more: str) -> Any:
        done = run_digestry(*arguments, env=environment | more, given=given)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def log_in(run: Run, host: str, *options: str | Path, password: str = PASSWORDS["alice"], **more: Any) -> Any:
    return run("login", "-u", "alice", "--password-stdin", *options, host, given=password + "\n", **more)


def auths(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "docker" / "config.json").read_text())["auths"]


@pytest.mark.long
def test_a_login_is_used_until_the_logout(run: Run, server: RegistryServer, tmp_path: Path) -> None:
    name = f"{server.host}/team/app:1"
    run("digest", name, status=exit_codes.REMOTE)
    done = log_in(run, server.host)
    config = tmp_path / "docker" / "config.json"
    assert done.stdout == f"Logged in to {server.host} as alice: kept in {config}\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    entry = auths(tmp_path)[server.host]
    assert entry["identitytoken"]  # and not the password
    assert base64.b64decode(entry["auth"]) == b"alice:"
    run("digest", name)
    assert run("logout", server.host).stdout == f"Logged out of {server.host}: removed from {config}\n"
    assert auths(tmp_path) == {}
    run("digest", name, status=exit_codes.REMOTE)
    assert "has no login for" in run("logout", server.host).stderr


@pytest.mark.long
def test_a_password_is_kept_where_there_are_no_tokens(
    run: Run, basic_server: RegistryServer, tmp_path: Path
) -> None:
    done = log_in(run, basic_server.host)
    assert "has the password as it is" in done.stderr
    entry = auths(tmp_path)[basic_server.host]
    assert entry == {"auth": base64.b64encode(f"alice:{PASSWORDS['alice']}".encode()).decode()}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_nothing_is_kept_of_a_wrong_password(
    run: Run, server: RegistryServer, basic_server: RegistryServer, tmp_path: Path, kind: str
) -> None:
    host = (server if kind == "bearer" else basic_server).host
    done = log_in(run, host, password="a secret guess", status=exit_codes.REMOTE)
    assert "check the name and the password" in done.stderr
    assert "a secret guess" not in done.stderr
    assert not (tmp_path / "docker").exists()


def test_other_keys_stay_as_they_are(run: Run, server: RegistryServer, tmp_path: Path) -> None:
    config = tmp_path / "docker" / "config.json"
    config.parent.mkdir()
    before = {
        "HttpHeaders": {"X-Meta": "käse"},
        "auths": {"other.example": {"auth": "dTpw"}, f"https://{server.host}/v1/": {"auth": "b2xkOm9sZA=="}},
        "detachKeys": "ctrl-e,e",
        "big": 12345678901234567890123,
    }
    config.write_text(json.dumps(before))
    config.chmod(0o644)
    link = tmp_path / "real.json"
    config.rename(link)
    config.symlink_to(link)
    log_in(run, server.host)
    after = json.loads(link.read_text())
    assert config.is_symlink()
    assert list(after) == list(before)
    assert list(after["auths"]) == ["other.example", server.host]
    assert {key: after[key] for key in ("HttpHeaders", "detachKeys", "big")} == {
        key: before[key] for key in ("HttpHeaders", "detachKeys", "big")
    }
    assert stat.S_IMODE(link.stat().st_mode) == 0o600
    run("logout", server.host)
    assert json.loads(link.read_text())["auths"] == {"other.example": {"auth": "dTpw"}}


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"auths": 5}', '{"credsStore": "../x"}', '{"credsStore": "none"}'],
)
def test_a_file_that_cannot_be_used_is_left_alone(
    run: Run, server: RegistryServer, tmp_path: Path, content: str
) -> None:
    config = tmp_path / "docker" / "config.json"
    config.parent.mkdir()
    config.write_text(content)
    done = log_in(run, server.host, status=exit_codes.USAGE)
    assert str(config) in done.stderr
    assert config.read_text() == content


@pytest.mark.long
@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_credential_helper(run: Run, server: RegistryServer, tmp_path: Path, key: str) -> None:
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(HELPER)
    helper.chmod(0o755)
    config = tmp_path / "docker" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({key: "test" if key == "credsStore" else {server.host: "test"}}))
    path = {"PATH": f"{helper.parent}{os.pathsep}{os.environ['PATH']}"}
    done = log_in(run, server.host, **path)
    assert done.stdout.endswith("kept in docker-credential-test\n")
    stored = json.loads((helper.parent / "stored").read_text())
    assert (stored["ServerURL"], stored["Username"]) == (server.host, "<token>")
    assert stored["Secret"] not in config.read_text()
    assert auths(tmp_path) == {server.host: {}}
    run("digest", f"{server.host}/team/app:1", **path)
    assert "removed from docker-credential-test" in run("logout", server.host, **path).stdout
    assert (helper.parent / "erased").read_text() == server.host
    run("digest", f"{server.host}/team/app:1", status=exit_codes.REMOTE, **path)


def test_a_helper_that_fails_is_an_error(run: Run, server: RegistryServer, tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text("#!/bin/sh\ncat > /dev/null; printf 'locked \\033[31m'; exit 1\n")
    helper.chmod(0o755)
    config = tmp_path / "docker" / "config.json"
    config.parent.mkdir()
    config.write_text('{"credsStore": "test"}')
    done = log_in(
        run, server.host, status=exit_codes.REMOTE, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    )
    assert "docker-credential-test failed" in done.stderr
    assert "\x1b" not in done.stderr
    assert config.read_text() == '{"credsStore": "test"}'


def test_a_file_of_podmans(run: Run, server: RegistryServer, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "auth.json"
    done = log_in(run, server.host, "--authfile", file)
    assert "REGISTRY_AUTH_FILE" in done.stderr
    assert list(json.loads(file.read_text())["auths"]) == [server.host]
    assert not (tmp_path / "docker").exists()
    run("digest", f"{server.host}/team/app:1", REGISTRY_AUTH_FILE=str(file))
    left = run("logout", server.host, REGISTRY_AUTH_FILE=str(file))
    assert f"{file} still has a login" in left.stderr
    run("logout", server.host, "--authfile", file)
    assert json.loads(file.read_text())["auths"] == {}


def test_a_login_that_goes_before_is_named(run: Run, server: RegistryServer) -> None:
    given = json.dumps({"auths": {server.host: {"auth": "dTpw"}}})
    assert "DOCKER_AUTH_CONFIG has a login" in log_in(run, server.host, DOCKER_AUTH_CONFIG=given).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--password-stdin"], "needs --username"),
        (["-u", "a", "-p", "b", "--password-stdin"], "exclude each other"),
        (["-u", "a"], "Without a terminal"),
        ([], "Without a terminal"),
        (["-u", "a", "--password-stdin"], "is empty"),
    ],
)
def test_what_is_missing_is_said(run: Run, server: RegistryServer, arguments: list[str], said: str) -> None:
    assert said in run("login", *arguments, server.host, status=exit_codes.USAGE).stderr


def test_a_password_on_the_command_line_is_warned_about(run: Run, server: RegistryServer) -> None:
    done = run("login", "-u", "alice", "-p", PASSWORDS["alice"], f"http://{server.host}/")
    assert "use --password-stdin" in done.stderr


def test_a_registry_without_logins(run: Run, registry: RegistryServer) -> None:
    assert "the password was not checked" in log_in(run, registry.host).stderr


def test_a_terminal_is_asked_without_an_echo(
    server: RegistryServer, environment: dict[str, str], tmp_path: Path
) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        digestry("login", server.host),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call
    )
    os.close(follower)
    seen = b""

    def read_until(text: bytes) -> None:
        nonlocal seen
        end = time.monotonic() + PATIENCE
        while text not in seen and time.monotonic() < end:
            if select.select([leader], [], [], 1)[0]:
                try:
                    seen += os.read(leader, 4096)
                except OSError:
                    break
        assert text in seen

    try:
        read_until(b"User name for")
        os.write(leader, b"alice\n")
        read_until(b"Password:")
        time.sleep(0.1)  # getpass drops what came before it turned the echo off
        os.write(leader, PASSWORDS["alice"].encode() + b"\n")
        read_until(b"Logged in to")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert PASSWORDS["alice"].encode() not in seen
    assert auths(tmp_path)


# -- other programs -------------------------------------------------------------------------------


def peer(name: str, *arguments: str | Path, env: dict[str, str], given: str = "") -> str:
    done = subprocess.run(
        [program(name), *map(str, arguments)],
        env=env,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("authfile", [False, True], ids=["docker", "podman"])
def test_skopeo_uses_our_login(
    run: Run, server: RegistryServer, environment: dict[str, str], tmp_path: Path, authfile: bool
) -> None:
    options = ["--authfile", str(tmp_path / "auth.json")] if authfile else []
    log_in(run, server.host, *options)
    file = tmp_path / ("auth.json" if authfile else "docker/config.json")
    found = peer(
        "skopeo",
        "inspect",
        "--raw",
        "--tls-verify=false",
        "--authfile",
        file,
        f"docker://{server.host}/team/app:1",
        env=environment,
    )
    assert json.loads(found)["schemaVersion"] == 2


def test_we_use_skopeos_login_and_it_ends_ours(
    run: Run, server: RegistryServer, environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "auth.json"
    given = PASSWORDS["alice"]
    peer(
        "skopeo",
        *("login", "--tls-verify=false", "--authfile", file, "-u", "alice", "--password-stdin", server.host),
        env=environment,
        given=given,
    )
    run("digest", f"{server.host}/team/app:1")
    log_in(run, server.host, "--authfile", file)
    peer("skopeo", "logout", "--authfile", file, server.host, env=environment)
    run("digest", f"{server.host}/team/app:1", status=exit_codes.REMOTE)


def test_we_use_dockers_login_and_docker_ends_ours(
    run: Run, server: RegistryServer, environment: dict[str, str], tmp_path: Path
) -> None:
    # Without an engine, docker's client asks the registry itself.
    engine = {**environment, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    peer(
        "docker",
        *("login", "-u", "alice", "--password-stdin", server.host),
        env=engine,
        given=PASSWORDS["alice"],
    )
    run("digest", f"{server.host}/team/app:1")
    assert "removed from" in run("logout", server.host).stdout
    log_in(run, server.host)
    peer("docker", "logout", server.host, env=engine)
    assert auths(tmp_path) == {}


@pytest.mark.long
def test_crane_uses_our_login_and_we_use_its(
    run: Run, server: RegistryServer, environment: dict[str, str], tmp_path: Path
) -> None:
    from tests.e2e.peers import built

    crane = str(built("crane"))
    name = f"{server.host}/team/app:1"
    log_in(run, server.host)

    def crane_runs(*arguments: str) -> str:
        done = subprocess.run(
            [crane, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    digest = crane_runs("digest", "--insecure", name).strip()
    assert run("digest", name).stdout.strip() == digest
    run("logout", server.host)
    crane_runs("auth", "login", "--insecure", "-u", "alice", "-p", PASSWORDS["alice"], server.host)
    assert run("digest", name).stdout.strip() == digest
