"""Files that container engines' clients print: what each says, and what it cannot say."""

from __future__ import annotations

import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from digestry.errors import InvalidConfiguration
from digestry.inventory.observation import ContainerObservation, Note, Unseen
from digestry.inventory.source_selection import parse_source
from digestry.inventory.sources.file import FileSource
from tests.inventory.fakes import names, recording, without_notes

A, B, C, D = ("sha256:" + letter * 64 for letter in "abcd")
APP = "reg.example/app"


def observe(tmp_path: Path, *documents: Any, **options: Any) -> list[Any]:
    """What is seen in a file of ``documents``: text as it is, anything else as printed JSON."""
    path = tmp_path / "file"
    path.write_text(
        "\n".join(one if isinstance(one, str) else json.dumps(one, indent=4) for one in documents)
    )
    return without_notes(FileSource("file:f", str(path), **options).observe())


def one(tmp_path: Path, *documents: Any, **options: Any) -> ContainerObservation:
    (seen,) = observe(tmp_path, *documents, **options)
    assert isinstance(seen, ContainerObservation), seen
    return seen


def claims(seen: ContainerObservation) -> list[tuple[str | None, str, str]]:
    """Each claim's repository, digest and kind."""
    return [
        (None if each.repository is None else each.repository.name, str(each.digest), each.kind)
        for each in seen.image.claims
    ]


def said(seen: ContainerObservation) -> str:
    return "; ".join(seen.remarks)


# -- docker -------------------------------------------------------------------------------------

RECORDED = recording("docker-20.10")
CONTAINERS = [v["body"] for k, v in RECORDED.items() if k.startswith("/containers/") and k.count("/") == 3]
IMAGES = [v["body"] for k, v in RECORDED.items() if k.startswith("/images/") and v["status"] == 200]


def test_docker_inspect_of_containers_and_images_is_as_good_as_the_engine(tmp_path: Path) -> None:
    for documents in (
        (CONTAINERS + IMAGES,),
        (IMAGES, CONTAINERS),
        [json.dumps(entry) for entry in CONTAINERS + IMAGES],  # --format '{{json .}}'
        [{"host": "n1", "containers": CONTAINERS}, {"images": IMAGES}],
    ):
        seen = names(observe(tmp_path, *documents))
        assert "gone" not in seen
        assert seen["web-bad"].namespace == "shop"
        assert [where for where, _, _ in claims(seen["multi"])] == ["localhost:5610/golftrack"] * 2 + [None]
        assert claims(seen["multi"])[-1][2] == "unknown"
        assert seen["by-id"].image.reference is None
        assert not seen["local"].image.registry_named
        assert str(seen["multi"].image.platform) == "linux/amd64"
    assert {each.host for each in seen.values()} == {"n1"}


def test_docker_inspect_alone_has_the_image_id(tmp_path: Path) -> None:
    seen = names(observe(tmp_path, CONTAINERS, include_stopped=True))
    assert "gone" in seen
    assert [kind for _, _, kind in claims(seen["web-bad"])] == ["unknown"]  # the store is not known
    assert "only the ID of its image" in said(seen["web-bad"])
    assert seen["web-bad"].host == "unknown host"
    assert (
        len(
            {
                id(each.image.claims)
                for each in seen.values()
                if each.image.reference == "localhost:5610/golftrack:1.5"
            }
        )
        == 2
    )


def test_containerds_store_names_the_platforms_manifest(tmp_path: Path) -> None:
    entry = {"Id": "1", "Image": A, "Config": {"Image": f"{APP}:1"}, "ImageManifestDescriptor": {"digest": B}}
    image = {
        "Id": A,
        "RepoDigests": [f"{APP}@{A}"],
        "Descriptor": {"digest": A, "mediaType": "application/vnd.oci.image.index.v1+json"},
    }
    seen = one(tmp_path, [entry, image])
    assert str(seen.image.platform_manifest) == B
    assert claims(seen) == [(APP, A, "index"), (None, A, "index")]
    assert not seen.image.claims[0].obtained


