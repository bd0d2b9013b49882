"""Pods: every form of ``imageID``, every kind of container, and objects that are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digestry.inventory.formats.image_ids import read_image_id
from digestry.inventory.formats.pods import observe_pods, platforms_of_nodes
from digestry.inventory.observation import ContainerObservation, Observation, Unseen
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.inventory.fakes import AMD64, ARM64
from tests.inventory.kube import constructed, rows

SHOP = "reg.example:5000/shop"


def digest(word: str) -> Digest:
    return Digest.of(word.encode())


def seen(**options: Any) -> dict[str, ContainerObservation]:
    nodes = platforms_of_nodes(constructed("nodes")["items"])
    return rows(list(observe_pods(constructed("pods")["items"], source="k", nodes=nodes, **options)))


def claimed(row: ContainerObservation) -> list[tuple[str, str, bool]]:
    return [
        (one.repository.name if one.repository else "", one.digest.short, one.obtained)
        for one in row.image.claims
    ]


def running(typed: str = "app", image_id: Any = "", **status: Any) -> dict[str, Any]:
    """A pod of one container that runs on containerd."""
    values = {"name": "c", "state": {"running": {}}, "imageID": image_id, "containerID": "containerd://ab"}
    return {
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "c", "image": typed}]},
        "status": {"phase": "Running", "containerStatuses": [values | status]},
    }


def only(pod: Any) -> ContainerObservation:
    [row] = rows(list(observe_pods([pod], source="k"))).values()
    return row


# -- which containers ---------------------------------------------------------------------------


def test_every_kind_of_container_that_runs_has_a_row() -> None:
    names = {name for name in seen() if name.startswith("web-")}
    pod = "web-7d9c5b6f4b-x2x9p"
    assert names == {f"{pod}/app", f"{pod}/mesh", f"{pod}/debugger-k7w2x"}


def test_what_a_row_says_besides_its_image() -> None:
    row = seen()["web-7d9c5b6f4b-x2x9p/app"]
    assert (row.source, row.host, row.namespace) == ("k", "worker-1", "shop")
    assert len(row.id) == 64
    assert row.image.reference == f"{SHOP}/web:1.5"
    assert row.image.platform == AMD64
    assert row.remarks == ()
    assert row.runs
    assert row.image.registry_named


def test_what_ended_is_there_if_asked_for() -> None:
    assert not any("migrate" in name or name.startswith("backup") for name in seen())
    rest = seen(include_stopped=True)
    row = rest["web-7d9c5b6f4b-x2x9p/migrate"]
    assert claimed(row) == [(f"{SHOP}/migrate", digest("migrate").short, True)]
    assert row.remarks == ("it ended (Completed), and does not run",)
    assert "backup-29401200-4xk2b/dump" in rest


def test_a_container_that_runs_in_a_pod_that_has_ended_is_a_row() -> None:
    """The pod's phase may be told before the end of its containers."""
    pod = running("r.example/app:1")
    ended = {"name": "done", "state": {"terminated": {}}}
    pod["spec"]["containers"].append({"name": "done", "image": "app"})
    pod["status"] = {
        "phase": "Failed", "containerStatuses": [*pod["status"]["containerStatuses"], ended],
    }  # fmt: skip
    row = only(pod)
    assert row.name == "p/c"
    assert "its pod is Failed" in row.remarks[0]
    pod["status"]["containerStatuses"] = [ended]
    assert list(observe_pods([pod], source="k")) == []


def test_two_statuses_of_one_container_must_say_the_same() -> None:
    pod = running("r.example/app:1")
    [status] = pod["status"]["containerStatuses"]
    pod["status"]["containerStatuses"] = [status, dict(status)]
    only(pod)
    pod["status"]["containerStatuses"] = [status, status | {"imageID": "r.example/app@sha256:" + "1" * 64}]
    row, problem = list(observe_pods([pod], source="k"))
    assert isinstance(row, ContainerObservation)
    assert "twice" in getattr(problem, "message", "")


