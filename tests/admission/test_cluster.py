"""The webhook before a real API server: what kubectl applies, and what is stored; many pods at once."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from digestry.admission.configuration import load
from digestry.cli.admission_serve import serve
from tests.admission.support import pod_spec
from tests.e2e.kube_server import ADMIN, KubeServer, kube_server
from tests.forked_process import ForkedProcess
from tests.peers.wheels import place
from tests.support import PATIENCE, RegistryServer, free_port, lacking, start_digestry, wait_until
from tests.tcp_relay import TcpRelay, running

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("kube")]

DEPLOY = Path(__file__).parents[2] / "deploy" / "kubernetes" / "admission"
SECRET = "digestry-admission/digestry-admission-tls"


@dataclass
class Replica:
    """A replica of the webhook, on a port of its own."""

    port: int
    metrics_port: int
    process: ForkedProcess
    directory: Path

    def log(self) -> str:
        return (self.directory / "webhook.log").read_text()

    def decided(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "decisions.jsonl").read_text().splitlines()]

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=PATIENCE)
            with contextlib.closing(connection):
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
        except OSError:
            return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=PATIENCE)


class Cluster:
    """A real API server that asks the webhook, and kubectl."""

    def __init__(self, server: KubeServer, registry: RegistryServer, directory: Path) -> None:
        self.server = server
        self.registry = registry
        self.directory = directory
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}/validate"
        program = place("kubectl")
        if not program.exists():
            lacking("kubectl", "it was not installed: run tests/peers/wheels.py")
        self._program = program
        self._environment = {**os.environ, **server.kubeconfig(directory / "kubeconfig", token=ADMIN)}
        for document in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text()):
            self.create(document)
        # As the webhook itself: with its own rights, and no others.
        token = server.token("digestry-admission", "digestry-admission")
        self.account = server.kubeconfig(directory / "account", token=token)

    def create(self, document: dict[str, Any]) -> None:
        done = self.kubectl("create", "-f", "-", given=json.dumps(document))
        assert done.returncode == 0, done.stderr

    def kubectl(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(self._program), *words]
        return subprocess.run(
            command, env=self._environment, input=given, capture_output=True, text=True, check=False
        )

    def start(self, name: str, policy: str, *, certificate: str = "", port: int = 0) -> Replica:
        """A replica; those of the first port are the ones that the API server asks."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        replica_port, metrics = port or self.port, free_port()
        file = directory / "admission.toml"
        file.write_text(
            f"""registries = ["{self.registry.host}"]
{policy}
[server]
listen = "127.0.0.1:{replica_port}"
metrics = "127.0.0.1:{metrics}"
drain = "2s"
[certificate]
names = ["127.0.0.1"]
webhook = "digestry-admission"
{certificate or f'secret = "{SECRET}"'}
"""
        )
        environment = {**os.environ, **self.account}
        with (
            (directory / "decisions.jsonl").open("ab") as output,
            (directory / "webhook.log").open("ab") as log,
        ):
            process = start_digestry(
                "admission", "serve", "--config", file, stdout=output, stderr=log, env=environment
            )
        replica = Replica(replica_port, metrics, process, directory)
        wait_until(replica.is_ready, what="the webhook", log=directory / "webhook.log")
        return replica

    def point(self, url: str) -> None:
        """Have the API server ask at another address."""
        patch = [{"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": url}]
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/digestry-admission"
        self.server.ask("PATCH", path, patch, "application/json-patch+json")

    def configure(self) -> None:
        """The webhook configuration that is shipped, with the address of this machine's webhook."""
        document = yaml.safe_load((DEPLOY / "webhook.yaml").read_text())
        (webhook,) = document["webhooks"]
        webhook["clientConfig"] = {"url": self.url}
        webhook["failurePolicy"] = "Fail"
        webhook["timeoutSeconds"] = 10
        self.create(document)


