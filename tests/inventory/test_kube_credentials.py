"""Credential plugins: what they are asked, what they answer, and how they fail."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest

from digestry.errors import DigestryError, InvalidConfiguration, RemoteError
from digestry.inventory.kube.config import Cluster, Plugin, User
from digestry.inventory.kube.credentials import Credential, Credentials, run_plugin
from tests.inventory.kube import TOKEN, kubeconfig, make_papers, observe, problems, running_cluster
from tests.support import wait_until

V1 = "client.authentication.k8s.io/v1"
CLUSTER = Cluster("https://x", b"PEM", server_name="n", extension={"audience": "me"})


def answered(token: str = "t", **state: Any) -> dict[str, Any]:  # noqa: S107
    return {"kind": "ExecCredential", "apiVersion": V1, "status": {"token": token} | state}


def script(tmp_path: Path, body: str) -> str:
    path = tmp_path / "login"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def plugin(command: str, **more: Any) -> Plugin:
    values: dict[str, Any] = {
        "arguments": (), "environment": (), "version": V1, "mode": "Never",
    } | more  # fmt: skip
    return Plugin(command, **values)


def run(tmp_path: Path, body: str, *, timeout: float = 10, **more: Any) -> Credential:
    command = script(tmp_path, body)
    return run_plugin(plugin(command, **more), CLUSTER, environment=dict(os.environ), timeout=timeout)


def saying(value: Any) -> str:
    return f"cat <<'END'\n{json.dumps(value)}\nEND"


@pytest.mark.parametrize("version", [V1, "client.authentication.k8s.io/v1beta1"])
def test_what_a_plugin_is_asked(tmp_path: Path, version: str) -> None:
    asked = tmp_path / "asked"
    body = (
        f'printf "%s" "$KUBERNETES_EXEC_INFO" > {asked}; printf "%s" "$1 $EXTRA" >> {tmp_path / "rest"}\n'
        + saying(answered() | {"apiVersion": version})
    )
    more: dict[str, Any] = {"arguments": ("one",), "environment": (("EXTRA", "two"),), "needs_cluster": True}
    bought = run(tmp_path, body, version=version, **more)
    assert bought.authorization == "Bearer t"
    assert (tmp_path / "rest").read_text() == "one two"
    assert json.loads(asked.read_text()) == {
        "kind": "ExecCredential",
        "apiVersion": version,
        "spec": {
            "interactive": False,
            "cluster": {
                "server": "https://x",
                "tls-server-name": "n",
                "certificate-authority-data": "UEVN",
                "config": {"audience": "me"},
            },
        },
    }


def test_a_certificate(tmp_path: Path) -> None:
    bought = run(tmp_path, saying(answered("", clientCertificateData="C", clientKeyData="K")))
    assert (bought.authorization, bought.certificate, bought.key) == ("", b"C", b"K")
    assert "K" not in repr(bought).removeprefix("Credential")


@pytest.mark.parametrize(
    "value",
    [
        3, None, [], {}, {"kind": "ExecCredential"}, answered() | {"apiVersion": "v2"},
        answered() | {"kind": "x"}, answered(""), answered("", clientCertificateData="secret"),
        answered("se cret"), answered("secret\n\x00"),
        answered("secret", expirationTimestamp="soon"), answered("secret", expirationTimestamp=3),
        answered("secret", expirationTimestamp="2026-11-21T10:00:00"), answered() | {"status": "secret"},
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_used(tmp_path: Path, value: Any) -> None:
    with pytest.raises(RemoteError, match="credential plugin 'login' did not print") as caught:
        run(tmp_path, saying(value))
    assert "secret" not in caught.value.message


def test_a_plugin_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"'login' failed with 3: '\\x1b\[2Jlog in first'"):
        run(tmp_path, "printf 'warning\\n\\033[2Jlog in first\\n' >&2; exit 3")


@pytest.mark.long
def test_a_plugin_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with pytest.raises(RemoteError, match="did not end within"):
        run(tmp_path, f"sleep 600 & echo $! > {child}; wait", timeout=2.0)
    pid = int(child.read_text())

    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    wait_until(ended, what="the end of what it started")


def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    missing = plugin("no-such-plugin", install_hint="get it at example.com")
    with pytest.raises(InvalidConfiguration, match="'no-such-plugin', which is not there") as caught:
        run_plugin(missing, CLUSTER, environment={"PATH": str(tmp_path)})
    assert caught.value.hint == "get it at example.com"


@pytest.mark.parametrize("version", ["", "client.authentication.k8s.io/v1alpha1", "v1"])
def test_a_version_that_is_not_supported(version: str) -> None:
    with pytest.raises(InvalidConfiguration, match="not supported"):
        run_plugin(plugin("true", version=version), CLUSTER, environment={})


def test_a_plugin_that_needs_a_person_is_not_run_without_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="there is no terminal"):
        run(tmp_path, saying(answered()), mode="Always")


def counting(tmp_path: Path, expires: str) -> tuple[Credentials, Path]:
    runs = tmp_path / "runs"
    command = script(tmp_path, f"echo x >> {runs}\n{saying(answered(expirationTimestamp=expires))}")
    return Credentials(User(plugin=plugin(command)), CLUSTER), runs


def test_what_was_bought_is_kept_until_it_expires(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    credentials, runs = counting(tmp_path, (now + datetime.timedelta(hours=1)).isoformat())
    assert credentials.get() is credentials.get()
    assert runs.read_text().count("x") == 1
    assert credentials.renew()
    credentials.get()
    assert runs.read_text().count("x") == 2


def test_what_has_expired_is_bought_anew(tmp_path: Path) -> None:
    credentials, runs = counting(tmp_path, "2026-01-01T00:00:00Z")
    credentials.get()
    credentials.get()
    assert runs.read_text().count("x") == 2


def test_the_order_of_credentials(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("of-a-file\n")
    for user, wanted in (
        (User(token="a", token_file=token, username="u"), "Bearer a"),
        (User(token_file=token, username="u", password="p"), "Bearer of-a-file"),
        (User(username="u", password="p"), "Basic dTpw"),
        (User(), ""),
    ):
        assert Credentials(user, CLUSTER).get().authorization == wanted
    assert not Credentials(User(token="a"), CLUSTER).renew()


@pytest.mark.parametrize("content", [b"", b"a b", b"\xff", None])
def test_a_token_file_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DigestryError):
        Credentials(User(token_file=path), CLUSTER).get()


@pytest.mark.peer("openssl")
def test_a_cluster_is_asked_with_what_a_plugin_bought(tmp_path: Path) -> None:
    papers = make_papers(tmp_path)
    command = script(tmp_path, saying(answered(TOKEN)))
    user = {"exec": {"apiVersion": V1, "command": command, "interactiveMode": "Never"}}
    with running_cluster(papers.server) as cluster:
        cluster.fill()
        entry = {"server": cluster.url, "certificate-authority-data": papers.data("ca.pem")}
        environment = kubeconfig(tmp_path / "config", entry, user)
        assert problems(observe(environment)) == []
        cluster.asked.clear()
        script(tmp_path, f"echo x >> {tmp_path / 'runs'}; echo expired >&2; exit 1")
        [problem] = problems(observe(environment))
        assert "failed with 1: 'expired'" in problem.message
        assert (tmp_path / "runs").read_text() == "x\n"
        assert cluster.asked == []