def test_docker_ps_has_names_and_no_digest(tmp_path: Path) -> None:
    lines = [
        {"ID": "c1", "Image": f"{APP}:1", "Names": "web", "State": "running",
         "Labels": "a=b,com.docker.compose.project=shop"},
        {"ID": "c2", "Image": "0123456789ab", "Names": "old", "Labels": "", "State": "running"},
        {"ID": "c3", "Image": f"{APP}:1", "Names": "ended", "Status": "Exited (0) 2 days ago"},
        {"ID": "c4", "Image": f"{APP}@{A}", "Names": "pinned", "State": "running"},
    ]  # fmt: skip
    seen = names(observe(tmp_path, *map(json.dumps, lines)))
    assert sorted(seen) == ["old", "pinned", "web"]
    assert (seen["web"].namespace, seen["web"].image.claims, seen["web"].image.reference) == (
        "shop",
        (),
        f"{APP}:1",
    )
    assert "has no digest in it" in said(seen["web"])
    assert seen["old"].image.reference is None
    assert "0123456789ab" in said(seen["old"])
    assert claims(seen["pinned"]) == [(APP, A, "unknown")]


def test_dockers_api_list_shows_an_id_where_the_name_moved(tmp_path: Path) -> None:
    seen = names(observe(tmp_path, RECORDED["/containers/json"]["body"]))
    assert seen["web-bad"].image.reference is None
    assert "does not say which image name" in said(seen["web-bad"])
    assert seen["multi"].image.reference == "localhost:5610/golftrack:multi"


def test_dockers_api_list_names_the_platforms_manifest(tmp_path: Path) -> None:
    entry = {"Id": "1", "Names": ["/w"], "Image": f"{APP}:1", "ImageID": A, "State": "running"}
    seen = one(tmp_path, [{**entry, "ImageManifestDescriptor": {"digest": B, "size": 1}}])
    assert str(seen.image.platform_manifest) == B


def test_what_takes_space_has_containers_and_images(tmp_path: Path) -> None:
    usage = {
        "LayersSize": 1,
        "Images": [{"Id": A, "RepoTags": [f"{APP}:1"], "RepoDigests": [f"{APP}@{B}"], "Containers": 1}],
        "Containers": [{"Id": "1", "Names": ["/w"], "Image": f"{APP}:1", "ImageID": A, "State": "running"}],
        "Volumes": [],
        "BuildCache": [],
    }
    assert claims(one(tmp_path, usage))[0] == (APP, B, "unknown")


def test_the_table_of_what_takes_space_is_refused(tmp_path: Path) -> None:
    """`docker system df --verbose` has no state of its containers."""
    container = {"ID": "c", "Image": f"{APP}:1", "Names": "w"}
    (problem,) = observe(tmp_path, {"Images": [], "Containers": [container], "Volumes": []})
    assert isinstance(problem, Unseen)


def test_podman_before_2(tmp_path: Path) -> None:
    entry = {
        "ID": "1",
        "Names": "w",
        "Image": f"{APP}:1",
        "ImageID": A[7:],
        "Status": "Up 2 hours",
        "State": 3,
    }
    ended = {**entry, "Names": "x", "State": 6, "Status": "Exited (0) 2 hours ago"}
    seen = one(tmp_path, [entry, ended])
    assert claims(seen) == [(None, A, "unknown")]


def test_docker_images_lines_give_an_id_its_digests(tmp_path: Path) -> None:
    images = [{"ID": A, "Repository": APP, "Tag": tag, "Digest": B} for tag in ("1", "<none>")]
    seen = one(tmp_path, {"Id": "1", "Image": A, "Config": {"Image": f"{APP}:1"}}, *map(json.dumps, images))
    assert claims(seen) == [(APP, B, "unknown"), (None, A, "unknown")]


# -- podman -------------------------------------------------------------------------------------

PODMAN = recording("podman-4.3-program")


def test_podman_inspect(tmp_path: Path) -> None:
    inspected, images = list(PODMAN["inspect"].values()), list(PODMAN["images"].values())
    with_images = names(observe(tmp_path, inspected, images))
    alone = names(observe(tmp_path, inspected))
    moved = with_images["p-moved"]
    assert [each.found_by for each in moved.image.claims] == ["repo-digest", "image-id"]
    assert "ImageDigest" in moved.image.claims[0].read_from
    assert not any(each.obtained for each in with_images["p-good"].image.claims)
    assert not alone["p-local"].image.registry_named
    assert "in no registry" in said(alone["p-local"])
    assert str(alone["p-moved"].image.claims[0].digest) == str(moved.image.claims[0].digest)