@pytest.fixture(scope="module")
def cluster(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with kube_server() as server:
        cluster = Cluster(server, registry, tmp_path_factory.mktemp("cluster"))
        cluster.configure()
        yield cluster


@pytest.fixture(scope="module")
def images(registry: RegistryServer) -> dict[str, str]:
    app = f"{registry.host}/cluster/app"
    old = registry.push_image("cluster/app", "1", b"old")
    new = registry.push_image("cluster/app", "2", b"new")
    return {"tag": f"{app}:2", "good": f"{app}:2@{new}", "never": f"{app}:2@{old}", "missing": f"{app}:3"}


@pytest.fixture(scope="module")
def replica(cluster: Cluster) -> Iterator[Replica]:
    policy = """
[default]
not-pinned = "warn"
moved = "allow"
missing = "deny"
[[rule]]
name = "production"
match = { namespace-labels = "env=production" }
not-pinned = "deny"
"""
    replica = cluster.start("first", policy)
    for name, labels in (("shop", "env=production"), ("lab", "env=lab")):
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        cluster.kubectl("label", "namespace", name, labels)
    wait_until(
        lambda: _reaches(cluster), what="the API server's trust", log=replica.directory / "webhook.log"
    )
    yield replica
    if replica.process.poll() is None:
        replica.stop()


def _reaches(cluster: Cluster) -> bool:
    done = cluster.kubectl(
        "create", "--dry-run=server", "-f", "-", given=json.dumps(deployment("x", "x.invalid/y:1"))
    )
    assert "digestry" in done.stderr or done.returncode == 0, done.stderr
    return done.returncode == 0


def deployment(name: str, image: str, namespace: str = "lab") -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(image)},
        },
    }


def cron_job(image: str, namespace: str) -> dict[str, Any]:
    template = {"spec": {"restartPolicy": "Never", **pod_spec(image)}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly", "namespace": namespace},
        "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": template}}},
    }


