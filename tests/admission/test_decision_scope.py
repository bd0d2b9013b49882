"""What of an object is to be decided about, by its kind and by what is done to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from digestry.admission.configuration import parse
from digestry.admission.decision import Subject, decide
from digestry.admission.decision_scope import MOST_IMAGES, Change, NotLookedAt, subject_of, templates_in
from tests.admission.support import pod, pod_spec

WORKLOAD = '[[workload]]\ngroup = "x.io"\nkind = "Thing"\npaths = ["spec.tasks[].template"]\n'
POLICY = parse(f'registries = ["r.example"]\n{WORKLOAD}'.encode(), Path("admission.toml")).policy


def change(kind: tuple[str, str], content: dict[str, Any], **more: Any) -> Change:
    return Change(kind, "default", content, **more)


@pytest.mark.parametrize(
    ("operation", "subresource", "brings"),
    [
        ("CREATE", "", True),
        ("UPDATE", "", True),
        ("UPDATE", "ephemeralcontainers", True),
        ("UPDATE", "resize", True),
        ("UPDATE", "status", False),
        ("UPDATE", "scale", False),
        ("CREATE", "eviction", False),
        ("CREATE", "binding", False),
        ("DELETE", "", False),
        ("CONNECT", "exec", False),
    ],
)
def test_which_changes_can_bring_an_image(operation: str, subresource: str, brings: bool) -> None:
    one = change(("", "Pod"), pod("r.example/a:1"), operation=operation, subresource=subresource)
    assert one.names_images == brings


def test_a_workload_without_a_template_at_its_paths_is_said() -> None:
    found = templates_in(change(("x.io", "Thing"), {"spec": {"job": {}}}), POLICY)
    assert isinstance(found, NotLookedAt)
    assert found.reason == "there is no pod template at spec.tasks[].template: nothing was looked at"
    assert found.suspected


def test_a_kind_that_is_not_known_is_searched_for_a_template() -> None:
    template = {"metadata": {}, "spec": pod_spec("r.example/a:1")}
    inner: dict[str, Any] = {"spec": {"replicas": [{"worker": {"template": template}}]}}
    found = templates_in(change(("ray.io", "Cluster"), inner), POLICY)
    assert isinstance(found, NotLookedAt)
    assert found.suspected
    assert "paths = ['spec.replicas[].worker.template']" in found.reason
    # That path is one that a policy takes, and finds the template.
    taught = WORKLOAD.replace("x.io", "ray.io").replace("Thing", "Cluster")
    taught = taught.replace("spec.tasks[].template", "spec.replicas[].worker.template")
    policy = parse(f'registries = ["r.example"]\n{taught}'.encode(), Path("admission.toml")).policy
    templates = templates_in(change(("ray.io", "Cluster"), inner), policy)
    assert not isinstance(templates, NotLookedAt)
    assert [place.image for place in templates[0].places] == ["r.example/a:1"]
    settings = templates_in(change(("", "ConfigMap"), {"data": {"containers": "x"}}), POLICY)
    assert isinstance(settings, NotLookedAt)
    assert not settings.suspected


def test_an_object_of_too_many_images_is_denied_and_few_are_asked_about() -> None:
    images = [f"r.example/a{number}:1" for number in range(MOST_IMAGES + 1)]
    whole = change(("", "Pod"), pod(*images))
    templates = templates_in(whole, POLICY)
    assert not isinstance(templates, NotLookedAt)
    subject = subject_of(whole, templates, POLICY, {})
    assert len(subject.images) == MOST_IMAGES
    from digestry.admission.shared_inquiries import unasked
    from tests.admission.test_policy import NOW

    decision = decide(subject, POLICY, {image: unasked(image) for image in subject.images}, NOW)
    assert not decision.allowed
    assert f"it names {MOST_IMAGES + 1} different images" in decision.notes[0]
    # The same again, or one fewer, is fine.
    templates = templates_in(change(("", "Pod"), pod(*images[1:], images[1])), POLICY)
    assert not isinstance(templates, NotLookedAt)
    assert subject_of(whole, templates, POLICY, {}) == Subject("default", templates, {})