def test_podman_ps(tmp_path: Path) -> None:
    seen = names(observe(tmp_path, PODMAN["ps"], list(PODMAN["images"].values())))
    assert seen["p-good"].image.reference == "localhost:5610/golftrack:1.5"
    assert len(seen["p-good"].image.claims) > 2
    pod = names(observe(tmp_path, [{**PODMAN["ps"][0], "IsInfra": True, "PodName": "pod"}]))["p-good"]
    assert (pod.namespace, "pause container" in said(pod)) == ("pod", True)


# -- the CRI ------------------------------------------------------------------------------------


def listed(**more: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "podSandboxId": "s1",
        "metadata": {"name": "web", "attempt": 0},
        "image": {"image": A, "annotations": {}, "userSpecifiedImage": f"{APP}:1"},
        "imageRef": A,
        "state": "CONTAINER_RUNNING",
        "labels": {
            "io.kubernetes.container.name": "web",
            "io.kubernetes.pod.name": "shop-1",
            "io.kubernetes.pod.namespace": "shop",
        },
        **more,
    }


def inspected(**more: Any) -> dict[str, Any]:
    status = {key: value for key, value in listed().items() if key != "podSandboxId"}
    status |= {"image": {"image": f"{APP}:latest"}, "imageRef": f"{APP}@{B}"}
    info = {
        "sandboxID": "s1",
        "snapshotter": "overlayfs",
        "config": {"image": {"image": A, "user_specified_image": f"{APP}:1"}},
        "runtimeSpec": {"annotations": {"io.kubernetes.cri.container-type": "container"}},
    }
    return {"status": status | more.pop("status", {}), "info": info | more.pop("info", {})}


def test_crictl_ps_has_the_configs_digest(tmp_path: Path) -> None:
    seen = one(tmp_path, {"containers": [listed(), listed(id="c2", state="CONTAINER_EXITED")]})
    assert (seen.namespace, seen.name, seen.id, seen.image.reference) == (
        "shop",
        "shop-1/web",
        "c1",
        f"{APP}:1",
    )
    assert claims(seen) == [(None, A, "unknown")]
    assert seen.image.claims[0].found_by == "image-id"


def test_crictl_images_give_it_its_repository(tmp_path: Path) -> None:
    images = {"images": [{"id": A, "repoTags": [f"{APP}:1"], "repoDigests": [f"{APP}@{B}"], "size": "1"}]}
    seen = one(tmp_path, {"containers": [listed()]}, images)
    assert claims(seen) == [(APP, B, "unknown"), (None, A, "unknown")]
    assert not seen.image.claims[0].obtained  # of CRI-O the pair may never have been


def test_crictl_inspect_has_the_repositorys_digest(tmp_path: Path) -> None:
    for documents in ([inspected()], [[inspected()]], [json.dumps(inspected())]):
        seen = one(tmp_path, *documents)
        assert seen.image.reference == f"{APP}:1"
        assert claims(seen) == [(APP, B, "unknown"), (None, A, "config")]
        assert seen.image.claims[0].obtained
    several = observe(tmp_path, inspected(), inspected(status={"id": "c2"}))
    assert [each.id for each in several] == ["c1", "c2"]


def test_crio_pairs_names_and_digests_itself(tmp_path: Path) -> None:
    info = {
        "snapshotter": None,
        "config": None,
        "runtimeSpec": {
            "annotations": {
                "io.kubernetes.cri-o.ContainerType": "container",
                "io.kubernetes.cri-o.ImageName": f"{APP}:1",
            }
        },
    }
    seen = one(tmp_path, inspected(info=info))
    assert seen.image.reference is None
    assert [each.obtained for each in seen.image.claims] == [False]
    bare = one(tmp_path, inspected(info=info, status={"imageRef": "a" * 64}))
    assert claims(bare) == [(None, A, "unknown")]


def test_a_name_that_the_runtime_chose_is_said_to_be_one(tmp_path: Path) -> None:
    seen = one(tmp_path, inspected(info={"config": None}))
    assert seen.image.reference is None  # a tag that nobody typed is not judged
    assert claims(seen)[0] == (APP, B, "unknown")
    assert f"{APP}:latest is one name that the runtime knows it by" in said(seen)