def test_what_waits_is_a_row_without_a_digest() -> None:
    rest = seen()
    crash = rest["waiting/crash"]
    assert crash.image.claims == ()
    assert "it waits: CrashLoopBackOff ('back-off 5m0s" in crash.remarks[0]
    assert "may be an earlier run's, and was not believed" in crash.remarks[1]
    pull = rest["waiting/pull"]
    assert pull.image.claims == ()
    assert len(pull.remarks) == 1
    assert "ImagePullBackOff" in pull.remarks[0]
    assert (crash.waiting, pull.waiting, rest["unscheduled/app"].waiting) == (
        "crashing",
        "pull",
        "unscheduled",
    )
    assert seen()["web-7d9c5b6f4b-x2x9p/app"].waiting == ""


def test_what_was_never_started_is_a_row_that_says_why() -> None:
    row = seen()["unscheduled/app"]
    assert row.image.claims == ()
    assert row.remarks == ("it has not been started: the pod is Pending, Unschedulable",)


def test_a_silent_node_is_said() -> None:
    row = seen()["lost/app"]
    assert row.remarks == ("its node does not report: this is the last that was heard of it",)
    assert claimed(row) == [(f"{SHOP}/web", digest("web index").short, True)]


def test_image_volumes_are_rows() -> None:
    rest = seen()
    model = rest["volumes/volume:model"]
    assert model.image.reference == f"{SHOP}/model:v2"
    assert claimed(model) == [(f"{SHOP}/model", digest("model").short, True)]
    assert model.image.claims[0].read_from == "imageRef"
    rules = rest["volumes/volume:rules"]
    assert rules.image.claims == ()
    assert any("does not say which image is mounted" in remark for remark in rules.remarks)
    assert "volumes/volume:scratch" not in rest


def test_a_remark_from_outside_is_added() -> None:
    rest = seen(remark=lambda pod, name, image: f"{pod['metadata']['name']} {name} {image}")
    assert rest["lost/app"].remarks[-1] == f"lost app {SHOP}/web:1.5"


# -- the platform -------------------------------------------------------------------------------


def test_the_platform_is_the_nodes() -> None:
    assert seen()["agent-q8z5d/agent"].image.platform == ARM64


def test_without_nodes_it_is_what_the_pod_demands_or_a_remark() -> None:
    pod = running()
    pod["spec"] |= {"nodeName": "w", "nodeSelector": {"kubernetes.io/arch": "arm64"}}
    assert only(pod).image.platform == ARM64
    del pod["spec"]["nodeSelector"]
    [row] = rows(list(observe_pods([pod], source="k", nodes_unknown="forbidden"))).values()
    assert row.image.platform is None
    assert "its node's platform is not known: forbidden" in row.remarks


# -- the forms of imageID -----------------------------------------------------------------------


def test_dockershim() -> None:
    rest = seen()
    assert claimed(rest["legacy-0/db"]) == [(f"{SHOP}/db", digest("db").short, True)]
    local = rest["legacy-0/local"]
    assert local.image.image_id == digest("local config")
    assert [(one.kind, one.found_by) for one in local.image.claims] == [("unknown", "image-id")]
    assert not local.image.registry_named


def test_containerds_archives() -> None:
    rest = seen()
    archive = rest["imported/archive"]
    assert claimed(archive) == [("", digest("archive").short, False)]
    assert "names 'docker.io/library/import-2026-11-20', an import" in archive.remarks[0]
    plain = read_image_id(f"import-2026-11-20@{digest('archive')}", runtime="containerd", own=None)
    assert plain.claims == archive.image.claims
    bare = rest["imported/bare"]
    assert [(one.kind, one.digest) for one in bare.image.claims] == [("config", digest("bare config"))]
    assert not bare.image.registry_named


def test_crio_pairs_are_candidates_alone() -> None:
    rest = seen()
    assert claimed(rest["crio/pair"]) == [
        (f"{SHOP}/other-name", digest("web manifest").short, False),
        (f"{SHOP}/web", digest("web manifest").short, False),
    ]
    for name, word in (("bare", "web 1.4 config"), ("hex", "web 1.3 config")):
        row = rest[f"crio/{name}"]
        assert row.image.image_id == digest(word)
        assert [one.kind for one in row.image.claims] == ["unknown"]


def test_another_repository_than_the_containers_own() -> None:
    rest = seen()
    copies = "mirror.example/copies/web"
    assert claimed(rest["elsewhere/app"]) == [
        (copies, digest("web copy").short, True),
        (f"{SHOP}/web", digest("web copy").short, False),
    ]
    pinned = rest["elsewhere/pinned"]
    assert claimed(pinned)[2:] == [(f"{SHOP}/web", digest("web index").short, True)]
    assert pinned.image.reference == f"{SHOP}/web@{digest('web index')}"


