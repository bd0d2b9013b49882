"""Files of orchestrators, scanners and metrics: what runs, what ended, and what is a template.

The documents were constructed by the programs' references, except where a test says otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from digestry.inventory.observation import ContainerObservation, Note, Unseen
from digestry.inventory.sources.file import FileSource

A, B = ("sha256:" + letter * 64 for letter in "ab")
APP = "reg.example/app"
PAIR = f"{APP}@{A}"


class Seen:
    """What was seen in a file: its rows by name, its problems, and its notes."""

    def __init__(self, observations: list[Any]) -> None:
        self.rows = {one.name: one for one in observations if isinstance(one, ContainerObservation)}
        self.problems = [one for one in observations if isinstance(one, Unseen)]
        self.notes = [one.message for one in observations if isinstance(one, Note)]
        assert len(self.rows) + len(self.problems) + len(self.notes) == len(observations)

    def digests(self, name: str) -> list[str]:
        return [str(claim.digest) for claim in self.rows[name].image.claims]


def see(tmp_path: Path, document: Any, **options: Any) -> Seen:
    path = tmp_path / "file"
    if isinstance(document, str):
        path.write_text(document)
    else:
        path.write_text(json.dumps(document, indent=1))
    return Seen(list(FileSource("file:f", str(path), **options).observe()))


def lines(*entries: Any) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


# -- swarm --------------------------------------------------------------------------------------


def task(name: str, state: str, image: str = f"{APP}:1@{A}") -> dict[str, str]:
    return {
        "CurrentState": state, "DesiredState": "Running", "Error": "", "ID": "t", "Image": image,
        "Name": name, "Node": "n1", "Ports": "",
    }  # fmt: skip


def test_only_tasks_that_run_have_a_digest_that_runs(tmp_path: Path) -> None:
    ended = ("Shutdown 7 hours ago", "Rejected 17 hours ago", "Failed 1 s ago", "Complete 1 day ago")
    tasks = [task("run", "Running 2 hours ago"), task("wait", "Preparing 3 seconds ago")]
    tasks += [task("ready", "Ready 1 s ago"), task("cut", "Running 1 s ago", f"{APP}:1")]
    tasks += [task(f"\\_ ended.{at}", state) for at, state in enumerate(ended)]
    seen = see(tmp_path, lines(*tasks))
    assert {name: seen.digests(name) for name in seen.rows} == {
        "run": [A],
        "wait": [],
        "ready": [],
        "cut": [],
    }
    assert {one.host for one in seen.rows.values()} == {"n1"}
    assert seen.rows["wait"].waiting == "starting"
    assert seen.notes == [
        "read as `docker stack ps --format json` (8 entries)", "4 containers in it do not run",
    ]  # fmt: skip
    every = see(tmp_path, lines(*tasks), include_stopped=True)
    assert len(every.rows) == len(tasks)
    assert "does not run" in every.rows["ended.0"].remarks[0]


@pytest.mark.parametrize(("state", "count"), [("running", 1), ("shutdown", 0), ("failed", 0), ("remove", 0)])
def test_a_swarm_task_of_the_api(tmp_path: Path, state: str, count: int) -> None:
    one = {
        "ID": "t1", "ServiceID": "s1", "NodeID": "n1", "Slot": 1, "DesiredState": "running",
        "Spec": {"ContainerSpec": {"Image": f"{APP}:1@{A}"}}, "Status": {"State": state},
    }  # fmt: skip
    seen = see(tmp_path, [one])
    assert len(seen.rows) == count
    assert not seen.problems


def test_a_service_is_a_template_and_its_tasks_are_elsewhere(tmp_path: Path) -> None:
    listed = {"ID": "s", "Image": f"{APP}:1", "Mode": "replicated", "Name": "idle", "Replicas": "0/3"}
    seen = see(tmp_path, lines(listed))
    assert not seen.rows["idle"].runs
    assert not seen.problems
    seen = see(tmp_path, lines(listed, {**listed, "Name": "busy", "Replicas": "2/3"}))
    assert not any(one.runs for one in seen.rows.values())
    assert "'busy'" in seen.problems[0].message
    spec = {"Name": "w", "Mode": {"Replicated": {"Replicas": 2}}}
    spec["TaskTemplate"] = {"ContainerSpec": {"Image": f"{APP}:1@{A}"}}
    seen = see(tmp_path, [{"ID": "a", "Version": {}, "Spec": spec}])
    assert (seen.rows["w"].runs, seen.digests("w"), len(seen.problems)) == (False, [A], 1)


# -- clouds -------------------------------------------------------------------------------------


def ecs_task(state: str, of_container: str = "") -> dict[str, Any]:
    container = {"name": "web", "image": f"{APP}:1", "imageDigest": A, "lastStatus": of_container or state}
    return {
        "taskArn": f"arn:aws:ecs:x:1:task/shop/{state}", "clusterArn": "arn:aws:ecs:x:1:cluster/shop",
        "taskDefinitionArn": "arn:td", "lastStatus": state, "containers": [container],
    }  # fmt: skip


def test_tasks_of_ecs(tmp_path: Path) -> None:
    tasks = [ecs_task("RUNNING"), ecs_task("STOPPED", "RUNNING"), ecs_task("PENDING")]
    for document in ({"tasks": tasks, "failures": []}, tasks):
        seen = see(tmp_path, document)
        assert {name: seen.digests(name) for name in seen.rows} == {"RUNNING/web": [A], "PENDING/web": []}
        assert str(seen.rows["RUNNING/web"].image.claims[0].repository) == APP
        assert seen.rows["RUNNING/web"].namespace == "shop"
        assert not seen.problems
    assert see(tmp_path, {"tasks": [], "failures": []}).notes[-1] == "it says that there is no container"
    failed = see(tmp_path, {"tasks": [], "failures": [{"arn": "arn:x", "reason": "MISSING"}]})
    assert "MISSING" in failed.problems[0].message
    definition = {"family": "web", "revision": 3, "containerDefinitions": [{"name": "c", "image": PAIR}]}
    seen = see(tmp_path, {"taskDefinition": definition})
    assert (seen.rows["web:3/c"].runs, len(seen.problems)) == (False, 1)
    service = {"serviceArn": "a", "taskDefinition": "arn:td"}
    assert not see(tmp_path, {"services": [service], "failures": []}).rows


def group(state: str, of_group: str = "Running") -> dict[str, Any]:
    view = {"currentState": {"state": state}}
    return {
        "type": "Microsoft.ContainerInstance/containerGroups", "name": "cg", "resourceGroup": "rg",
        "osType": "Linux", "instanceView": {"state": of_group},
        "containers": [{"name": "web", "image": PAIR, "instanceView": view}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("document", "count"),
    [
        ([group("Running")], 1),
        ([group("Terminated")], 0),
        ([group("Running", "Stopped")], 0),
        ({"value": [group("Running")]}, 1),
        (group("Terminated")["containers"], 0),
        (group("Running")["containers"], 1),
    ],
)
def test_container_groups_of_azure(tmp_path: Path, document: Any, count: int) -> None:
    seen = see(tmp_path, document)
    assert [seen.digests(name) for name in seen.rows] == [[A]] * count
    assert not seen.problems


def test_container_apps_of_azure(tmp_path: Path) -> None:
    def revision(name: str, *, active: bool, replicas: int, state: str) -> dict[str, Any]:
        template = {"containers": [{"name": "c", "image": PAIR}]}
        properties = {"active": active, "replicas": replicas, "runningState": state, "template": template}
        return {"type": "Microsoft.App/containerapps/revisions", "name": name, "properties": properties}

    seen = see(
        tmp_path,
        [
            revision("busy", active=True, replicas=1, state="Running"),
            revision("idle", active=True, replicas=0, state="ScaledToZero"),
            revision("old", active=False, replicas=0, state="Stopped"),
        ],
    )
    assert {name: one.runs for name, one in seen.rows.items()} == {"busy/c": True, "idle/c": False}
    app = {"type": "Microsoft.App/containerApps", "name": "app", "properties": {"runningStatus": "Running"}}
    app["properties"] = {"runningStatus": "Running", "template": {"containers": [{"image": f"{APP}:1"}]}}
    seen = see(tmp_path, [app])
    assert [one.runs for one in seen.rows.values()] == [False]
    assert "revision list" in seen.problems[0].hint


def resource(kind: str, spec: Any, conditions: Any = (), **status: Any) -> dict[str, Any]:
    metadata = {"name": kind.lower(), "namespace": "123"}
    found = [dict(zip(("type", "status", "reason"), one, strict=True)) for one in conditions]
    return {
        "apiVersion": "serving.knative.dev/v1", "kind": kind, "metadata": metadata, "spec": spec,
        "status": {**status, "conditions": found},
    }  # fmt: skip


SPEC = {"containers": [{"name": "c", "image": f"{APP}:1"}]}


@pytest.mark.parametrize(
    ("document", "runs"),
    [
        (resource("Revision", SPEC, [("Active", "True", "")], imageDigest=PAIR), [True]),
        (resource("Revision", SPEC, [("Active", "False", "NoTraffic")], imageDigest=PAIR), [False]),
        (resource("Revision", SPEC, [("Active", "False", "Retired")], imageDigest=PAIR), []),
    ],
)
def test_revisions_of_cloud_run(tmp_path: Path, document: Any, runs: list[bool]) -> None:
    seen = see(tmp_path, [document])
    assert [one.runs for one in seen.rows.values()] == runs
    assert all(seen.digests(name) == [A] for name in seen.rows)
    assert not seen.problems
    cut = see(tmp_path, [resource("Revision", SPEC, imageDigest=PAIR)])
    assert [one.runs for one in cut.rows.values()] == [True]
    assert "whether it runs" in cut.problems[0].message


def test_services_and_jobs_of_cloud_run_are_templates(tmp_path: Path) -> None:
    seen = see(tmp_path, [resource("Service", {"template": {"spec": SPEC}})])
    assert [one.runs for one in seen.rows.values()] == [False]
    assert "revisions list" in seen.problems[0].hint
    execution = {**resource("Execution", {"template": {"spec": SPEC}}), "apiVersion": "run.googleapis.com/v1"}
    assert [one.runs for one in see(tmp_path, [execution]).rows.values()] == [True]
    execution["status"] = {"completionTime": "2026-11-01T00:00:00Z"}
    assert not see(tmp_path, [execution]).rows


def test_yaml_is_what_the_same_json_is(tmp_path: Path) -> None:
    text = f"""\