def test_a_sandbox_is_listed_as_what_it_is(tmp_path: Path) -> None:
    status = {
        "id": "s1",
        "metadata": {"name": "shop-1", "namespace": "shop", "uid": "u", "attempt": 0},
        "state": "SANDBOX_READY",
    }
    seen = one(tmp_path, {"status": status, "info": {"image": "registry.k8s.io/pause:3.9", "pid": 7}})
    assert (seen.namespace, seen.name) == ("shop", "shop-1/(sandbox)")
    assert (seen.image.reference, seen.image.claims) == ("registry.k8s.io/pause:3.9", ())
    assert "pause container" in said(seen)
    assert "may have moved" in said(seen)


def test_crictl_pods_alone_are_not_enough(tmp_path: Path) -> None:
    pods = {"items": [{"id": "s1", "metadata": {"name": "x"}, "state": "SANDBOX_READY"}]}
    (problem,) = observe(tmp_path, pods)
    assert "`crictl pods -o json`, with nothing in it to be used" in problem.message
    assert "crictl ps" in problem.hint


# -- containerd ---------------------------------------------------------------------------------


def container(**more: Any) -> dict[str, Any]:
    return {
        "ID": "c1",
        "Labels": {},
        "Image": f"{APP}:1",
        "Runtime": {"Name": "io.containerd.runc.v2"},
        "SnapshotKey": "c1",
        "Snapshotter": "overlayfs",
        "Extensions": None,
        "Spec": {},
        **more,
    }


def test_containerd_has_a_name_that_can_move(tmp_path: Path) -> None:
    table = f"CONTAINER    IMAGE    RUNTIME    \nc1    {APP}:1    io.containerd.runc.v2    \n"
    for document in (container(), table):
        seen = one(tmp_path, document)
        assert (seen.id, seen.image.reference, seen.image.claims) == ("c1", f"{APP}:1", ())
        assert "the name may have moved" in said(seen)
        assert "whether it runs" in said(seen)


def test_the_cris_own_record_has_the_configs_digest(tmp_path: Path) -> None:
    record = {
        "Version": "v1",
        "Metadata": {"ImageRef": A, "Config": {"image": {"user_specified_image": f"{APP}:2"}}},
    }
    value = base64.b64encode(json.dumps(record).encode()).decode()
    labels = {"io.cri-containerd.kind": "container", "io.kubernetes.container.name": "web",
              "io.kubernetes.pod.name": "shop-1", "io.kubernetes.pod.namespace": "shop"}  # fmt: skip
    extensions = {"io.cri-containerd.container.metadata": {"type_url": "x", "value": value}}
    seen = one(tmp_path, container(Labels=labels, Extensions=extensions))
    assert (seen.namespace, seen.name, seen.image.reference) == ("shop", "shop-1/web", f"{APP}:2")
    assert claims(seen) == [(None, A, "config")]
    deep = base64.b64encode(b'{"x":' + b"[" * 100_000).decode()
    for broken in ("=", base64.b64encode(b"{").decode(), deep, 7):
        extension: dict[str, Any] = {"value": broken}
        named = container(Labels=labels, Extensions={"io.cri-containerd.container.metadata": extension})
        assert one(tmp_path, named).image.claims == ()
    sandbox = one(tmp_path, container(Labels=labels | {"io.cri-containerd.kind": "sandbox"}))
    assert "pause container" in said(sandbox)


def test_nerdctl_inspect_has_the_name_where_docker_has_the_id(tmp_path: Path) -> None:
    entry = {
        "Id": "c1",
        "Name": "web",
        "Image": f"{APP}:1",
        "State": {"Status": "running", "Running": True},
        "Config": {"Labels": {"nerdctl/namespace": "default"}},
    }
    seen = one(tmp_path, [entry])
    assert (seen.namespace, seen.name, seen.image.claims) == ("default", "web", ())
    assert "the name may have moved" in said(seen)


# -- Kubernetes ---------------------------------------------------------------------------------


def pod(**status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "shop-1", "namespace": "shop"},
        "spec": {"nodeName": "n1", "containers": [{"name": "web", "image": f"{APP}:1"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "web",
                    "image": f"{APP}:1",
                    "imageID": f"{APP}@{B}",
                    "containerID": "containerd://c1",
                    "state": {"running": {"startedAt": "2026-11-21T10:00:00Z"}},
                }
            ],
            **status,
        },
    }


NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "n1"},
    "status": {"nodeInfo": {"architecture": "arm64", "operatingSystem": "linux"}},
}


