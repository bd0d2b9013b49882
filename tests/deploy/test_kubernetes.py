"""The Kubernetes bases, as a real API server takes them, strict reading and Pod Security included."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from digestry.registry.config import load
from tests.e2e.kube_server import ADMIN, KubeServer, kube_server
from tests.peers.wheels import place
from tests.support import lacking

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("kube")]

BASES = Path(__file__).parents[2] / "deploy" / "kubernetes"
KINDS = {
    "base": {
        "Namespace": 1,
        "ServiceAccount": 1,
        "ClusterRole": 2,
        "ClusterRoleBinding": 2,
        "Service": 1,
        "NetworkPolicy": 2,
        "CronJob": 1,
    }
}
KINDS["server"] = {**KINDS["base"], "ConfigMap": 1, "StatefulSet": 1}
KINDS["nodes"] = {**KINDS["base"], "ConfigMap": 1, "Deployment": 1, "PodDisruptionBudget": 1}
AGENTS = {
    "agent": ["ClusterRole", "ClusterRoleBinding", "Deployment", "Namespace", "ServiceAccount"],
    "agent-nodes": ["DaemonSet", "Namespace", "ServiceAccount"],
}


class Kubectl:
    """The real kubectl, as the administrator of a cluster."""

    def __init__(self, server: KubeServer, directory: Path) -> None:
        program = place("kubectl")
        if not program.exists():
            lacking("kubectl", "it was not installed: run tests/peers/wheels.py")
        self._program = program
        self._environment = {**os.environ, **server.kubeconfig(directory / "kubeconfig", token=ADMIN)}

    def run(self, *words: str) -> str:
        """Return what a command prints. It must succeed, and must not warn."""
        command = [str(self._program), *words]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def objects(self, *words: str) -> list[dict[str, Any]]:
        """Return the objects that a command prints."""
        document = json.loads(self.run(*words, "-o", "json"))
        return list(document["items"]) if document["kind"] == "List" else [document]


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with kube_server() as server:
        kubectl = Kubectl(server, tmp_path_factory.mktemp("kubectl"))
        kubectl.run("apply", "-f", str(BASES / "base" / "rbac.yaml"))
        # The controller that makes it does not run here.
        server.account("digestry", "default")
        yield kubectl


@pytest.mark.parametrize("base", KINDS)
def test_a_real_api_server_takes_every_object(kubectl: Kubectl, base: str) -> None:
    objects = kubectl.objects("apply", "--dry-run=server", "--validate=strict", "-k", str(BASES / base))
    kinds = [one["kind"] for one in objects]
    assert {kind: kinds.count(kind) for kind in kinds} == KINDS[base]
    assert all(one["metadata"].get("namespace", "digestry") == "digestry" for one in objects)


@pytest.mark.parametrize("base", ["server", "nodes"])
def test_every_pod_is_restricted_and_gets_what_it_mounts(kubectl: Kubectl, base: str, tmp_path: Path) -> None:
    objects = kubectl.objects("apply", "--dry-run=server", "-k", str(BASES / base))
    names = {(one["kind"], one["metadata"]["name"]) for one in objects}
    pods = 0
    for one in objects:
        spec = one.get("spec", {})
        template = spec.get("template") or spec.get("jobTemplate", {}).get("spec", {}).get("template")
        if template is None:
            continue
        pods += 1
        for volume in template["spec"]["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
        claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])]
        volumes = [{"name": claim, "emptyDir": {}} for claim in claims] + template["spec"]["volumes"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": f"pod-{pods}", "namespace": "digestry"},
            "spec": {**template["spec"], "volumes": volumes},
        }
        file = tmp_path / f"{pods}.json"
        file.write_text(json.dumps(pod))
        kubectl.run("create", "--dry-run=server", "-f", str(file))
    assert pods == 2


@pytest.mark.parametrize("base", ["server", "nodes"])
def test_services_budgets_and_policies_select_the_pods(kubectl: Kubectl, base: str) -> None:
    objects = kubectl.objects("apply", "--dry-run=server", "-k", str(BASES / base))
    (workload,) = [one for one in objects if one["kind"] in {"StatefulSet", "Deployment"}]
    labels = workload["spec"]["template"]["metadata"]["labels"].items()
    (service,) = [one for one in objects if one["kind"] == "Service"]
    assert service["spec"]["selector"].items() <= labels
    ports = [port["name"] for port in workload["spec"]["template"]["spec"]["containers"][0]["ports"]]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ports
    for budget in (one for one in objects if one["kind"] == "PodDisruptionBudget"):
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels
    policies = [
        one["spec"]["podSelector"]["matchLabels"] for one in objects if one["kind"] == "NetworkPolicy"
    ]
    assert sum(policy.items() <= labels for policy in policies) == 1


@pytest.mark.parametrize(
    ("base", "environment"),
    [("server", {}), ("nodes", {"DIGESTRY_DATABASE": "postgresql://db/x", "DIGESTRY_BLOBS": "s3://bucket"})],
)
def test_the_configuration_is_one_that_the_registry_reads(base: str, environment: dict[str, str]) -> None:
    file = BASES / base / "registry.toml"
    config = load(file, {}, environment=environment)
    assert (config.root is None) == bool(environment)
    assert config.tls is not None
    assert config.access.htpasswd == Path("/etc/digestry/users/htpasswd")
    assert f"0.0.0.0:{config.port}" == tomllib.loads(file.read_text())["listen"]


@pytest.mark.parametrize("base", AGENTS)
def test_a_real_api_server_takes_the_agents_and_their_pods(
    kubectl: Kubectl, base: str, tmp_path: Path
) -> None:
    namespace = f"digestry-{base}"
    kubectl.run("create", "namespace", namespace, "--save-config")  # what goes into it is only tried
    objects = kubectl.objects("apply", "--dry-run=server", "--validate=strict", "-k", str(BASES / base))
    assert sorted(one["kind"] for one in objects) == AGENTS[base]
    (workload,) = [one for one in objects if one["kind"] in {"Deployment", "DaemonSet"}]
    (space,) = [one for one in objects if one["kind"] == "Namespace"]
    assert space["metadata"]["name"] == workload["metadata"]["namespace"] == namespace
    level = space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert level == ("restricted" if base == "agent" else "privileged")
    template = workload["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["args"][0] == "agent"
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in template["spec"]["volumes"]
    }
    hosts = [mount for mount in container["volumeMounts"] if mount["name"] == "containerd"]
    assert all(mount["readOnly"] for mount in hosts)


def test_the_agent_of_a_cluster_may_read_pods_and_nodes_and_nothing_else() -> None:
    objects = yaml.safe_load_all((BASES / "agent" / "rbac.yaml").read_text())
    (role,) = [one for one in objects if one["kind"] == "ClusterRole"]
    granted = {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert granted == {("pods", "list"), ("pods", "watch"), ("nodes", "list")}


@pytest.mark.parametrize("base", AGENTS)
def test_the_agents_command_lines_are_understood(base: str) -> None:
    from digestry.cli.agent import agent

    documents = yaml.safe_load_all((BASES / base / f"{base.replace('agent-', '')}.yaml").read_text())
    (workload,) = [one for one in documents if one["kind"] in {"Deployment", "DaemonSet"}]
    _, *words = workload["spec"]["template"]["spec"]["containers"][0]["args"]
    with agent.make_context("agent", list(words)) as context:
        assert context.params["registry"] == "https://registry.example.com"
