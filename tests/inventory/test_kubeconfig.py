"""Kubeconfig files: merging, paths, users, and files that cannot be used."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from digestry.errors import InvalidConfiguration
from digestry.inventory.kube.config import Kubeconfig, find_access

MAIN = """
apiVersion: v1
kind: Config
current-context: main
contexts:
- name: main
  context: {cluster: home, user: me, namespace: shop}
- name: other
  context: {cluster: away, user: me}
clusters:
- name: home
  cluster:
    server: https://10.0.0.1:6443/k8s/c-1/
    certificate-authority: pki/ca.crt
users:
- name: me
  user: {token: abc}
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def config(tmp_path: Path, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://x"} | cluster}],
        "users": [{"name": "u", "user": user or {}}],
    }
    return write(tmp_path / "config", json.dumps(document))


def refused(path: Path, context: str = "") -> str:
    with pytest.raises(InvalidConfiguration) as caught:
        Kubeconfig([path]).access(context)
    return caught.value.message


# -- files --------------------------------------------------------------------------------------


def test_the_current_context(tmp_path: Path) -> None:
    write(tmp_path / "pki" / "ca.crt", "PEM")
    access = find_access(environment={"KUBECONFIG": str(write(tmp_path / "config", MAIN))})
    assert (access.context, access.namespace) == ("main", "shop")
    assert access.cluster.server == "https://10.0.0.1:6443/k8s/c-1"
    assert access.cluster.authority == b"PEM"
    assert access.user.token == "abc"
    assert "abc" not in repr(access)


def test_the_home_directory(tmp_path: Path) -> None:
    write(tmp_path / ".kube" / "pki" / "ca.crt", "PEM")
    write(tmp_path / ".kube" / "config", MAIN)
    assert find_access(environment={"HOME": str(tmp_path)}).context == "main"


def test_files_are_merged_and_the_first_wins(tmp_path: Path) -> None:
    write(tmp_path / "a" / "pki" / "ca.crt", "of a")
    write(tmp_path / "b" / "pki" / "ca.crt", "of b")
    first = write(
        tmp_path / "a" / "config",
        "clusters: [{name: away, cluster: {server: 'https://away', certificate-authority: pki/ca.crt}}]\n"
        "users: [{name: me, user: {username: u, password: p}}]\n",
    )
    second = write(tmp_path / "b" / "config", MAIN)
    environment = {"KUBECONFIG": f"{first}:{tmp_path / 'missing'}::{second}"}
    access = find_access(environment=environment)
    assert access.context == "main"
    assert access.cluster.authority == b"of b"
    # The first file's user, and nothing of the second's.
    assert (access.user.username, access.user.token) == ("u", "")
    away = find_access("other", environment=environment)
    assert (away.cluster.server, away.cluster.authority) == ("https://away", b"of a")


def test_a_pods_own_account(tmp_path: Path) -> None:
    for name, text in (("ca.crt", "PEM"), ("token", "t"), ("namespace", "shop")):
        write(tmp_path / name, text)
    environment = {"HOME": str(tmp_path), "KUBERNETES_SERVICE_HOST": "fd00::1"}
    access = find_access(environment=environment, service_account=tmp_path)
    assert access.cluster.server == "https://[fd00::1]:443"
    assert access.cluster.authority == b"PEM"
    assert (access.user.token_file, access.namespace) == (tmp_path / "token", "shop")
    with pytest.raises(InvalidConfiguration, match="no kubeconfig that could have the context 'prod'"):
        find_access("prod", environment=environment, service_account=tmp_path)


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="no kubeconfig, and this is not a pod"):
        find_access(environment={"HOME": str(tmp_path)})


# -- users and clusters -------------------------------------------------------------------------


