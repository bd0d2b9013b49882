"""Where objects of each kind name images, and objects in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from digestry.admission.configuration import parse
from digestry.admission.manifest_files import read_objects
from digestry.admission.pod_templates import KNOWN, kind_of, templates_of
from digestry.errors import InvalidConfiguration
from tests.admission.support import pod_spec

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {
        "initContainers": [{"name": "i", "image": "r/init:1"}],
        "containers": [{"name": "c", "image": "r/main:1"}, {"name": "empty"}],
        "ephemeralContainers": [{"name": "e", "image": "r/debug:1"}],
        "volumes": [
            {"name": "v", "image": {"reference": "r/data:1", "pullPolicy": "Never"}},
            {"name": "w", "emptyDir": {}},
        ],
    },
}
IMAGES = ["r/init:1", "r/main:1", "r/debug:1", "r/data:1"]
OBJECTS: dict[tuple[str, str], dict[str, Any]] = {
    kind: {"spec": {"template": TEMPLATE}} for kind in KNOWN
} | {
    ("", "Pod"): TEMPLATE,
    ("serving.knative.dev", "Revision"): TEMPLATE,
    ("", "PodTemplate"): {"template": TEMPLATE},
    ("batch", "CronJob"): {"spec": {"jobTemplate": {"spec": {"template": TEMPLATE}}}},
}


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind[1])
def test_every_kind_and_place(kind: tuple[str, str]) -> None:
    (found,) = templates_of(OBJECTS[kind], kind) or []
    assert [place.image for place in found.places] == IMAGES
    users = [place.user for place in found.places]
    assert users == ["init container i", "container c", "ephemeral container e", "volume v"]
    assert [place.local for place in found.places] == [False, False, False, True]
    assert found.labels == {"app": "web"}
    assert found.places[1].field.endswith("spec.containers[0].image")


def test_other_kinds_by_configuration() -> None:
    text = 'registries=["r"]\n[[workload]]\ngroup="v.sh"\nkind="Job"\n'
    text += 'paths=["spec.tasks[].template", "spec.master"]'
    paths = parse(text.encode(), Path("admission.toml")).policy.paths
    document: dict[str, Any] = {
        "spec": {"tasks": [{"template": TEMPLATE}, {"template": TEMPLATE}], "master": TEMPLATE}
    }
    found = templates_of(document, ("v.sh", "Job"), paths) or []
    assert [template.places[1].field for template in found] == [
        "spec.tasks[0].template.spec.containers[0].image",
        "spec.tasks[1].template.spec.containers[0].image",
        "spec.master.spec.containers[0].image",
    ]
    assert templates_of(document, ("other", "Job"), paths) is None


def test_an_image_that_is_no_string_is_a_fault() -> None:
    (found,) = templates_of({"spec": {"containers": [{"name": "c", "image": 1.5}]}}, ("", "Pod")) or []
    assert found.faults == ("spec.containers[0].image is not a string",)


FILE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: a, namespace: shop}
spec: {template: {spec: {containers: [{name: c, image: r/a:1}]}}}
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [{name: c, image: r/b:1}]}}
---
---
apiVersion: v1
kind: PodList
items:
  - {metadata: {generateName: c-}, spec: {containers: [{name: c, image: r/c:1}]}}
---
apiVersion: admission.k8s.io/v1
kind: AdmissionReview
request:
  kind: {group: "", version: v1, kind: Pod}
  namespace: lab
  name: d
  object: {spec: {containers: [{name: c, image: r/d:1}]}}
"""


def test_files_of_every_form() -> None:
    found = list(read_objects(FILE.encode(), "all.yaml"))
    assert [one.title for one in found] == ["shop/deployment/a", "pod/b", "pod/c-", "lab/pod/d"]
    images = [
        place.image
        for one in found
        for t in templates_of(one.change.content, one.change.kind) or []
        for place in t.places
    ]
    assert images == ["r/a:1", "r/b:1", "r/c:1", "r/d:1"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [", "x.yaml, line"),
        ("kind: Pod\nkind: Job\n", "the key 'kind' is there twice"),
        ("some: values\n", "a Kubernetes object is required"),
        ("just text", "a Kubernetes object is required"),
        ("- a\n", "a Kubernetes object is required"),
    ],
)
def test_files_that_are_none(text: str, error: str) -> None:
    with pytest.raises(InvalidConfiguration) as found:
        list(read_objects(text.encode(), "x.yaml"))
    assert error in found.value.message


def test_groups_are_told_apart() -> None:
    assert kind_of({"apiVersion": "apps/v1", "kind": "Deployment"}) == ("apps", "Deployment")
    assert kind_of({"apiVersion": "v1", "kind": "Pod"}) == ("", "Pod")
    assert templates_of({"spec": pod_spec("r/a:1")}, ("metrics.k8s.io", "Pod")) is None


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"containers": {"name": "c", "image": "r/a:1"}}, "spec.containers is not a list"),
        ({"containers": ["r/a:1"]}, "spec.containers[0] is not an object"),
        ({"initContainers": "x"}, "spec.initContainers is not a list"),
        ({"volumes": [{"name": "v", "image": "r/a:1"}]}, "spec.volumes[0].image is not an object"),
        ("x", "spec is not an object"),
    ],
)
def test_something_else_where_images_should_be(spec: object, fault: str) -> None:
    (found,) = templates_of({"spec": spec}, ("", "Pod")) or []
    assert found.faults == (fault,)


@pytest.mark.parametrize("spec", [[], {"template": "x"}, {"template": [TEMPLATE]}, {"template": True}])
def test_something_else_on_the_way_to_a_template(spec: object) -> None:
    (found,) = templates_of({"spec": spec}, ("apps", "Deployment")) or []
    assert found.faults
    paths = {("v.sh", "Job"): ("spec.tasks[].template",)}
    (found,) = templates_of({"spec": {"tasks": {"template": TEMPLATE}}}, ("v.sh", "Job"), paths) or []
    assert "spec.tasks" in found.faults[0]


def test_nothing_on_the_way_is_no_template() -> None:
    assert templates_of({"spec": {"template": None}}, ("apps", "Deployment")) == []
