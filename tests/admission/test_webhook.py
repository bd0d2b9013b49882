"""The webhook in a process of its own, over TLS, with a real registry behind it."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from digestry.backend import open_backend
from digestry.catalog import clock
from digestry.catalog.journal import Origin
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from tests.admission.support import conditions, pod, review, running_webhook, say
from tests.certificates import make
from tests.support import RegistryServer, run_digestry, running_registry, start_registry, wait_until


def policy_for(registry: RegistryServer, *lines: str) -> str:
    return "\n".join([f'registries = ["{registry.host}"]', *lines, "", ""])


@pytest.mark.long
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


@pytest.mark.long
def test_the_image_that_a_node_gets_is_judged_where_a_minimum_age_serves_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "registry.toml").write_text('[[min-age]]\nage = "7d"\n')
    with running_registry("--config", str(tmp_path / "registry.toml")) as registry:
        long_ago = clock.now() - 30 * 86400 * clock.SECOND
        document = registry.image("app", b"old")
        raw = json.dumps(document).encode()
        old = registry.push_manifest("app", str(Digest.of(raw)), document)
        catalog = open_backend(registry.root, now=lambda: long_ago).open_catalog()
        try:
            catalog.put_manifest(
                "app", Manifest.parse(raw), tag_names=["1.5"], origin=Origin("tester", "127.0.0.1", "pytest")
            )
        finally:
            catalog.close()
        registry.push_image("app", "1.5", b"new")
        name = f"{registry.host}/app"
        line = ("advisory", "add", f"{name}@{old}", "--status", "affected", "--id", "CVE-2026-1505")
        assert run_digestry(*line).returncode == 0
        with running_webhook(tmp_path, policy_for(registry, "[default]", 'affected = "deny"')) as webhook:
            said = webhook.ask(review(pod(f"{name}:1.5")))
            assert not said["allowed"]
            assert "CVE-2026-1505" in said["status"]["message"]


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


@pytest.mark.long
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


@pytest.mark.long
def test_an_advisory_is_obeyed_soon_after_it_was_stated(registry: RegistryServer, tmp_path: Path) -> None:
    digest = registry.push_image("door/bad", "1", b"bad")
    fixed = registry.push_image("door/bad", "2", b"good")
    image = f"{registry.host}/door/bad@{digest}"
    lines = (
        "[answers]",
        'refresh = "200ms"',
        "[[exempt]]",
        'vulnerabilities = ["CVE-2026-7"]',
        'namespaces = ["lab"]',
        'reason = "switched off"',
        "until = 2099-01-01",
    )
    with running_webhook(tmp_path, policy_for(registry, *lines)) as webhook:
        assert webhook.ask(review(pod(image)))["allowed"]
        name = f"{registry.host}/door/bad"
        words = ("advisory", "add", image, "--status", "affected", "--id", "CVE-2026-7")
        done = run_digestry(*words, "--fixed-by", f"{name}@{fixed}")
        assert done.returncode == 0, done.stderr
        wait_until(
            lambda: not webhook.ask(review(pod(image)))["allowed"], what="the advisory", log=webhook.log
        )
        message = webhook.ask(review(pod(image)))["status"]["message"]
        assert f"{digest} is affected by CVE-2026-7" in message
        assert f"run {name}@{fixed}" in message or f"@{fixed}" in message
        assert webhook.ask(review(pod(image), namespace="lab"))["allowed"]
        # What runs already is no reason to stop a change of something else.
        old = pod(image)
        new = pod(image, labels={"a": "b"})
        assert webhook.ask(review(new, old=old))["allowed"]
        assert not webhook.ask(review(pod(image), old=pod(f"{name}@{fixed}")))["allowed"]


@pytest.mark.long
def test_a_registry_that_is_away_is_said_loudly(tmp_path: Path) -> None:
    with running_registry() as own:
        digest = own.push_image("door/away", "1", b"one")
        bad = own.push_image("door/away", "2", b"two")
        name = f"{own.host}/door/away"
        run_digestry("advisory", "add", f"{name}@{bad}", "--status", "affected", "--id", "CVE-2026-8")
        lines = (
            "[default]",
            'away = "warn"',
            "[[rule]]",
            'name = "strict"',
            'match = { namespaces = ["strict"] }',
            'away = "deny"',
            "[answers]",
            'refresh = "200ms"',
            'fresh = "500ms"',
            'wait = "4s"',
        )
        with running_webhook(tmp_path, policy_for(own, *lines)) as webhook:
            assert webhook.ask(review(pod(f"{name}@{digest}")))["allowed"]
            assert not webhook.ask(review(pod(f"{name}@{bad}")))["allowed"]
            own.stop()

            def is_away() -> bool:
                said = webhook.ask(review(pod(f"{name}@{digest}")))
                return "away" in str(said.get("warnings"))

            wait_until(is_away, what="the absence", log=webhook.log)
            assert "does not answer, and the policy for that decides" in webhook.log.read_text()
            assert f'registry_away{{registry="{own.host}"}} 1.0' in webhook.status("/metrics")[1]
            said = webhook.ask(review(pod(f"{name}@{digest}"), namespace="strict"))
            assert not said["allowed"]
            assert "away" in said["status"]["message"]
            # What it said before still counts against an image.
            assert not webhook.ask(review(pod(f"{name}@{bad}")))["allowed"]
            # Nobody waits for a registry that is known to be away.
            assert webhook.decided()[-1]["milliseconds"] < 400
            again = start_registry(own.root, port=own.port)
            try:
                wait_until(lambda: not is_away(), what="the return", log=webhook.log)
                assert "answers again" in webhook.log.read_text()
                assert "registry_away{" not in webhook.status("/metrics")[1]
            finally:
                again.stop()


@pytest.mark.long
def test_audit_mode_allows_everything_and_tells(registry: RegistryServer, tmp_path: Path) -> None:
    registry.push_image("door/audit", "1", b"one")
    policy = policy_for(registry, 'mode = "audit"', "[default]", 'not-pinned = "deny"')
    with running_webhook(tmp_path, policy) as webhook:
        said = webhook.ask(review(pod(f"{registry.host}/door/audit:1")))
        assert said["allowed"]
        assert said["warnings"][0].startswith("would be denied: container c0")
        assert said["auditAnnotations"]["decision"] == "deny"
        assert json.loads(said["auditAnnotations"]["findings"])[0]["condition"] == "not-pinned"
        assert webhook.decided()[-1]["decision"] == "deny"
        assert webhook.decided()[-1]["allowed"] is True


@pytest.mark.long
def test_many_warnings_fit_what_api_servers_pass_on(registry: RegistryServer, tmp_path: Path) -> None:
    images = [f"{registry.host}/door/none{number}/{'x' * 80}:1" for number in range(60)]
    with running_webhook(tmp_path, policy_for(registry)) as webhook:
        warnings = webhook.ask(review(pod(*images)))["warnings"]
        assert all(len(one) <= 256 for one in warnings)
        assert sum(map(len, warnings)) <= 4096
        assert "more: the webhook's log has them all" in warnings[-1]
        assert len(webhook.decided()[-1]["images"]) == 60


@pytest.mark.long
def test_an_annotation_is_whole_json_and_a_warning_has_its_reason(
    registry: RegistryServer, tmp_path: Path
) -> None:
    images = [f"{registry.host}/door/gone{number}/{'x' * 200}@{Digest.of(b'x')}" for number in range(60)]
    missing = f"{registry.host}/door/gone@{Digest.of(b'x', 'sha512')}"
    with running_webhook(tmp_path, policy_for(registry, "[default]", 'missing = "warn"')) as webhook:
        said = webhook.ask(review(pod(*images)))
        found = json.loads(said["auditAnnotations"]["findings"])
        assert len(said["auditAnnotations"]["findings"]) <= 8192
        assert len(found) + int(said["auditAnnotations"]["findings-left-out"]) == 60
        assert found[0]["condition"] == "missing"
        for warning in said["warnings"][:-1]:
            assert ": missing: " in warning
            assert "does not have" in warning
        said = webhook.ask(review(pod(missing)))
        assert conditions(webhook.decided()) == {"missing": "warn"}


@pytest.mark.long
def test_who_pushes_what_was_missing_is_let_in_at_once(registry: RegistryServer, tmp_path: Path) -> None:
    image = f"{registry.host}/door/late:1"
    lines = ("[default]", 'missing = "deny"', "[answers]", 'refresh = "60s"', 'fresh = "120s"')
    with running_webhook(tmp_path, policy_for(registry, *lines)) as webhook:
        assert not webhook.ask(review(pod(image)))["allowed"]
        registry.push_image("door/late", "1", b"late")
        begun = time.monotonic()
        wait_until(lambda: webhook.ask(review(pod(image)))["allowed"], what="the push", log=webhook.log)
        assert time.monotonic() - begun < 30


@pytest.mark.long
def test_what_is_no_review_is_refused(registry: RegistryServer, tmp_path: Path) -> None:
    with running_webhook(tmp_path, policy_for(registry)) as webhook:
        for method, path, body, status in [
            ("POST", "/validate", b"{", 400),
            ("POST", "/validate", b'{"kind": "AdmissionReview"}', 400),
            ("GET", "/validate", None, 405),
            ("GET", "/nothing", None, 404),
            ("GET", "/livez", None, 200),
        ]:
            with contextlib.closing(webhook.connection()) as connection:
                connection.request(method, path, body)
                assert connection.getresponse().status == status, path
        with contextlib.closing(webhook.connection()) as connection:
            connection.request("POST", "/validate", iter([b'{"kind": ', b'"x"}']), encode_chunked=True)
            assert connection.getresponse().status == 400
        wrong: list[dict[str, Any]] = [
            {"object": []},
            {"object": None},
            {"operation": 7},
            {"uid": None},
            {"kind": "Pod"},
            {"dryRun": "no"},
        ]
        for broken in wrong:
            sent = review(pod("r.example/a:1"))
            sent["request"] |= broken
            with contextlib.closing(webhook.connection()) as connection:
                connection.request("POST", "/validate?timeout=%C2%B2s", json.dumps(sent))
                assert connection.getresponse().status == 400, broken
        with contextlib.closing(webhook.connection()) as connection:
            connection.request("POST", "/validate", b"[" * (1 << 20))
            assert connection.getresponse().status == 400
        strange = review(pod("r.example/a:1"))
        strange["request"]["uid"] = '"\n\u2028 \u00e9'
        assert webhook.ask(strange, "?timeout=%C2%B2s")["allowed"]
        unknown = {"apiVersion": "x.io/v1", "kind": "Strange", "metadata": {}, "spec": {}}
        said = webhook.ask(review(unknown))
        assert said["allowed"]
        assert "nothing was looked at" in said["warnings"][0]


@pytest.mark.long
def test_a_tag_is_proven_by_the_registry_s_log(tmp_path: Path) -> None:
    with running_registry() as own:
        digest = own.push_image("door/proven", "1", b"one")
        image = f"{own.host}/door/proven:1"
        wait_until(
            lambda: own.request("GET", "/v2/_digestry/log/checkpoint").status == 200,
            what="the log's checkpoint",
        )
        lines = ("[default]", 'no-proof = "deny"', 'unknown = "deny"', "[answers]", 'wait = "8s"')
        with running_webhook(tmp_path, policy_for(own, *lines)) as webhook:
            said = webhook.ask(review(pod(image)))
            assert said["allowed"], said
            assert webhook.ask(review(pod(f"{image}@{digest}")))["allowed"]
            # A manifest that no tag ever pointed to has no entry in the log.
            other = own.image("door/proven", b"untagged")
            untagged = Digest.of(json.dumps(other).encode())
            own.push_manifest("door/proven", str(untagged), other)
            said = webhook.ask(review(pod(f"{own.host}/door/proven@{untagged}")))
            assert not said["allowed"]
            assert "does not prove it" in said["status"]["message"]


@pytest.mark.long
def test_a_renewed_certificate_is_shown_to_new_connections(registry: RegistryServer, tmp_path: Path) -> None:
    digest = registry.push_image("door/renewed", "1", b"one")
    image = f"{registry.host}/door/renewed@{digest}"
    with (
        running_webhook(tmp_path, policy_for(registry)) as webhook,
        contextlib.closing(webhook.connection()) as open_one,
    ):
        assert say(open_one, review(pod(image)))["allowed"]
        old = webhook.certificates
        new = make(tmp_path / "renewed")
        # The key first: for a moment the two do not belong together, as when they are copied by hand.
        old.server[1].write_bytes(new.server[1].read_bytes())
        wait_until(lambda: "stays as it was" in webhook.log.read_text(), what="the error", log=webhook.log)
        assert webhook.ask(review(pod(image)))["allowed"]
        old.server[0].write_bytes(new.server[0].read_bytes())
        log = webhook.log
        wait_until(lambda: log.read_text().count("get this certificate") == 2, what="the new one", log=log)
        with pytest.raises(ssl.SSLCertVerificationError):
            webhook.ask(review(pod(image)))
        webhook.certificates = new
        assert webhook.ask(review(pod(image)))["allowed"]
        assert say(open_one, review(pod(image)))["allowed"]