def test_inline_data_goes_before_files(tmp_path: Path) -> None:
    data = base64.b64encode(b"inline").decode()
    path = config(
        tmp_path,
        {
            "client-certificate-data": data,
            "client-certificate": "/nowhere",
            "client-key-data": data,
            "tokenFile": "sub/token",
        },
        **{"certificate-authority-data": data, "certificate-authority": "/nowhere", "tls-server-name": "n"},
    )
    access = Kubeconfig([path]).access()
    assert access.cluster.authority == access.user.certificate == access.user.key == b"inline"
    assert access.cluster.server_name == "n"
    assert access.user.token_file == tmp_path / "sub" / "token"


def test_a_plugin(tmp_path: Path) -> None:
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "bin/login",
        "args": ["--for", "x"],
        "env": [{"name": "A", "value": "b"}, {"name": "", "value": "c"}],
        "provideClusterInfo": True,
        "interactiveMode": "Never",
        "installHint": "install it",
    }
    extensions = [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "me"}}]
    access = Kubeconfig([config(tmp_path, {"exec": plugin}, extensions=extensions)]).access()
    found = access.user.plugin
    assert found is not None
    assert found.command == str(tmp_path / "bin" / "login")
    assert (found.arguments, found.environment, found.mode) == (("--for", "x"), (("A", "b"),), "Never")
    assert found.needs_cluster
    assert access.cluster.extension == {"audience": "me"}


def test_a_context_without_a_user(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config",
        "current-context: c\ncontexts: [{name: c, context: {cluster: c}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:8001'}}]\n",
    )
    assert Kubeconfig([path]).access().user.token == ""


# -- what cannot be used ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not YAML that can be read"),
        ("x: 2026-13-45", "not YAML that can be read"),
        ("!!python/object/apply:os.system ['true']", "not YAML that can be read"),
        ("[" * 5000, "not YAML that can be read"),
        ("- a\n", "a kubeconfig is an object"),
        ("", "has no current context"),
        ("contexts: 3", "'contexts' is not a list"),
        ("contexts: [3]", "entry 1 of contexts is not an object"),
        ("contexts: [{name: 3}]", "'name' is not a string"),
        ("contexts: [{name: a, context: []}]", "'context' is not an object"),
        ("current-context: x", "context 'x' is not there"),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: y}}]",
            "names the cluster 'y', which is",
        ),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "config", text)
    message = refused(path)
    assert says in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ({"server": "10.0.0.1:6443"}, "is not an address"),
        ({"server": "https://user:pw@host"}, "is not an address"),
        ({"server": "https://host:99999"}, "is not an address"),
        ({"server": "ftp://host"}, "is not an address"),
        ({"server": None}, "is not an address"),
        ({"insecure-skip-tls-verify": "true"}, "neither true nor false"),
        ({"insecure-skip-tls-verify": True, "certificate-authority-data": "YQ=="}, "none is to be checked"),
        ({"certificate-authority": "missing"}, "cannot read"),
        ({"certificate-authority-data": "=a"}, "is not base64"),
    ],
)
def test_a_cluster_that_cannot_be_used(tmp_path: Path, cluster: dict[str, Any], says: str) -> None:
    assert says in refused(config(tmp_path, None, **cluster))


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ({"token": 5}, "'token' is not a string"),
        ({"client-certificate-data": "YQ=="}, "one of them is missing"),
        ({"exec": {"command": ""}}, "names no command"),
        ({"exec": {"command": "x", "args": [1]}}, "not a string"),
        ({"exec": {"command": "x", "interactiveMode": "Sometimes"}}, "'Sometimes'"),
        ({"auth-provider": {"name": "gcp"}}, "a credential plugin"),
        ({"as-groups": ["a"]}, "without 'as'"),
    ],
)
def test_a_user_that_cannot_be_used(tmp_path: Path, user: dict[str, Any], says: str) -> None:
    assert says in refused(config(tmp_path, user))


def test_no_message_quotes_a_secret(tmp_path: Path) -> None:
    path = write(tmp_path / "config", "users:\n- name: me\n  user: {token: hunter2\n")
    assert "hunter2" not in refused(path)
    assert "line " in refused(path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    assert "longer than" in refused(write(tmp_path / "config", "#" * ((4 << 20) + 1)))


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert "cannot read" in refused(tmp_path)
