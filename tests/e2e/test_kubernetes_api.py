"""The audit of a real API server: kube-apiserver on etcd, roles, pages, and what every runtime says.

There is no kubelet: pods are made through the API, and their statuses are patched as a kubelet would.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from digestry.advisories import publish
from digestry.audit.registry_queries import RegistryQueries
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import Refused
from digestry.inventory.gathering import keep
from digestry.inventory.kube import api as kube_api
from digestry.inventory.kube.config import find_access
from digestry.inventory.kube.credentials import Credentials
from digestry.inventory.observation import ContainerObservation, Note, Unseen, now
from digestry.inventory.sources.kubernetes import KubernetesSource, Where
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.e2e.engines import Engine
from tests.e2e.kube_server import KubeServer, kube_server
from tests.support import PATIENCE, RegistryServer, descriptor, digestry, wait_until

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("kube")]

RBAC = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base" / "rbac.yaml"
NOWHERE = "127.0.0.1:1"  # nothing listens there
RUNS = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
ENDED = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-01T00:00:00Z"}}
WAITS = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[KubeServer]:
    with kube_server() as server:
        server.apply(RBAC)
        for name, architecture in (("n-amd64", "amd64"), ("n-arm64", "arm64")):
            server.ask("POST", "/api/v1/nodes", {"metadata": {"name": name}})
            info = {"architecture": architecture, "operatingSystem": "linux"}
            server.ask(
                "PATCH",
                f"/api/v1/nodes/{name}/status",
                {"status": {"nodeInfo": info}},
                "application/strategic-merge-patch+json",
            )
        yield server


@dataclass
class Auditor:
    """digestry's own command, as the service account of ``deploy/kubernetes/base/rbac.yaml``."""

    directory: Path
    server: KubeServer
    namespace: str = "digestry"
    account: str = "digestry-audit"

    def environment(self) -> dict[str, str]:
        token = self.server.token(self.namespace, self.account)
        return self.server.kubeconfig(self.directory / "kubeconfig", token=token)

    def run(self, where: str, *options: str, environment: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """The exit code of an audit, and its report."""
        home = {"DIGESTRY_HOME": str(self.directory), "DOCKER_CONFIG": str(self.directory)}
        tool = Engine(tuple(digestry()), {**home, **(environment or self.environment())})
        done = tool.attempt("audit", "--source", where, "--format", "json", *options)
        assert "Traceback" not in done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


@pytest.fixture
def auditor(cluster: KubeServer, tmp_path: Path) -> Auditor:
    return Auditor(tmp_path, cluster)


@pytest.fixture
def namespace(request: pytest.FixtureRequest, cluster: KubeServer) -> str:
    """A namespace for one test alone."""
    name = str(request.node.name).removeprefix("test_").replace("_", "-")[:60]
    cluster.namespace(name)
    return name


def spec(image: str, *, node: str = "n-amd64", **more: Any) -> dict[str, Any]:
    return {"nodeName": node, "containers": [{"name": "main", "image": image}], **more}


def container(image: str, said: str, state: Any = RUNS, name: str = "main", **more: Any) -> dict[str, Any]:
    ready = "running" in state
    started = {"containerID": more.pop("containerID", f"containerd://{'c' * 64}")} if said else {}
    told = {"name": name, "image": image, "imageID": said, "state": state, "ready": ready}
    return {**told, "restartCount": 0, **started, **more}


def status(*containers: Any, phase: str = "Running", **more: Any) -> dict[str, Any]:
    return {"phase": phase, "containerStatuses": list(containers), **more}


def rows(report: Any) -> dict[str, Any]:
    return {one["name"]: one for one in report["containers"]}


@dataclass
class Application:
    """A repository whose tag moved from an image with an advisory to its fix, and an index."""

    repository: str
    bad: Digest
    good: Digest
    config: Digest
    index: Digest
    children: dict[str, Digest]


@pytest.fixture(scope="module")
def application(registry: RegistryServer) -> Application:
    name = "kube/app"
    manifest = registry.image(name, b"bad")
    config = Digest.parse(manifest["config"]["digest"])
    bad = registry.push_manifest(name, "1", manifest)
    good = registry.push_image(name, "1", b"good")
    children, entries = {}, []
    for architecture in ("amd64", "arm64"):
        image = registry.image(name, architecture.encode())
        raw = json.dumps(image).encode()
        children[architecture] = registry.push_manifest(name, str(Digest.of(raw)), raw)
        platform = {"architecture": architecture, "os": "linux"}
        entries.append(
            descriptor(media_types.OCI_MANIFEST, children[architecture], len(raw), platform=platform)
        )
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    many = registry.push_manifest(name, "many", index)
    repository = f"{registry.host}/{name}"
    with Session(ClientOptions()) as session:
        subject = publish.find_image(session, Reference.parse(f"{repository}@{bad}"))
        cure = publish.find_image(session, Reference.parse(f"{repository}:1"))
        publish.attach_statement(
            session,
            subject,
            publish.NewStatement("CVE-2026-1", "affected", "me", now()),
            [cure],
            new_queries=lambda: RegistryQueries(session),
        )
    return Application(repository, bad, good, config, many, children)


def test_what_each_runtime_says(
    cluster: KubeServer, auditor: Auditor, namespace: str, application: Application
) -> None:
    app, bad, config = application.repository, application.bad, application.config
    one, many = f"{app}:1", f"{app}:many"
    docker = {"containerID": f"docker://{'c' * 64}"}
    crio = {"containerID": f"cri-o://{'c' * 64}"}
    forms = {
        "dockershim": container(one, f"docker-pullable://{app}@{bad}", **docker),
        "dockershim-local": container(one, f"docker://{config}", **docker),
        "containerd": container(one, f"{app}@{bad}"),
        "containerd-imported": container(one, str(config)),
        "containerd-fixed": container(one, f"{app}@{application.good}"),
        "crio": container(one, f"{app}@{bad}", **crio),
        "crio-id": container(one, config.encoded, **crio),
        "crio-pair-that-never-was": container(one, f"{NOWHERE}/made/up@{bad}", **crio),
        "unknown-id": container(one, f"sha256:{'9' * 64}"),
        "waits": container(one, "", WAITS),
        "waits-stale": container(one, f"{app}@{application.good}", WAITS),
        "ended": container(one, f"{app}@{bad}", ENDED),
    }
    pods = {name: (spec(one), status(said)) for name, said in forms.items()}
    for architecture in ("amd64", "arm64"):
        said = container(many, f"{app}@{application.index}")
        pods[f"index-{architecture}"] = (spec(many, node=f"n-{architecture}"), status(said))
    pods["init"] = (
        spec(one, initContainers=[{"name": "first", "image": one}]),
        status(
            container(one, "", {"waiting": {"reason": "PodInitializing"}}),
            phase="Pending",
            initContainerStatuses=[container(one, f"{app}@{bad}", name="first")],
        ),
    )
    pods["volume"] = (
        spec(
            one,
            containers=[
                {
                    "name": "main",
                    "image": one,
                    "volumeMounts": [{"name": "files", "mountPath": "/files"}],
                }
            ],
            volumes=[{"name": "files", "image": {"reference": one}}],
        ),
        status(
            container(
                one,
                f"{app}@{application.good}",
                volumeMounts=[
                    {
                        "name": "files",
                        "mountPath": "/files",
                        "volumeStatus": {"image": {"imageRef": f"{app}@{bad}"}},
                    }
                ],
            )
        ),
    )
    pods["debugged"] = (spec(one), status(container(one, f"{app}@{application.good}")))
    cluster.pods(namespace, pods)
    path = f"/api/v1/namespaces/{namespace}/pods/debugged"
    cluster.ask(
        "PATCH",
        f"{path}/ephemeralcontainers",
        {"spec": {"ephemeralContainers": [{"name": "debugger", "image": one}]}},
        "application/strategic-merge-patch+json",
    )
    cluster.ask(
        "PATCH",
        f"{path}/status",
        {"status": {"ephemeralContainerStatuses": [container(one, f"{app}@{bad}", name="debugger")]}},
        "application/strategic-merge-patch+json",
    )
    code, report = auditor.run(f"kubernetes:?namespace={namespace}")
    assert code == 1
    told = {
        one["name"]: (one["running_digest"], one["tag_state"], one["advisory_state"])
        for one in report["containers"]
    }
    vulnerable = (str(bad), "moved", "affected")
    fixed = (str(application.good), "current", "fixed")
    assert told.pop("unknown-id/main")[::2] == (None, "unknown")
    pair = told.pop("crio-pair-that-never-was/main")
    assert (pair[0], pair[2]) == (str(bad), "affected")
    for name in ("waits/main", "waits-stale/main", "init/main"):
        assert told.pop(name)[::2] == (None, "unknown")
    children = {name: str(application.index) for name in ("index-amd64/main", "index-arm64/main")}
    for name, digest in children.items():
        running, tag, advisory = told.pop(name)
        assert (running, tag) == (digest, "current")
        assert advisory not in {"affected", "fixed"}
    assert told == {
        "dockershim/main": vulnerable,
        "dockershim-local/main": vulnerable,
        "containerd/main": vulnerable,
        "containerd-imported/main": vulnerable,
        "containerd-fixed/main": fixed,
        "crio/main": vulnerable,
        "crio-id/main": vulnerable,
        "init/first": vulnerable,
        "debugged/debugger": vulnerable,
        "debugged/main": fixed,
        "volume/volume:files": vulnerable,
        "volume/main": fixed,
    }
    platforms = {one["name"]: one["platform"] for one in report["containers"] if one["name"] in children}
    assert platforms == {"index-amd64/main": "linux/amd64", "index-arm64/main": "linux/arm64"}
    assert "ended/main" in rows(auditor.run(f"kubernetes:?namespace={namespace}", "--all")[1])


def test_who_may_read_one_namespace_only(
    cluster: KubeServer, auditor: Auditor, namespace: str, application: Application
) -> None:
    image, good = f"{application.repository}:1", application.good
    cluster.pod(namespace, "app", spec(image), status(container(image, f"{application.repository}@{good}")))
    cluster.account(namespace, "narrow")
    allow(cluster, namespace, "narrow", ["list"])
    narrow = Auditor(auditor.directory, cluster, namespace, "narrow")

    code, report = narrow.run("kubernetes")
    assert code == 3
    assert report["containers"] == []
    said = [one for one in report["problems"] if "/api/v1/pods" in one["message"]]
    assert len(said) == 1
    assert '"list" on "pods" (403)' in said[0]["message"]
    assert "namespace=a,b" in said[0]["hint"]

    code, report = narrow.run(f"kubernetes:?namespace={namespace}")
    assert (code, report["problems"]) == (0, [])
    (row,) = report["containers"]
    assert (row["name"], row["running_digest"], row["advisory_state"]) == ("app/main", str(good), "fixed")
    assert "its node's platform is not known" in " ".join(row["reasons"])


def test_an_account_that_is_gone(cluster: KubeServer, auditor: Auditor, namespace: str) -> None:
    cluster.account(namespace, "leaving")
    leaving = Auditor(auditor.directory, cluster, namespace, "leaving")
    environment = leaving.environment()
    code, report = leaving.run("kubernetes", environment=environment)
    assert code == 3
    assert "(403)" in report["problems"][0]["message"]
    cluster.ask("DELETE", f"/api/v1/namespaces/{namespace}/serviceaccounts/leaving")

    def refused() -> bool:  # the server keeps what it knows of a token for some seconds
        code, report = leaving.run("kubernetes", environment=environment)
        assert code == 3
        return "does not accept the user" in report["problems"][0]["message"]

    wait_until(refused, what="the refusal of a token whose account is gone")


def test_a_server_that_restarts(
    cluster: KubeServer, auditor: Auditor, namespace: str, application: Application
) -> None:
    image, good = f"{application.repository}:1", application.good
    cluster.pod(namespace, "app", spec(image), status(container(image, f"{application.repository}@{good}")))
    environment = auditor.environment()
    where = f"kubernetes:?namespace={namespace}"
    assert auditor.run(where, environment=environment)[0] == 0
    cluster.stop()
    try:
        code, report = auditor.run(where, environment=environment)
    finally:
        cluster.start()
    assert (code, report["containers"]) == (3, [])
    assert "connection refused" in report["problems"][0]["message"]
    assert auditor.run(where, environment=environment)[0] == 0


def many(count: int, application: Application) -> dict[str, Any]:
    """Pods of which each hundredth runs the bad image."""
    image = f"{application.repository}:1"
    digests = {number: application.good if number % 100 else application.bad for number in range(count)}
    return {
        f"pod-{number:04}": (
            spec(image),
            status(
                container(
                    image, f"{application.repository}@{digest}", containerID=f"containerd://{number:064x}"
                )
            ),
        )
        for number, digest in digests.items()
    }


def test_a_list_that_expires_is_begun_again(
    cluster: KubeServer, auditor: Auditor, namespace: str, application: Application, monkeypatch: Any
) -> None:
    cluster.pods(namespace, many(60, application))
    monkeypatch.setattr(kube_api, "PAGE", 20)
    where = Where(namespaces=(namespace,))
    source = KubernetesSource("kubernetes", where, environment=auditor.environment())
    observed = source.observe()
    seen = [next(observed)]  # the first page has come
    cluster.ask("DELETE", f"/api/v1/namespaces/{namespace}/pods/pod-0050?gracePeriodSeconds=0")
    image = f"{application.repository}:1"
    late = container(image, f"{application.repository}@{application.bad}", containerID="containerd://late")
    cluster.pod(namespace, "pod-0000-late", spec(image), status(late))
    cluster.etcd.compact(cluster.etcd.revision())
    # What the server kept of its own lists does not survive a restart, and etcd has forgotten them.
    cluster.stop()
    cluster.start()
    seen += observed
    assert [one for one in seen if isinstance(one, Unseen)] == []
    names = [one.name for one in seen if isinstance(one, ContainerObservation)]
    expected = {f"pod-{number:04}/main" for number in range(60)} - {"pod-0050/main"}
    assert sorted(names) == sorted(expected | {"pod-0000-late/main"})


@pytest.fixture(scope="module")
def thousands(cluster: KubeServer, application: Application) -> str:
    """A namespace of 5,000 pods."""
    cluster.namespace("thousands")
    cluster.pods("thousands", many(5000, application))
    return "thousands"


def test_five_thousand_pods(auditor: Auditor, thousands: str) -> None:
    begun = time.monotonic()
    code, report = auditor.run(f"kubernetes:?namespace={thousands}")
    took = time.monotonic() - begun
    assert (code, report["problems"]) == (1, [])
    names = [one["name"] for one in report["containers"]]
    assert len(names) == len(set(names)) == 5000
    bad = {one["name"] for one in report["containers"] if one["advisory_state"] == "affected"}
    assert bad == {f"pod-{number:04}/main" for number in range(0, 5000, 100)}
    print(f"an audit of 5,000 pods took {took:.1f} s")
    assert took < PATIENCE


@dataclass
class Counted:
    """A way to the API server that counts what is asked and what comes back."""

    url: str = ""
    connections: int = 0
    received: int = 0

    def taken(self) -> tuple[int, int]:
        """What was counted since the last time."""
        counted = self.connections, self.received
        self.connections = self.received = 0
        return counted


@contextlib.contextmanager
def counting(port: int) -> Iterator[Counted]:
    counted = Counted()

    class Through(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            counted.connections += 1
            with socket.create_connection(("127.0.0.1", port)) as other, contextlib.suppress(OSError):
                ends = {self.request: other, other: self.request}
                while True:
                    for end in select.select(list(ends), [], [])[0]:
                        content = end.recv(1 << 16)
                        if not content:
                            return
                        counted.received += len(content) if end is other else 0
                        ends[end].sendall(content)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Through) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        counted.url = f"https://127.0.0.1:{server.server_address[1]}"
        try:
            yield counted
        finally:
            server.shutdown()


def watching(environment: Mapping[str, str], *namespaces: str) -> KubernetesSource:
    source = KubernetesSource("kubernetes", Where(namespaces=namespaces), environment=environment)
    keep([source])
    return source


def seen(source: KubernetesSource) -> tuple[set[str], list[str]]:
    """The pods of one round, and what was said beside them."""
    observed = list(source.observe())
    rows = [one for one in observed if isinstance(one, ContainerObservation) and one.runs]
    assert len(rows) == len({(row.namespace, row.name) for row in rows})
    return {row.name.partition("/")[0] for row in rows}, [
        one.message for one in observed if isinstance(one, Note | Unseen)
    ]


def requests(api: pytest.MonkeyPatch) -> list[str]:
    """What is asked from now on."""
    asked: list[str] = []
    whole = kube_api.KubeAPI._open

    def note(self: Any, address: str, *arguments: Any) -> Any:
        asked.append(address)
        return whole(self, address, *arguments)

    api.setattr(kube_api.KubeAPI, "_open", note)
    return asked


def test_what_a_watch_spares(
    cluster: KubeServer,
    auditor: Auditor,
    thousands: str,
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """5,000 pods, of which a few come, change and go between one round and the next."""
    pods = f"/api/v1/namespaces/{thousands}/pods"
    image = f"{application.repository}:1"
    said = container(image, f"{application.repository}@{application.bad}")
    with counting(cluster.port) as counted:
        environment = auditor.environment()
        config = Path(environment["KUBECONFIG"])
        config.write_text(config.read_text().replace(cluster.url, counted.url))
        source = watching(environment, thousands)
        asked = requests(monkeypatch)
        names, told = seen(source)
        listed, listed_bytes = [one for one in asked if pods in one], counted.taken()[1]
        asked.clear()
        assert (len(names), told) == (5000, [])

        new = {f"new-{number}" for number in range(5)}
        cluster.pods(thousands, {name: (spec(image), status(said)) for name in new})
        again, told = seen(source)
        watched, watched_bytes = [one for one in asked if pods in one], counted.taken()[1]
        assert (again, told) == (names | new, [])
        for name in new:
            cluster.ask("DELETE", f"{pods}/{name}?gracePeriodSeconds=0")
        begun = time.monotonic()
        assert seen(source) == (names, [])
        print(f"a round without much took {time.monotonic() - begun:.1f} s")
    print(f"listed: {len(listed)} requests, {listed_bytes:,} bytes")
    print(f"watched: {len(watched)} requests, {watched_bytes:,} bytes")
    assert (len(listed), len(watched)) == (10, 2)
    assert watched_bytes * 50 < listed_bytes


def test_a_version_that_etcd_has_forgotten(
    cluster: KubeServer,
    auditor: Auditor,
    namespace: str,
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What happened while nobody watched is compacted away, and the server has no memory of its own."""
    image = f"{application.repository}:1"
    good = container(image, f"{application.repository}@{application.good}")
    cluster.pods(namespace, {name: (spec(image), status(good)) for name in ("stays", "goes")})
    source = watching(auditor.environment(), namespace)
    assert seen(source) == ({"stays", "goes"}, [])
    path = f"/api/v1/namespaces/{namespace}/pods"
    cluster.ask("DELETE", f"{path}/goes?gracePeriodSeconds=0")
    cluster.pod(namespace, "comes", spec(image), status(good))
    cluster.etcd.compact(cluster.etcd.revision())
    cluster.stop()
    cluster.start()
    asked = requests(monkeypatch)
    assert seen(source) == ({"stays", "comes"}, [])
    of_pods = [parse_qs(urlsplit(one).query) for one in asked if one.startswith(path)]
    assert ["watch" in one for one in of_pods] == [False, True, False]
    assert "limit" in of_pods[2]
    [version] = of_pods[1]["resourceVersion"]
    access = find_access("", environment=auditor.environment())
    api = kube_api.KubeAPI(access, Credentials(access.user, access.cluster))
    api.prepare()
    with pytest.raises(Refused) as refused:
        list(api.watch(path, "watch pods", kind="Pod", version=version, seconds=1))
    assert refused.value.status == 410
    cluster.pod(namespace, "later", spec(image), status(good))
    asked.clear()
    assert seen(source) == ({"stays", "comes", "later"}, [])
    assert len([one for one in asked if one.startswith(path)]) == 2


def test_a_server_that_restarts_between_rounds(
    cluster: KubeServer, auditor: Auditor, namespace: str, application: Application
) -> None:
    image = f"{application.repository}:1"
    good = container(image, f"{application.repository}@{application.good}")
    cluster.pod(namespace, "app", spec(image), status(good))
    source = watching(auditor.environment(), namespace)
    assert seen(source) == ({"app"}, [])
    cluster.stop()
    try:
        names, told = seen(source)
        assert names == set()
        assert "connection refused" in told[0]
    finally:
        cluster.start()
    assert seen(source) == ({"app"}, [])


def test_who_may_list_and_not_watch(
    cluster: KubeServer, auditor: Auditor, namespace: str, application: Application
) -> None:
    image = f"{application.repository}:1"
    good = container(image, f"{application.repository}@{application.good}")
    cluster.pod(namespace, "first", spec(image), status(good))
    cluster.account(namespace, "lister")
    allow(cluster, namespace, "lister", ["list"])
    source = watching(Auditor(auditor.directory, cluster, namespace, "lister").environment(), namespace)
    assert seen(source) == ({"first"}, [])
    names, told = seen(source)
    assert names == {"first"}
    assert len(told) == 1
    assert '"watch" on "pods" (403)' in told[0]
    cluster.pod(namespace, "second", spec(image), status(good))
    assert seen(source) == ({"first", "second"}, [])


def test_all_namespaces_are_watched_by_the_account_that_is_shipped(
    cluster: KubeServer, auditor: Auditor, namespace: str, application: Application
) -> None:
    source = watching(auditor.environment())
    before, told = seen(source)
    assert told == []
    image = f"{application.repository}:1"
    good = container(image, f"{application.repository}@{application.good}")
    cluster.pod(namespace, "only-here", spec(image), status(good))
    after, told = seen(source)
    assert (after - before, told) == ({"only-here"}, [])


def allow(cluster: KubeServer, namespace: str, account: str, verbs: list[str]) -> None:
    """A role for one namespace: ``verbs`` on pods, and listing workloads."""
    group = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": verbs},
        {
            "apiGroups": ["apps", "batch"],
            "resources": ["deployments", "statefulsets", "daemonsets", "cronjobs", "jobs"],
            "verbs": ["list"],
        },
    ]
    cluster.ask("POST", f"{group}/roles", {"metadata": {"name": account}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    binding = {
        "metadata": {"name": account},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
        "subjects": [subject],
    }
    cluster.ask("POST", f"{group}/rolebindings", binding)


def test_rounds_of_the_command(
    cluster: KubeServer, auditor: Auditor, namespace: str, application: Application, tmp_path: Path
) -> None:
    image = f"{application.repository}:1"
    good, bad = (f"{application.repository}@{one}" for one in (application.good, application.bad))
    cluster.pod(namespace, "first", spec(image), status(container(image, good)))
    environment = {**os.environ, **auditor.environment(), "DIGESTRY_HOME": str(tmp_path)}
    with (tmp_path / "rounds").open("wb") as rounds:
        process = subprocess.Popen(
            digestry("audit", "--source", f"kubernetes:?namespace={namespace}", "--watch", "1"),
            stdout=rounds,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    try:
        said = tmp_path / "rounds"
        wait_until(lambda: "first/main" in said.read_text(), what="the first round")
        assert "VULNERABLE" not in said.read_text()
        cluster.pod(namespace, "second", spec(image), status(container(image, bad)))
        wait_until(lambda: "second/main" in said.read_text(), what="a round that has the new pod")
        wait_until(lambda: "VULNERABLE" in said.read_text(), what="its verdict")
        cluster.ask("DELETE", f"/api/v1/namespaces/{namespace}/pods/second?gracePeriodSeconds=0")
        wait_until(lambda: "second/main" not in last(said.read_text()), what="a round without it")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


def last(said: str) -> str:
    """The last round that was written whole."""
    blocks = said.split("\n== ")
    return blocks[-2] if len(blocks) > 1 else said
