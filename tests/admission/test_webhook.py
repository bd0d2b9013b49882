"""The webhook in a process of its own, over TLS, with a real registry behind it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from tests.admission.support import conditions, pod, review, running_webhook, say
from tests.support import RegistryServer, run_digestry, wait_until


def policy_for(registry: RegistryServer, *lines: str) -> str:
    return "\n".join([f'registries = ["{registry.host}"]', *lines, "", ""])


def test_a_review_is_answered_over_tls(registry: RegistryServer, tmp_path: Path) -> None:
    first = registry.push_image("door/app", "1.5", b"first")
    registry.push_image("door/app", "1.5", b"second")
    other = registry.push_image("door/app", "2", b"other")
    app = f"{registry.host}/door/app"
    policy = policy_for(registry, "[default]", 'moved = "deny"', 'not-pinned = "warn"')
    with running_webhook(tmp_path, policy) as webhook:
        with contextlib.closing(webhook.connection()) as connection:
            said = say(connection, review(pod(f"{app}:1.5")))
            assert not said["allowed"]
            assert said["status"]["code"] == 403
            assert "c0" in said["status"]["message"]
            assert "moved" in said["status"]["message"]
            assert "has no digest" in said["warnings"][0]
            assert conditions(webhook.decided()) == {
                "moved": "deny",
                "not-pinned": "warn",
                "not-assessed": "allow",
            }
            said = say(connection, review(pod(f"{app}:1.5@{other}")))
            assert not said["allowed"]
            assert "never pointed" in said["status"]["message"]
            said = say(connection, review(pod(f"{app}@{first}")))
            assert said["allowed"]
            assert "warnings" not in said
            said = say(connection, review(pod(f"{app}:1.5"), operation="DELETE"))
            assert said["allowed"]
        said = webhook.ask(review(pod("elsewhere.example.com/app:1")))
        assert said["allowed"]
        assert any("not one of the registries" in one for one in said["warnings"])
        metrics = webhook.status("/metrics")[1]
        assert 'digestry_admission_decisions_total{decision="deny"' in metrics
    assert "every request was answered" in webhook.log.read_text()


def test_manifests_are_tested_by_the_same_policy(registry: RegistryServer, tmp_path: Path) -> None:
    registry.push_image("door/ci", "1", b"one")
    (tmp_path / "admission.toml").write_text(policy_for(registry, "[default]", 'not-pinned = "deny"'))
    manifest = tmp_path / "deployment.yaml"
    manifest.write_text(
        f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  template:
    spec:
      initContainers: [{{name: first, image: "{registry.host}/door/ci:1"}}]
      containers: [{{name: web, image: "{registry.host}/door/ci:1"}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
"""
    )
    words = ("admission", "test", manifest, "--policy", tmp_path / "admission.toml")
    done = run_digestry(*words)
    assert done.returncode == 1, done.stderr
    assert "not-pinned" in done.stdout
    assert "init container first, container web" in done.stdout
    assert "1 object with images: 1 denied" in done.stdout
    assert "1 object of kinds without pod templates" in done.stderr
    done = run_digestry(*words, "--format", "json")
    document = json.loads(done.stdout)
    assert document["objects"][0]["decision"] == "deny"
    assert document["objects"][1]["decision"] is None


def test_a_wrong_policy_is_not_used_and_said_loudly(registry: RegistryServer, tmp_path: Path) -> None:
    registry.push_image("door/reload", "1", b"one")
    image = f"{registry.host}/door/reload:1"
    with running_webhook(tmp_path, policy_for(registry, "[default]", 'not-pinned = "deny"')) as webhook:
        text = webhook.file.read_text()
        assert not webhook.ask(review(pod(image)))["allowed"]
        webhook.file.write_text(text.replace('not-pinned = "deny"', 'not-pined = "warn"'))
        webhook.reload()
        wait_until(lambda: "STAYS IN FORCE" in webhook.log.read_text(), what="the error", log=webhook.log)
        assert "line 3: unknown key 'not-pined'" in webhook.log.read_text().replace('"', "'")
        assert not webhook.ask(review(pod(image)))["allowed"]
        assert "digestry_admission_policy_current 0.0" in webhook.status("/metrics")[1]
        webhook.file.write_text(text.replace('not-pinned = "deny"', 'not-pinned = "warn"'))
        wait_until(lambda: webhook.ask(review(pod(image)))["allowed"], what="the new policy", log=webhook.log)
        assert "digestry_admission_policy_current 1.0" in webhook.status("/metrics")[1]