def test_odd_and_short_forms_are_said() -> None:
    rest = seen()
    assert rest["waiting/odd"].image.claims == rest["waiting/short"].image.claims == ()
    assert rest["waiting/odd"].remarks == ("its imageID is in no known form: 'mystery+scheme://what'",)
    assert "a shortened ID, which identifies nothing" in rest["waiting/short"].remarks[0]


@pytest.mark.parametrize(
    "text",
    [
        "a@b", "@", "sha256:", "repo@sha256:12", "<none>@<none>", "docker://", "docker-pullable://",
        "x" * 300, "reg.example/UPPER@sha256:xyz", "sha512:" + "a" * 64,
    ],
)  # fmt: skip
def test_what_is_no_image_id_is_a_remark(text: str) -> None:
    read = read_image_id(text, runtime="containerd", own=None)
    assert read.claims == ()
    assert read.image_id is None
    assert len(read.remarks) == 1


def test_a_digest_called_sha256_is_no_repository() -> None:
    whole = str(digest("x"))
    read = read_image_id(f"{whole}@{whole}", runtime="docker", own=None)
    assert [one.repository for one in read.claims] == [None]
    read = read_image_id(whole, runtime="", own=Reference.parse("reg.example/app"))
    assert [(one.repository, one.found_by) for one in read.claims] == [(None, "image-id")]


def test_without_a_name_in_the_spec_the_kubelets_is_taken() -> None:
    row = only(running("", image="reg.example/app:1"))
    assert row.image.reference == "reg.example/app:1"
    assert "the kubelet's" in row.remarks[0]
    row = only(running("", image=str(digest("x"))))
    assert row.image.reference is None


def test_a_registry_on_the_node_itself_is_said() -> None:
    row = only(running("localhost:5000/app:1"))
    assert any("localhost:5000 is a registry on its node itself" in remark for remark in row.remarks)


# -- objects that are none ----------------------------------------------------------------------


@pytest.mark.parametrize("entry", [None, 3, "pod", [], {}, {"metadata": 1}, {"metadata": {"name": 7}}])
def test_an_entry_that_is_no_pod_is_a_problem_among_rows(entry: Any) -> None:
    found = list(observe_pods([entry, running()], source="k"))
    assert [type(one) for one in found] == [Unseen, ContainerObservation]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_a_wrong_type_anywhere_never_crashes(data: st.DataObject) -> None:
    pod = constructed("pods")["items"][data.draw(st.integers(0, 9))]
    here: Any = pod
    for _ in range(data.draw(st.integers(1, 6))):
        keys = sorted(here) if isinstance(here, dict) else list(range(len(here)))
        key = data.draw(st.sampled_from(keys))
        below = here[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.booleans()):
            here[key] = data.draw(JSON)
            break
        here = below
    found: list[Observation] = list(observe_pods([pod], source="k", include_stopped=True))
    for one in found:
        if isinstance(one, ContainerObservation):
            assert all(isinstance(value, str) for value in (one.name, one.host, one.namespace, one.id))


def windows_node(kernel: object, label: object = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "labels": {"node.kubernetes.io/windows-build": label}},
        "status": {
            "nodeInfo": {"architecture": "amd64", "operatingSystem": "windows", "kernelVersion": kernel}
        },
    }


@pytest.mark.parametrize(
    ("kernel", "label", "build"),
    [
        ("10.0.20348.2113", "10.0.20348", "10.0.20348.2113"),
        ("10.0.20348.2113", None, "10.0.20348.2113"),
        ("", "10.0.20348", "10.0.20348"),
        ("6.1.0-18-amd64", "10.0.20348", "10.0.20348"),
        # Two builds are none.
        ("10.0.17763.5", "10.0.20348", None),
        ("nonsense", "nonsense", None),
        (5, ["10.0.20348"], None),
    ],
)
def test_the_build_of_a_windows_node(kernel: object, label: object, build: str | None) -> None:
    assert platforms_of_nodes([windows_node(kernel, label)])["n"].os_version == build


def test_a_kernel_is_no_build() -> None:
    node = windows_node("10.0.20348.2113")
    node["status"]["nodeInfo"]["operatingSystem"] = "linux"
    assert platforms_of_nodes([node])["n"].os_version is None