def test_what_is_applied_is_stored_as_it_was_sent(
    cluster: Cluster, replica: Replica, images: dict[str, str]
) -> None:
    sent = deployment("web", images["tag"])
    done = cluster.kubectl("apply", "-f", "-", given=json.dumps(sent))
    assert done.returncode == 0, done.stderr
    assert "Warning: container c0" in done.stderr
    assert "has no digest" in done.stderr
    stored = cluster.server.ask("GET", "/apis/apps/v1/namespaces/lab/deployments/web")
    last = stored["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    assert json.loads(last)["spec"] == sent["spec"]
    (container,) = stored["spec"]["template"]["spec"]["containers"]
    assert container["image"] == images["tag"]
    # Nothing is to be done for whoever compares with the source.
    assert cluster.kubectl("diff", "-f", "-", given=json.dumps(sent)).returncode == 0
    without = cluster.server.ask("GET", "/apis/apps/v1/namespaces/lab/deployments/web")
    cluster.kubectl("delete", "validatingwebhookconfiguration", "digestry-admission")
    try:
        cluster.kubectl("delete", "deployment", "web", "-n", "lab")
        cluster.kubectl("apply", "-f", "-", given=json.dumps(sent))
        plain = cluster.server.ask("GET", "/apis/apps/v1/namespaces/lab/deployments/web")
    finally:
        cluster.configure()
        wait_until(lambda: _reaches(cluster), what="trust", log=replica.directory / "webhook.log")
    for one in (without, plain):
        for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"):
            one["metadata"].pop(field, None)
    assert json.dumps(without) == json.dumps(plain)


def test_rules_by_namespace_and_each_kind(cluster: Cluster, replica: Replica, images: dict[str, str]) -> None:
    done = cluster.kubectl("apply", "-f", "-", given=json.dumps(deployment("shop", images["tag"], "shop")))
    assert done.returncode == 1
    assert 'admission webhook "admission.digestry.dev" denied the request' in done.stderr
    assert "not-pinned" in done.stderr
    for kind in (deployment("pinned", images["good"], "shop"), cron_job(images["good"], "shop")):
        done = cluster.kubectl("apply", "-f", "-", given=json.dumps(kind))
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    done = cluster.kubectl("apply", "-f", "-", given=json.dumps(cron_job(images["never"], "lab")))
    assert done.returncode == 1
    assert "never pointed" in done.stderr
    done = cluster.kubectl("set", "image", "deployment/pinned", f"c0={images['missing']}", "-n", "shop")
    assert done.returncode == 1
    assert "has no tag 3" in done.stderr
    # A change of no image is not judged.
    assert cluster.kubectl("scale", "deployment/pinned", "--replicas=3", "-n", "shop").returncode == 0
    assert cluster.kubectl("label", "deployment/pinned", "a=b", "-n", "shop").returncode == 0


def test_ephemeral_containers_and_kubectl_debug(
    cluster: Cluster, replica: Replica, images: dict[str, str]
) -> None:
    name = "target"
    spec = {"metadata": {"name": name}, "spec": pod_spec(images["good"])}
    cluster.server.ask("POST", "/api/v1/namespaces/lab/pods", spec)
    words = ("debug", name, "-n", "lab", "--container", "d1", "--profile", "general")
    done = cluster.kubectl(*words, "--image", images["never"])
    assert done.returncode == 1
    assert "ephemeral container d1" in done.stderr
    assert "never pointed" in done.stderr
    done = cluster.kubectl(*words, "--image", images["good"])
    assert done.returncode == 0, done.stderr
    stored = cluster.server.ask("GET", f"/api/v1/namespaces/lab/pods/{name}")
    assert [one["image"] for one in stored["spec"]["ephemeralContainers"]] == [images["good"]]


def test_five_hundred_pods_at_once(cluster: Cluster, replica: Replica, registry: RegistryServer) -> None:
    digests = [registry.push_image(f"cluster/many{number}", "1", b"%d" % number) for number in range(20)]
    names = [f"{registry.host}/cluster/many{number}:1@{digest}" for number, digest in enumerate(digests)]
    before = len(replica.decided())

    def create(number: int) -> int:
        body = {"metadata": {"name": f"many-{number}"}, "spec": pod_spec(names[number % 20])}
        return cluster.server.request("POST", "/api/v1/namespaces/lab/pods", body)[0]

    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(create, range(500)))
    assert statuses == [201] * 500
    decided = [one for one in replica.decided()[before:] if one["name"].startswith("many-")]
    assert len(decided) == 500
    took = sorted(one["milliseconds"] for one in decided)
    assert took[250] < 50
    # What is in memory is answered at once, also by a busy machine.
    before = len(replica.decided())
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda number: create(500 + number), range(500)))
    again = sorted(one["milliseconds"] for one in replica.decided()[before:])
    print(f"asked: p50 {took[250]} p99 {took[494]} ms; known: p50 {again[250]} p99 {again[494]} ms")
    assert again[494] < 250