def test_pods_in_every_shape_that_kubectl_prints(tmp_path: Path) -> None:
    bare = {key: value for key, value in pod().items() if key not in {"apiVersion", "kind"}}
    node = {key: value for key, value in NODE.items() if key not in {"apiVersion", "kind"}}
    for documents in (
        [{"apiVersion": "v1", "kind": "List", "items": [pod(), NODE]}],
        [
            {"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": [node]},
            {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [bare]},
        ],
        [pod(), NODE],
        [json.dumps(pod()), json.dumps(NODE)],
        [[pod(), NODE]],
    ):
        seen = one(tmp_path, *documents)
        assert (seen.host, seen.namespace, seen.name, seen.id) == ("n1", "shop", "shop-1/web", "c1")
        assert claims(seen) == [(APP, B, "unknown")]
        assert str(seen.image.platform) == "linux/arm64"


def test_templates_are_not_what_runs(tmp_path: Path) -> None:
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {}}
    found = observe(tmp_path, {"apiVersion": "v1", "kind": "List", "items": [pod(), deployment, deployment]})
    problems = [each for each in found if isinstance(each, Unseen)]
    assert len(found) == 2
    assert "a Deployment is a template" in problems[0].message
    assert "kubectl get pods" in problems[0].hint


def test_what_pods_were_made_from_may_be_beside_them(tmp_path: Path) -> None:
    owned = pod()
    owned["metadata"] |= {
        "labels": {"pod-template-hash": "5d8"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d8", "controller": True}],
    }
    space = owned["metadata"].get("namespace")

    def template(kind: str, name: str, **spec: Any) -> dict[str, Any]:
        inner = {"template": {"spec": {"containers": [{"name": "c", "image": f"{APP}:1"}]}}}
        about = {"name": name, "namespace": space}
        return {"apiVersion": "apps/v1", "kind": kind, "metadata": about, "spec": {**inner, **spec}}

    beside = [template("Deployment", "web"), template("ReplicaSet", "web-5d8")]
    beside += [template("ReplicaSet", "web-4c7", replicas=0), template("Deployment", "off", replicas=0)]
    beside.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {}})
    every = {"apiVersion": "v1", "kind": "List"}
    found = observe(tmp_path, {**every, "items": [*beside, owned]})
    assert [type(each) for each in found] == [ContainerObservation]
    found = observe(tmp_path, {**every, "items": [owned, *beside, template("Deployment", "other")]})
    (problem,) = [each for each in found if isinstance(each, Unseen)]
    assert "no pod of 'other' is in this file" in problem.message
    found = observe(tmp_path, {**every, "items": beside})
    assert [each.message.partition(": ")[2].partition(": ")[2].partition(":")[0] for each in found] == [
        "a Deployment is a template",
        "a ReplicaSet is a template",
        "a Service is not what runs",
    ]


def test_an_error_of_the_cluster_in_place_of_a_list(tmp_path: Path) -> None:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "message": "pods is forbidden",
        "code": 403,
    }
    (problem,) = observe(tmp_path, status)
    assert "the cluster answered with an error: 'pods is forbidden'" in problem.message


def test_compose_files_are_templates(tmp_path: Path) -> None:
    text = f"""name: shop
services:
  web:
    image: {APP}:1
  off:
    image: {APP}@{A}
    deploy:
      replicas: 0
  own:
    build: .
"""
    found = observe(tmp_path, text)
    rows = [each for each in found if isinstance(each, ContainerObservation)]
    assert [(row.namespace, row.name, row.runs) for row in rows] == [
        ("shop", "web", False),
        ("shop", "off", False),
    ]
    assert claims(rows[1]) == [(APP, A, "unknown")]
    problems = [each.message for each in found if isinstance(each, Unseen)]
    assert ["a Compose file: it says what is to be started" in problems[0], "'own'" in problems[1]] == [
        True
    ] * 2


