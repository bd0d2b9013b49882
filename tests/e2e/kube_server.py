"""A real API server of Kubernetes, with etcd behind it and no kubelet before it, on loopback."""

from __future__ import annotations

import base64
import contextlib
import csv
import http.client
import json
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.peers import built
from tests.inventory.kube import Papers, make_papers
from tests.support import PATIENCE, free_port, lacking

ADMIN = "the-administrator's-token"
_MERGE = "application/strategic-merge-patch+json"
_SLOW = 30.0


@dataclass
class Etcd:
    """A running etcd."""

    address: str
    process: subprocess.Popen[bytes]

    def compact(self, revision: int) -> None:
        """Forgets whatever was before ``revision``: lists that were begun there expire."""
        answer = _post(self.address, "/v3/kv/compaction", {"revision": str(revision), "physical": True})
        assert "error" not in answer, answer

    def revision(self) -> int:
        key = base64.b64encode(b"no such key").decode()
        return int(_post(self.address, "/v3/kv/range", {"key": key})["header"]["revision"])


@dataclass
class KubeServer:
    """A running API server. Requests are the administrator's."""

    port: int
    papers: Papers
    etcd: Etcd
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > end:
                said = self.log.read_text(errors="replace")[-3000:]
                lacking("kube-apiserver", f"it does not start here; its log ends so:\n{said}")
            time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(_SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> tuple[int, Any]:
        """One request; the status and the JSON of the answer."""
        with contextlib.closing(self._connection()) as connection:
            return self._say(connection, method, path, body, kind)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """One request that must succeed; the JSON of its answer."""
        code, answer = self.request(method, path, body, kind)
        if not 200 <= code < 300:
            pytest.fail(f"{method} {path}: {code} {answer}")
        return answer

    def apply(self, file: Path) -> None:
        """Creates what the YAML documents in ``file`` have."""
        places = {
            "Namespace": "/api/v1/namespaces",
            "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
            "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
            "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
        }
        for document in yaml.safe_load_all(file.read_text()):
            path = places[document["kind"]].format(document["metadata"].get("namespace", ""))
            self.ask("POST", path, document)

    def namespace(self, name: str) -> None:
        self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def account(self, namespace: str, name: str) -> None:
        self.ask("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})

    def token(self, namespace: str, account: str, *, seconds: int = 3600) -> str:
        """A token of a service account, as ``kubectl create token`` gets it."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = self.ask("POST", path, {"spec": {"expirationSeconds": seconds}})
        return str(answer["status"]["token"])

    def pod(self, namespace: str, name: str, spec: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        """A pod, with the status that a kubelet would report."""
        self.pods(namespace, {name: (spec, status)})

    def pods(self, namespace: str, pods: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Many pods, as quickly as the server takes them."""

        def some(names: list[str]) -> None:
            with contextlib.closing(self._connection()) as connection:
                for name in names:
                    spec, status = pods[name]
                    path = f"/api/v1/namespaces/{namespace}/pods"
                    code, said = self._say(
                        connection, "POST", path, {"metadata": {"name": name}, "spec": spec}
                    )
                    assert code == 201, said
                    patch = {"status": status}
                    code, said = self._say(connection, "PATCH", f"{path}/{name}/status", patch, _MERGE)
                    assert code == 200, said

        names = list(pods)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(some, [part for part in (names[first::4] for first in range(4)) if part]))

    def kubeconfig(self, path: Path, **user: Any) -> dict[str, str]:
        """Writes a kubeconfig for ``user``; the environment that names it."""
        document = {
            "current-context": "live",
            "contexts": [{"name": "live", "context": {"cluster": "live", "user": "me"}}],
            "clusters": [
                {
                    "name": "live",
                    "cluster": {
                        "server": self.url,
                        "certificate-authority-data": self.papers.data("ca.pem"),
                    },
                }
            ],
            "users": [{"name": "me", "user": user}],
        }
        path.write_text(json.dumps(document))  # JSON is YAML
        return {"KUBECONFIG": str(path), "HOME": str(path.parent)}

    def _ready(self) -> bool:
        try:
            return self.request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def _connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.papers.path("ca.pem")))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=_SLOW, context=context)

    def _say(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: Any,
        kind: str = "application/json",
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": kind}
        raw = None if body is None else json.dumps(body, default=str).encode()
        connection.request(method, path, raw, headers)
        answer = connection.getresponse()
        content = answer.read()
        try:
            return answer.status, json.loads(content)
        except ValueError:
            return answer.status, content.decode(errors="replace")


def _post(address: str, path: str, body: Any) -> Any:
    with contextlib.closing(http.client.HTTPConnection(address, timeout=_SLOW)) as connection:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())


@contextlib.contextmanager
def running_etcd(directory: Path) -> Iterator[Etcd]:
    path = str(built("etcd"))
    client, peer = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with (directory / "etcd.log").open("wb") as log:
        process = subprocess.Popen(
            [
                path,
                f"--data-dir={directory}/etcd",
                f"--listen-client-urls=http://{client}",
                f"--advertise-client-urls=http://{client}",
                f"--listen-peer-urls=http://{peer}",
                f"--initial-advertise-peer-urls=http://{peer}",
                f"--initial-cluster=default=http://{peer}",
                "--unsafe-no-fsync",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, ValueError):
                _post(client, "/v3/maintenance/status", {})
                break
            if process.poll() is not None or time.monotonic() > end:
                said = (directory / "etcd.log").read_text(errors="replace")[-2000:]
                lacking("etcd", f"it does not start here; its log ends so:\n{said}")
            time.sleep(0.1)
        yield Etcd(client, process)
    finally:
        process.terminate()
        process.wait(_SLOW)


@contextlib.contextmanager
def kube_server() -> Iterator[KubeServer]:
    """A cluster of no machines: authorization by roles, and service accounts that have tokens."""
    program = built("kube-apiserver")
    with tempfile.TemporaryDirectory(prefix="digestry-kube-") as name:
        directory = Path(name)
        papers = make_papers(directory)
        with (directory / "tokens.csv").open("w") as file:
            csv.writer(file).writerow([ADMIN, "admin", "admin", "system:masters"])
        with running_etcd(directory) as etcd:
            port = free_port()
            command = [
                str(program),
                f"--etcd-servers=http://{etcd.address}",
                f"--secure-port={port}",
                "--bind-address=127.0.0.1",
                f"--cert-dir={directory}",
                f"--tls-cert-file={papers.path('server.pem')}",
                f"--tls-private-key-file={papers.path('server.key')}",
                f"--client-ca-file={papers.path('ca.pem')}",
                f"--token-auth-file={directory}/tokens.csv",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={papers.path('server.pem')}",
                f"--service-account-signing-key-file={papers.path('server.key')}",
                # The controllers that make each namespace's default account do not run.
                "--disable-admission-plugins=ServiceAccount",
                "--service-cluster-ip-range=10.0.0.0/24",
                # What newer kubelets say about images that are mounted.
                "--feature-gates=ImageVolumeWithDigest=true",
            ]
            server = KubeServer(port, papers, etcd, command, directory / "kube-apiserver.log")
            server.start()
            try:
                yield server
            finally:
                server.stop()