def test_a_new_replica_knows_what_runs_before_it_is_ready(
    cluster: Cluster, replica: Replica, registry: RegistryServer
) -> None:
    names = []
    for number in range(8):
        digest = registry.push_image(f"cluster/warm{number}", "1", b"warm %d" % number)
        names.append(f"{registry.host}/cluster/warm{number}:1@{digest}")
    for number in range(4):
        body = {"metadata": {"name": f"warm-{number}"}, "spec": pod_spec(*names[2 * number : 2 * number + 2])}
        cluster.server.ask("POST", "/api/v1/namespaces/lab/pods", body)
    warm = cluster.start("warm", '[answers]\nwarm = "cluster"\n', port=free_port())
    try:
        assert "images that run in the cluster are in memory" in warm.log()
        connection = http.client.HTTPConnection("127.0.0.1", warm.metrics_port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        (line,) = [
            one for one in text.splitlines() if one.startswith("digestry_admission_remembered_images ")
        ]
        assert float(line.split()[1]) >= 8
    finally:
        warm.stop()


def test_replicas_are_replaced_without_a_missed_answer(
    cluster: Cluster, replica: Replica, images: dict[str, str], tmp_path: Path
) -> None:
    """Behind a relay, as a Service is: each new connection goes to a replica that is ready."""
    policy = '[default]\nnot-pinned = "allow"\nmoved = "allow"\n'
    one = cluster.start("a", policy, port=free_port())
    with running(_Service(one.port)) as service:
        cluster.point(f"https://{service.host}/validate")
        failures: list[Any] = []
        count = 0
        over = threading.Event()

        def apply() -> None:
            nonlocal count
            while not over.is_set():
                body = {"metadata": {"generateName": "roll-"}, "spec": pod_spec(images["good"])}
                code, said = cluster.server.request("POST", "/api/v1/namespaces/lab/pods?dryRun=All", body)
                count += 1
                if code != 201:
                    failures.append(said)

        thread = threading.Thread(target=apply)
        thread.start()
        try:
            for name in ("b", "c", "d"):
                following = cluster.start(name, policy, port=free_port())
                service.point(following.port)
                time.sleep(1)
                one.stop()
                one = following
        finally:
            over.set()
            thread.join()
            one.stop()
        assert not failures
        assert count > 50


class _Service(TcpRelay):
    """An address before replicas that come and go."""

    def point(self, port: int) -> None:
        self._target = ("127.0.0.1", port)

    def relay(self, client: socket.socket, upstream: socket.socket) -> None:
        back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
        back.start()
        _pump(client, upstream)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(65536):
            sink.sendall(content)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def test_the_certificate_is_shared_and_is_the_one_that_is_trusted(cluster: Cluster, replica: Replica) -> None:
    secret = cluster.server.ask("GET", "/api/v1/namespaces/digestry-admission/secrets/digestry-admission-tls")
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/digestry-admission"
    (webhook,) = cluster.server.ask("GET", path)["webhooks"]
    assert webhook["clientConfig"]["caBundle"] == secret["data"]["ca.crt"]
    assert base64.b64decode(secret["data"]["tls.crt"]).startswith(b"-----BEGIN CERTIFICATE")


def test_what_is_shipped_is_taken(cluster: Cluster, replica: Replica, tmp_path: Path) -> None:
    rendered = list(yaml.safe_load_all(cluster.kubectl("kustomize", str(DEPLOY)).stdout))
    for one in rendered:
        if one["kind"] == "ValidatingWebhookConfiguration":
            one["metadata"]["name"] = "shipped"  # there is one of that name, with another address
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": rendered})
    words = ("apply", "--validate=strict", "-o", "json", "-f", "-")
    done = cluster.kubectl(*words, "--dry-run=server", given=given)
    assert done.returncode == 0, done.stderr
    objects = json.loads(done.stdout)["items"]
    kinds = sorted(one["kind"] for one in objects)
    assert kinds == [
        "ClusterRole",
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterRoleBinding",
        "ConfigMap",
        "Deployment",
        "Namespace",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Secret",
        "Service",
        "ServiceAccount",
        "ValidatingWebhookConfiguration",
    ]
    (workload,) = [one for one in objects if one["kind"] == "Deployment"]
    template = workload["spec"]["template"]
    # The namespace is a restricted one: the pod itself has to be taken, too.
    spec = {**template["spec"]}
    spec.pop("priorityClassName", None)
    spec.pop("priority", None)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one", **template["metadata"]},
        "spec": spec,
    }
    path = "/api/v1/namespaces/digestry-admission/pods?dryRun=All"
    cluster.server.ask("POST", path, {**pod, "metadata": {"name": "one"}})
    mapped = next(one for one in objects if one["kind"] == "ConfigMap")["data"]["admission.toml"]
    (tmp_path / "admission.toml").write_text(mapped)
    configuration = load(tmp_path / "admission.toml")
    assert configuration.certificate.secret == SECRET
    assert template["spec"]["terminationGracePeriodSeconds"] > configuration.drain + 10
    ports = {one["name"]: one["containerPort"] for one in template["spec"]["containers"][0]["ports"]}
    assert configuration.metrics is not None
    assert ports == {"reviews": configuration.listen.port, "metrics": configuration.metrics.port}
    (_, _, *words) = template["spec"]["containers"][0]["args"]
    with serve.make_context("serve", list(words)) as context:
        assert str(context.params["file"]) == "/etc/digestry/admission.toml"