@pytest.mark.parametrize(
    ("document", "name"),
    [
        (
            {"document": {"category": "csaf_vex"}, "product_tree": {}, "vulnerabilities": []},
            "a CSAF advisory",
        ),
        (
            {"@context": "https://openvex.dev/ns", "@id": "x", "author": "a", "statements": []},
            "an OpenVEX advisory",
        ),
        ({"$schema": "x", "version": "2.1.0", "runs": []}, "a SARIF log"),
        ([{"critical": {"image": {"docker-manifest-digest": A}}, "optional": {}}], "a verified signature"),
        ({"Type": "container", "Action": "start", "Actor": {"ID": "1"}, "id": "1", "from": APP}, "events"),
        ({"terraform_version": "1.5.0", "version": 4, "resources": []}, "a state of Terraform"),
    ],
)
def test_documents_about_something_else_are_refused_by_name(tmp_path: Path, document: Any, name: str) -> None:
    (problem,) = observe(tmp_path, document)
    assert f"this is {name}" in problem.message
    assert "audit what runs" in problem.hint or "docker inspect" in problem.hint


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"[Unit]\nDescription=web\n[Container]\nImage=x\n", "a unit of systemd, or a Quadlet"),
        (gzip.compress(b"[]", mtime=0), "a gzip file"),
        (b"PK\x03\x04rest", "a zip file"),
    ],
    ids=["unit", "gzip", "zip"],
)
def test_files_of_other_kinds_are_refused_by_name(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    (problem,) = FileSource("file:f", str(path)).observe()
    assert isinstance(problem, Unseen)
    assert f"this is {name}" in problem.message
    assert problem.hint


def test_a_name_in_no_registry(tmp_path: Path) -> None:
    built = pod()
    built["status"]["containerStatuses"][0] |= {"imageID": f"localhost/app@{A}", "containerID": "cri-o://1"}
    seen = one(tmp_path, built)
    assert [where for where, _, _ in claims(seen)] == [None, APP]
    assert "in no registry" in said(seen)
    built["spec"]["containers"][0]["image"] = "localhost/app:1"
    for document in (built, f"name,reference,digest\nweb,localhost/app:1,{A}\n"):
        seen = one(tmp_path, document)
        assert claims(seen) == [(None, A, "unknown")]
        assert not seen.image.registry_named
        assert "in no registry" in said(seen)


# -- streams, positions, options ----------------------------------------------------------------


def test_json_lines_go_on_after_a_bad_one(tmp_path: Path) -> None:
    good = json.dumps({"name": "a", "digest": A})
    lines = [good, '{"name": "b", "dig', "", "nonsense", '{"digest": 5}', '{"x": 1}', f"{good}{good}", good]
    found = observe(tmp_path, *lines)
    assert len(names(found)) == 1
    assert len([each for each in found if isinstance(each, ContainerObservation)]) == 4
    problems = [each.message for each in found if isinstance(each, Unseen)]
    assert [message.partition(":")[0].rpartition(" ")[2] for message in problems] == ["2", "4", "5", "6"]


def test_printed_documents_may_follow_lines_and_each_other(tmp_path: Path) -> None:
    entries = [{"name": str(number), "digest": A} for number in range(6)]
    found = observe(
        tmp_path,
        json.dumps(entries[0]),
        entries[1],
        json.dumps(entries[2], indent=1) + json.dumps(entries[3], indent=1),
        [entries[4]],
        json.dumps(entries[5]),
    )
    assert [each.name for each in found] == ["0", "1", "2", "3", "4", "5"]


def test_positions_in_documents_that_follow_each_other(tmp_path: Path) -> None:
    bad = {"name": "bad", "digest": "nope"}
    text = json.dumps({"v": [1, {"a": "}]"}], "containers": [{"digest": A}, bad]}, indent=1)
    line = next(at for at, line in enumerate(text.splitlines(), 1) if "bad" in line) - 1
    found = observe(tmp_path, text, "", json.dumps([bad], indent=1))
    first, second = [each.message for each in found if isinstance(each, Unseen)]
    assert f"line {line}:" in first
    assert f"line {text.count(chr(10)) + 1 + 2 + 1}:" in second
    compact = observe(tmp_path, json.dumps([{"digest": A}, bad]))
    assert "line 1, entry 2:" in next(each.message for each in compact if isinstance(each, Unseen))


def test_a_document_without_an_end_is_named_by_where_it_breaks(tmp_path: Path) -> None:
    found = observe(tmp_path, {"name": "a", "digest": A}, '{\n "name": "b",\n "x": [1, 2\n')
    assert [type(each) for each in found] == [Unseen, ContainerObservation]
    assert "not JSON" in found[0].message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("CONTAINER ID   IMAGE     COMMAND\n1 2 3\n", "a table for people"),
        ("NAMESPACE   NAME    READY\n", "a table for people"),
        ("apiVersion: v1\nkind: List\n", "a List is not what runs"),
        ("kind: [\n", "not YAML"),
        ("a: &a [x]\nb: *a\n", "anchors"),
        ("SPDXVersion: SPDX-2.3\n", "tag-value"),
        ("<?xml version='1.0'?>\n", "XML"),
        ('{"a": 1, "b": 2}', "in an object with 'a', 'b'"),
        ("[1]", "must be an object, not '1'"),
        ('{"a": 1}\n' * 3, "nor anything else that is known"),
        ('[{"Id": "1", "RepoDigests": []}]', "Id of an image is not a digest"),
        ('[{"Id": "' + "a" * 64 + '", "RepoDigests": []}]', "images alone do not say what runs"),
        ('[{"Id": 5, "Image": "x", "Config": {}}]', "Expected `str`, got `int`"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_known_says_what_was_expected(tmp_path: Path, text: str, says: str) -> None:
    found = observe(tmp_path, text)
    assert says in found[0].message + found[0].hint
    assert all(isinstance(each, Unseen) for each in found)


def test_what_powershell_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for text in (f'[\r\n{{"digest": "{A}"}}\r\n]\r\n', f"name,digest\r\nweb,{A}\r\n"):
        for encoding in ("utf-16", "utf-8-sig"):
            path.write_bytes(text.encode(encoding))
            (seen,) = without_notes(FileSource("f", str(path)).observe())
            assert isinstance(seen, ContainerObservation), seen
            assert [str(claim.digest) for claim in seen.image.claims] == [A]
    path.write_bytes(b"\xff\xfe[")
    (problem,) = without_notes(FileSource("f", str(path)).observe())
    assert "UTF-16" in problem.message


def test_many_bad_entries_are_counted(tmp_path: Path) -> None:
    found = observe(tmp_path, *['{"digest": "x"}'] * 1500)
    assert len(found) == 1001
    assert "500 more entries" in found[-1].message


def test_containers_that_do_not_run(tmp_path: Path) -> None:
    entry = {"Id": "1", "Image": A, "Config": {"Image": "x"}, "State": {"Status": "exited", "Running": False}}
    path = tmp_path / "ended"
    path.write_text(json.dumps([entry]))
    form, note = FileSource("f", str(path)).observe()
    assert isinstance(form, Note)
    assert isinstance(note, Note)
    assert form.message == "read as `docker inspect` of a container"
    assert note.message == "1 container in it does not run, and no other is in it"
    assert "--all" in note.hint
    assert len(observe(tmp_path, [entry], include_stopped=True)) == 1


def test_options_of_the_source(tmp_path: Path) -> None:
    path = tmp_path / "what?.json"
    path.write_text(json.dumps([{"digest": A}, {"digest": B, "host": "own"}]))
    seen = without_notes(parse_source(f"file:{path}?host=n1&limit=1MiB").observe())
    assert [each.host for each in seen if isinstance(each, ContainerObservation)] == ["n1", "own"]
    assert len(without_notes(parse_source(f"file:{path}").observe())) == 2  # the question mark is the name's
    (problem,) = without_notes(parse_source(f"file:{path}?limit=20").observe())
    assert isinstance(problem, Unseen)
    assert "longer than 20 bytes" in problem.message
    for bad in ("file:", "file:?host=x", "file:x?limit=lots"):
        with pytest.raises(InvalidConfiguration, match=r"which file|not a size"):
            parse_source(bad)


def test_the_limit_counts_what_standard_input_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    class Stdin:
        buffer: Pipe

    stdin = Stdin()
    monkeypatch.setattr("sys.stdin", stdin)
    for content in (f'[\n{{"digest": "{A}"}}\n]', f'{{"digest": "{A}"}}\n' * 3, f"digest\n{A}\n"):
        stdin.buffer = Pipe(content.encode())
        found = without_notes(FileSource("file:-", "-").observe())
        assert {type(each) for each in found} == {ContainerObservation}
        stdin.buffer = Pipe(content.encode())
        found = without_notes(FileSource("file:-", "-", largest=60).observe())
        assert isinstance(found[0], Unseen)
        assert "longer than 60 bytes" in found[0].message


def test_one_image_is_one_object_for_all_its_containers(tmp_path: Path) -> None:
    rows = [{"name": str(n), "reference": f"{APP}:1", "digest": A, "host": "n"} for n in range(50)]
    seen = observe(tmp_path, rows)
    assert len({id(each.image.claims) for each in seen}) == len({id(each.host) for each in seen}) == 1