apiVersion: serving.knative.dev/v1
kind: Revision
metadata: {{name: w, namespace: '1', creationTimestamp: 2026-11-01T10:00:00Z}}
spec:
  containers:
  - image: {APP}:1
status: {{imageDigest: '{PAIR}'}}
---
- name: web
  image: {APP}:1
  imageID: {PAIR}
"""
    seen = see(tmp_path, text)
    assert {name: seen.digests(name) for name in seen.rows} == {"w": [A], "web": [A]}


# -- Nomad --------------------------------------------------------------------------------------

JOB = {
    "ID": "web",
    "Name": "web",
    "TaskGroups": [{"Name": "g", "Count": 1, "Tasks": [{"Name": "t", "Config": {"image": f"{APP}:1@{A}"}}]}],
}


@pytest.mark.parametrize(
    ("client", "task_state", "names"),
    [
        ("running", "running", ["a/t"]),
        ("running", "dead", []),
        ("complete", "dead", []),
        ("failed", "running", []),
        ("lost", "running", ["a/t"]),
    ],
)
def test_allocations_of_nomad(tmp_path: Path, client: str, task_state: str, names: list[str]) -> None:
    one = {
        "ID": "x", "Name": "a", "JobID": "web", "Job": JOB, "TaskGroup": "g", "NodeName": "n1",
        "ClientStatus": client, "TaskStates": {"t": {"State": task_state}},
    }  # fmt: skip
    seen = see(tmp_path, [one])
    assert list(seen.rows) == names
    assert all(row.host == "n1" for row in seen.rows.values())
    del one["Job"]
    (problem,) = see(tmp_path, [one]).problems
    assert "without its job" in problem.message


def test_jobs_of_nomad_are_templates(tmp_path: Path) -> None:
    for document, problems in (({"Job": JOB}, 1), (JOB, 1), ({**JOB, "Stop": True}, 0)):
        seen = see(tmp_path, document)
        assert [one.runs for one in seen.rows.values()] == [False]
        assert len(seen.problems) == problems


# -- Fly.io -------------------------------------------------------------------------------------


def machine(state: str = "started", **config: Any) -> dict[str, Any]:
    return {
        "id": "m1", "name": "web", "state": state, "region": "ams", "instance_id": "i",
        "image_ref": {"registry": "reg.example", "repository": "app", "tag": "1", "digest": A},
        "config": {"image": f"{APP}:1", **config},
    }  # fmt: skip


def test_machines_of_fly_have_the_digest_that_their_image_was_resolved_to(tmp_path: Path) -> None:
    seen = see(tmp_path, [machine(), {**machine("stopped"), "name": "old"}])
    assert list(seen.rows) == ["web"]
    assert seen.digests("web") == [A]
    assert (seen.rows["web"].host, seen.rows["web"].namespace) == ("m1", "ams")
    assert seen.notes[-1] == "1 container in it does not run"
    assert seen.problems == []


def test_a_machine_of_fly_with_several_containers(tmp_path: Path) -> None:
    containers = [{"name": "a", "image": f"{APP}@{B}"}, {"name": "b", "image": f"{APP}:2"}]
    seen = see(tmp_path, machine(containers=containers))
    assert {name: seen.digests(name) for name in seen.rows} == {"web/a": [B], "web/b": []}
    (problem,) = see(tmp_path, {**machine(image=""), "image_ref": {}}).problems
    assert "names no image" in problem.message


# -- images that are listed, and do not run -----------------------------------------------------

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LISTED: dict[str, Any] = {
    "oras discover": {"reference": PAIR, "mediaType": MANIFEST, "digest": A, "size": 400, "referrers": []},
    "a descriptor": {"mediaType": MANIFEST, "digest": A, "size": 400},
    "az acr": [{"architecture": "amd64", "digest": A, "imageSize": 1, "os": "linux", "tags": ["1"]}],
    "aws ecr": [{"registryId": "1", "repositoryName": "app", "imageDigest": A, "imageTags": ["1"]}],
    "gcloud": [{"digest": A, "tags": ["1"], "timestamp": {"year": 2026}}],
    "GitLab": [
        {"name": "1", "path": "g/app:1", "location": APP, "short_revision": "x", "digest": A, "total_size": 1}
    ],
    "Harbor": [{"digest": A, "id": 3, "media_type": "x", "push_time": "", "tags": [{"name": "1"}]}],
    "skopeo inspect": {"Name": APP, "Digest": A, "RepoTags": ["1"], "Architecture": "amd64", "Layers": []},
    "buildx --metadata-file": {"containerimage.digest": A, "image.name": f"{APP}:1"},
    "buildah containers": [
        {"id": "c", "builder": True, "imageid": A[7:], "imagename": APP, "containername": "w"}
    ],
    "kustomize": "images:\n- name: app\n  newName: reg.example/app\n  digest: " + A + "\n",
    "a Kustomization": "apiVersion: k/v1\nkind: Kustomization\nimages:\n- name: app\n  digest: " + A + "\n",
    "imgpkg": f"apiVersion: imgpkg/v1\nkind: ImagesLock\nimages:\n- image: {PAIR}\n",
    "digestry images": [{"repository": APP, "tag": "1", "digest": A, "image_id": B, "media_type": MANIFEST}],
    "digestry tags": [{"tag": "1", "digest": A, "updated_at": "", "media_type": MANIFEST, "problem": None}],
    "digestry whose": [{"repository": "app", "tag": "1", "via": A, "digest": A, "still": True, "seen": []}],
    "a registry's list in CSV": f"repository,mediaType,digest\\napp,{MANIFEST},{A}\\n",
    "digestry ls": [{"repository": "app", "registry": "reg.example", "name": APP}],
    "digestry advisory list": [{"vulnerability": "CVE", "status": "affected", "stated_at": "", "digest": A}],
}


@pytest.mark.parametrize("document", LISTED.values(), ids=LISTED)
def test_images_that_are_listed_do_not_run(tmp_path: Path, document: Any) -> None:
    seen = see(tmp_path, document)
    assert seen.rows == {}
    (problem,) = seen.problems
    assert "does not show that it runs" in problem.message or "is not what runs" in problem.message


def test_a_long_list_of_images_is_one_problem(tmp_path: Path) -> None:
    seen = see(tmp_path, [{"digest": A, "tags": [str(number)]} for number in range(50)])
    assert len(seen.problems) == 1


@pytest.mark.parametrize(
    "more",
    [{"host": "n1"}, {"state": "running"}, {"namespace": "prod"}, {"container": "web"}, {"image": APP}],
)
def test_containers_may_have_tags(tmp_path: Path, more: dict[str, str]) -> None:
    seen = see(tmp_path, [{"digest": A, "tags": ["team-a"], **more}])
    (row,) = seen.rows.values()
    assert [str(claim.digest) for claim in row.image.claims] == [A]


# -- Kubernetes, picked out ---------------------------------------------------------------------


def status(name: str, state: dict[str, Any], image_id: str = PAIR) -> dict[str, Any]:
    return {
        "name": name, "image": f"{APP}:1", "imageID": image_id, "containerID": "containerd://c",
        "lastState": {"terminated": {}}, "state": state,
    }  # fmt: skip


@pytest.mark.parametrize("image_id", [PAIR, f"docker-pullable://{PAIR}", A, A.removeprefix("sha256:")])
def test_container_statuses_that_jq_picked_out(tmp_path: Path, image_id: str) -> None:
    entries = [status("web", {"running": {}}, image_id), status("old", {"terminated": {"exitCode": 0}})]
    for document in (lines(*entries), entries, [{"phase": "Running", "containerStatuses": entries}]):
        seen = see(tmp_path, document)
        assert list(seen.rows) == ["web"]
        assert seen.digests("web") == [A]
        assert seen.notes[-1] == "1 container in it does not run"


def test_pods_that_have_all_finished(tmp_path: Path) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "job", "namespace": "d"},
        "spec": {"containers": [{"name": "c", "image": f"{APP}:1"}]},
        "status": {"phase": "Succeeded", "containerStatuses": [status("c", {"terminated": {}})]},
    }
    other = {**pod, "metadata": {"name": "job2", "namespace": "d"}}
    listed = {"apiVersion": "v1", "items": [pod, other], "kind": "List", "metadata": {"resourceVersion": ""}}
    seen = see(tmp_path, json.dumps(listed, indent=4))
    assert not seen.rows
    assert not seen.problems
    assert seen.notes[-1] == "2 containers in it do not run, and no other is in it"
    assert see(tmp_path, listed, include_stopped=True).digests("job/c") == [A]
    cut = {**pod, "spec": {}, "status": {"phase": "Running"}}
    assert "no containers in it" in see(tmp_path, cut).problems[0].message


# -- metrics ------------------------------------------------------------------------------------


def metric(pod: str, **more: str) -> dict[str, str]:
    return {
        "namespace": "d", "pod": pod, "container": "c", "image": f"{APP}:1", "image_spec": f"{APP}:1",
        "image_id": PAIR, "container_id": "containerd://c", **more,
    }  # fmt: skip


def sample(name: str, labels: dict[str, str], value: int = 1) -> str:
    inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value}\n"


def test_metrics_in_the_text_format(tmp_path: Path) -> None:
    key = {"namespace": "d", "container": "c"}
    text = "# HELP kube_pod_container_info x\n# TYPE kube_pod_container_info gauge\n"
    text += "".join(sample("kube_pod_container_info", metric(pod)) for pod in ("run", "end", "done"))
    text += sample("kube_pod_container_status_running", {**key, "pod": "run"})
    text += sample("kube_pod_container_status_running", {**key, "pod": "end"}, 0)
    text += sample("kube_pod_container_status_terminated", {**key, "pod": "end"})
    text += sample("kube_pod_status_phase", {"namespace": "d", "pod": "done", "phase": "Succeeded"})
    text += sample("kube_pod_info", {"namespace": "d", "pod": "run", "node": "n1"})
    seen = see(tmp_path, text)
    assert list(seen.rows) == ["run/c"]
    assert (seen.rows["run/c"].host, seen.digests("run/c")) == ("n1", [A])
    assert seen.notes[-1] == "2 containers in it do not run"
    alone = see(tmp_path, sample("kube_pod_container_info", metric("p")))
    assert "do not say whether it runs" in alone.rows["p/c"].remarks[0]
    assert see(tmp_path, "# TYPE up gauge\nup 1\n").problems


INFO = {
    "__name__": "kube_pod_container_info", "namespace": "n", "pod": "p", "container": "c",
    "image_spec": f"{APP}:1", "image_id": f"{APP}@{A}", "container_id": "containerd://a",
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"warnings": ["remote read: partial response"]}, "remote read: partial response"),
        ({"status": "error", "error": "query timed out"}, "query timed out"),
        ({"status": 5}, "the status"),
    ],
)
def test_an_answer_of_prometheus_that_need_not_be_whole(
    tmp_path: Path, more: dict[str, Any], says: str
) -> None:
    data = {"resultType": "vector", "result": [{"metric": INFO, "value": [1, "1"]}]}
    seen = see(tmp_path, {"status": "success", "data": data, **more})
    assert any(says in one.message for one in seen.problems)
    assert see(tmp_path, {"status": "success", "data": data, "warnings": []}).problems == []


@pytest.mark.parametrize(
    "labels", [f'image_id="{APP}@{A}",image_id="{APP}@{A}"', "pod=p", 'pod="p" x', 'pod="p",,image_id=']
)
def test_labels_that_cannot_be_read_are_a_problem(tmp_path: Path, labels: str) -> None:
    text = f'# TYPE kube_pod_container_info gauge\nkube_pod_container_info{{namespace="n",{labels}}} 1\n'
    assert "labels cannot be read" in see(tmp_path, text).problems[0].message


@pytest.mark.parametrize(
    "text",
    [
        f"- name: a\n  reference: {APP}:1\n  digest: '{A}'\n  digest: '{A}'\n",
        f"containers:\n  - {{name: a, reference: '{APP}:1', \"digest\": '{A}', digest: '{A}'}}\n",
    ],
)
def test_yaml_that_says_something_twice(tmp_path: Path, text: str) -> None:
    (problem,) = see(tmp_path, text).problems
    assert "twice" in problem.message


def test_what_prometheus_answers(tmp_path: Path) -> None:
    labels = {"__name__": "kube_pod_container_info", **metric("p")}
    moved = {**labels, "namespace": "monitoring", "pod": "ksm", "container": "ksm",
             "exported_namespace": "d", "exported_pod": "p", "exported_container": "c"}  # fmt: skip
    for one in (labels, moved):
        result = {"metric": one, "value": [1790000000.1, "1"]}
        for document in (
            {"status": "success", "data": {"resultType": "vector", "result": [result]}},
            [result],
        ):
            seen = see(tmp_path, document)
            assert seen.digests("p/c") == [A]
            assert seen.rows["p/c"].namespace == "d"
    over = {"resultType": "matrix", "result": [{"metric": labels, "values": [[1, "1"]]}]}
    seen = see(tmp_path, {"status": "success", "data": over})
    assert not seen.rows
    assert "range of time" in seen.problems[0].message


# -- scanners -----------------------------------------------------------------------------------


def test_a_scan_of_a_cluster_does_not_show_what_runs(tmp_path: Path) -> None:
    metadata = {"ImageID": B, "RepoTags": [f"{APP}:1"], "RepoDigests": [PAIR]}
    one = {"Namespace": "d", "Kind": "Deployment", "Name": "x", "Metadata": [metadata], "Results": []}
    seen = see(tmp_path, {"ClusterName": "kind", "Resources": [one]})
    assert seen.digests("Deployment/x") == [A, B]
    report = {
        "apiVersion": "aquasecurity.github.io/v1alpha1",
        "kind": "VulnerabilityReport",
        "metadata": {"name": "r", "namespace": "d", "labels": {"trivy-operator.container.name": "c"}},
        "report": {
            "artifact": {"repository": "app", "tag": "1", "digest": A},
            "registry": {"server": "reg.example"},
        },
    }
    listed = see(tmp_path, {"apiVersion": "v1", "kind": "List", "items": [report]})
    assert (listed.rows["r/c"].image.reference, listed.digests("r/c")) == (f"{APP}:1", [A])
    for found in (seen, listed):
        assert [(row.runs, row.host) for row in found.rows.values()] == [(False, "listed, not running")]


@pytest.mark.parametrize(
    "document",
    [
        {"SchemaVersion": 2, "ArtifactName": f"{APP}:1", "Metadata": {"RepoDigests": [PAIR]}},
        {"matches": [], "source": {"type": "image", "target": {"userInput": APP, "repoDigests": [PAIR]}}},
        {"artifacts": [], "source": {"name": APP, "metadata": {"repoDigests": [PAIR]}}},
    ],
)
def test_a_scan_of_one_image_is_refused_by_name(tmp_path: Path, document: Any) -> None:
    seen = see(tmp_path, document)
    assert not seen.rows
    (problem,) = seen.problems
    assert APP in problem.message
    assert A in problem.message


# -- identities, however they are spelled --------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["imageID", "image_id", "imageDigest", "ImageID", "IMAGE ID", "image-id", "digest", "sha", "repoDigests",
     "Running Digest", "manifest_digest", "image_ref", "SHA256"],
)  # fmt: skip
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_an_identity_in_any_spelling_is_read(tmp_path: Path, key: str, separator: str) -> None:
    row = {"name": "web", "image": f"{APP}:1", key: PAIR}
    table = separator.join(row) + "\r\n" + separator.join(row.values()) + "\r\n"
    for document in (table, [row], lines(row)):
        seen = see(tmp_path, document)
        assert seen.digests("web") == [A]
        assert not seen.problems
        assert seen.notes[0].startswith("read as an inventory")


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "w", "image": f"{APP}:1", "build_digest": A},
        {"name": "w", "image": f"{APP}:1", "what": PAIR},
        {"name": "w", "image": f"{APP}:1", "runtime": {"deep": {"imageRef": PAIR}}},
        {"ID": "c", "Names": "w", "Image": f"{APP}:1", "State": "running", "ImageDigest": A},
        {"Id": "c", "Image": B, "Config": {"Image": APP}, "ImageDigest": A},
        {"imageDigest": A, "containers": [{"name": "w", "image": f"{APP}:1"}]},
        {"name": "w", "x": 1, "image": {"name": APP, "digest": A}},
        {"Code": {"ImageUri": APP, "ResolvedImageUri": PAIR}},
    ],
)
def test_an_identity_that_is_not_read_is_said(tmp_path: Path, entry: dict[str, Any]) -> None:
    seen = see(tmp_path, [entry])
    assert any("not read" in problem.message for problem in seen.problems), seen.problems
    flat = {key: value for key, value in entry.items() if isinstance(value, str)}
    if flat.keys() >= {"name", "image"} and len(flat) > 2:
        table = see(tmp_path, ",".join(flat) + "\n" + ",".join(flat.values()) + "\n")
        assert any("not read" in problem.message for problem in table.problems)


@pytest.mark.parametrize(
    ("state", "count"),
    [
        ("running", 1), ("Up 2 hours", 1), ("exited", 0), ("Exited (0) 2 days ago", 0), ("STOPPED", 0),
        ("Terminated", 0), ("not running", 0), ("puzzled", 1), ({"terminated": {"exitCode": 0}}, 0),
        ({"running": {}}, 1), (False, 0), (True, 1),
    ],
)  # fmt: skip
def test_an_inventorys_state(tmp_path: Path, state: Any, count: int) -> None:
    for key in ("state", "Status", "phase"):
        seen = see(tmp_path, [{"name": "w", "image": f"{APP}:1", "digest": A, key: state}])
        assert len(seen.rows) == count
    seen = see(tmp_path, [{"name": "w", "image": APP, "digest": A, "info": {"state": state}}])
    assert len(seen.rows) == count
    if isinstance(state, str):
        assert len(see(tmp_path, f"name,digest,status\nw,{A},{state}\n").rows) == count


def test_compose_keeps_the_id_of_what_it_started(tmp_path: Path) -> None:
    labels = f"com.docker.compose.project=shop,com.docker.compose.image={A}"
    listed = {"ID": "c", "Names": "w", "Image": f"{APP}:1", "State": "running", "Labels": labels}
    images = {"ID": A, "ContainerName": "w", "Repository": APP, "Tag": "1"}
    for entry in (listed, images):
        assert see(tmp_path, lines(entry)).digests("w") == [A]


def test_words_and_numbers_of_yaml_are_what_they_look_like(tmp_path: Path) -> None:
    lines = [
        "- {name: off, repository: reg.example/app, tag: 1.10}",
        "- {name: 012, image: reg.example/22:22}",
    ]
    path = tmp_path / "file"
    path.write_text("\n".join(lines))
    seen = [
        each for each in FileSource("file:f", str(path)).observe() if isinstance(each, ContainerObservation)
    ]
    assert [(each.name, each.image.reference) for each in seen] == [
        ("off", "reg.example/app:1.10"),
        ("012", "reg.example/22:22"),
    ]


@pytest.mark.parametrize(
    ("word", "runs"),
    [("CONTAINER_RUNNING", True), ("CONTAINER_EXITED", False), ("TASK_RUNNING", True), ("TASK_LOST", True)],
)
def test_states_with_the_kind_of_thing_before_them(tmp_path: Path, word: str, runs: bool) -> None:
    path = tmp_path / "file"
    path.write_text(json.dumps([{"name": "w", "reference": "reg.example/app:1", "state": word}]))
    seen = [
        each for each in FileSource("file:f", str(path)).observe() if isinstance(each, ContainerObservation)
    ]
    assert len(seen) == runs
    assert any("whether it runs is not clear" in text for each in seen for text in each.remarks) == (
        word == "TASK_LOST"
    )