def test_who_applies_it_again_takes_no_trust_away(cluster: Cluster, replica: Replica) -> None:
    document = yaml.safe_load((DEPLOY / "webhook.yaml").read_text())
    document["metadata"]["name"] = "applied-again"
    given = json.dumps(document)
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/applied-again"
    secret = cluster.server.ask("GET", "/api/v1/namespaces/digestry-admission/secrets/digestry-admission-tls")
    bundle = secret["data"]["ca.crt"]
    try:
        assert cluster.kubectl("apply", "-f", "-", given=given).returncode == 0
        patch = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
        cluster.server.ask("PATCH", path, patch, "application/json-patch+json")
        assert cluster.kubectl("apply", "-f", "-", given=given).returncode == 0
        assert cluster.server.ask("GET", path)["webhooks"][0]["clientConfig"]["caBundle"] == bundle
        assert cluster.kubectl("diff", "-f", "-", given=given).returncode == 0
    finally:
        cluster.kubectl("delete", "validatingwebhookconfiguration", "applied-again")
    secrets = [
        one for one in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text()) if one["kind"] == "Secret"
    ]
    done = cluster.kubectl("apply", "-f", "-", given=json.dumps(secrets[0]))
    assert done.returncode == 0, done.stderr
    again = cluster.server.ask("GET", "/api/v1/namespaces/digestry-admission/secrets/digestry-admission-tls")
    assert again["data"] == secret["data"]


def test_the_roles_grant_nothing_else() -> None:
    granted = {
        (resource, verb, *rule.get("resourceNames", []))
        for one in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text())
        for rule in one.get("rules", [])
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {
        ("secrets", "get", "digestry-admission-tls"),
        ("secrets", "patch", "digestry-admission-tls"),
        ("namespaces", "get"),
        ("namespaces", "list"),
        ("namespaces", "watch"),
        ("pods", "list"),
        ("validatingwebhookconfigurations", "get", "digestry-admission"),
        ("validatingwebhookconfigurations", "patch", "digestry-admission"),
    }


def test_certificates_are_renewed_without_a_missed_answer(
    cluster: Cluster, replica: Replica, images: dict[str, str], tmp_path: Path
) -> None:
    replica.stop()
    policy = '[default]\nnot-pinned = "allow"\nmoved = "allow"\n'
    certificate = f'directory = "{tmp_path / "tls"}"\nlifetime = "60s"'
    cluster.point(cluster.url)
    short = cluster.start("short", policy, certificate=certificate)
    body = {"metadata": {"generateName": "cert-"}, "spec": pod_spec(images["good"])}
    path = "/api/v1/namespaces/lab/pods?dryRun=All"
    wait_until(lambda: cluster.server.request("POST", path, body)[0] == 201, what="the API server's trust")
    first = (tmp_path / "tls" / "certificates.json").read_bytes()
    end = time.monotonic() + 300
    count = renewals = 0
    while renewals < 2 and time.monotonic() < end:
        code, said = cluster.server.request("POST", path, body)
        assert code == 201, said
        # Each time a new connection, as a webhook behind a Service may see it.
        with contextlib.closing(socket.create_connection(("127.0.0.1", short.port))):
            pass
        count += 1
        found = (tmp_path / "tls" / "certificates.json").read_bytes()
        renewals += found != first
        first = found
        time.sleep(0.05)
    for _ in range(40):
        assert cluster.server.request("POST", path, body)[0] == 201
        time.sleep(0.05)
    short.stop()
    assert count > 100
    assert renewals == 2
