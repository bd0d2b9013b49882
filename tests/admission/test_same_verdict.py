"""``admission test`` and the webhook decide the same about the same objects."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from digestry.model.digest import Digest
from tests.admission.support import pod, pod_spec, review, running_webhook
from tests.support import RegistryServer, run_digestry

pytestmark = pytest.mark.long

KINDS = ("Pod", "Deployment", "CronJob", "PodTemplate", "Thing", "ConfigMap")


def objects(names: list[str], count: int, seed: int) -> list[dict[str, Any]]:
    """Objects of all kinds, with some of ``names`` at all places, in several namespaces."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        spec = pod_spec(*chance.choices(names, k=chance.randint(1, 3)))
        if chance.random() < 0.3:
            spec["initContainers"] = [{"name": "i", "image": chance.choice(names)}]
        if chance.random() < 0.2:
            spec["volumes"] = [{"name": "v", "image": {"reference": chance.choice(names)}}]
        if chance.random() < 0.2:
            spec["containers"][0]["imagePullPolicy"] = "Never"
        template = {"metadata": {"labels": {"app": chance.choice(["web", "probe"])}}, "spec": spec}
        bodies: dict[str, tuple[str, dict[str, Any]]] = {
            "Pod": ("v1", pod(names[0]) | template),
            "Deployment": ("apps/v1", {"spec": {"template": template}}),
            "CronJob": ("batch/v1", {"spec": {"jobTemplate": {"spec": {"template": template}}}}),
            "PodTemplate": ("v1", {"template": template}),
            "Thing": ("x.io/v1", {"spec": {"other" if number % 2 else "template": template}}),
            "ConfigMap": ("v1", {"data": {}}),
        }
        version, body = bodies[kind]
        metadata = {**body.get("metadata", {}), "name": f"o{number}"}
        metadata["namespace"] = chance.choice(["prod-a", "lab"])
        found.append({**body, "apiVersion": version, "kind": kind, "metadata": metadata})
    return found


POLICY = """
[default]
missing = "deny"
[[rule]]
name = "probes"
match = { labels = "app=probe" }
never-pointed = "warn"
[[rule]]
name = "production"
match = { namespaces = ["prod-*"] }
not-pinned = "deny"
moved = "deny"
[[exempt]]
images = ["*/same/app"]
conditions = ["moved"]
reason = "it moves"
until = 2099-01-01
[[workload]]
group = "x.io"
kind = "Thing"
paths = ["spec.template"]
"""


def test_both_decide_the_same(registry: RegistryServer, tmp_path: Path) -> None:
    app, other = f"{registry.host}/same/app", f"{registry.host}/same/other"
    old = registry.push_image("same/app", "1", b"same old")
    new = registry.push_image("same/app", "1", b"same new")
    stray = registry.push_image("same/other", "2", b"same other")
    names = [
        *(f"{app}:1", f"{app}:1@{new}", f"{app}:1@{old}", f"{app}@{new}", f"{other}:2", f"{other}:2@{stray}"),
        *(
            f"{app}:9",
            f"{app}@{Digest.of(b'no')}",
            "nginx",
            "Not A Name",
            f"{app}@{Digest.of(b'x', 'sha512')}",
        ),
    ]
    every = objects(names, 60, seed=15)
    with running_webhook(tmp_path, f'registries = ["{registry.host}"]\n{POLICY}') as webhook:
        said = [webhook.ask(review(one, namespace=one["metadata"]["namespace"])) for one in every]
        manifests = tmp_path / "all.json"
        manifests.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": every}))
        done = run_digestry("admission", "test", manifests, "--policy", webhook.file, "--format", "json")
    tested = json.loads(done.stdout)["objects"]
    assert len(tested) == len(every)
    for one, answer, found in zip(every, said, tested, strict=True):
        about = (one, answer, found)
        if one["kind"] == "ConfigMap":
            assert found["decision"] is None, about
            assert answer["allowed"], about
            continue
        stated = answer.get("auditAnnotations", {})
        assert found["decision"] == stated.get("decision", "allow"), about
        assert (found["decision"] != "deny") == answer["allowed"], about
        conditions = {
            (finding["condition"], finding["action"], image["image"])
            for image in found["images"]
            for finding in image["findings"]
            if finding["action"] != "allow" or finding["exempted"]
        }
        heard = json.loads(stated.get("findings", "[]"))
        assert conditions == {(item["condition"], item["action"], item["image"]) for item in heard}, about
    decisions = {found["decision"] for found in tested}
    assert decisions == {"allow", "warn", "deny", None}
