"""What the tests of admission have in common: reviews, a running webhook, and a client of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.certificates import Certificates, make
from tests.forked_process import ForkedProcess
from tests.support import PATIENCE, free_port, start_digestry, wait_until


def pod_spec(*images: str, **more: Any) -> dict[str, Any]:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    return {"containers": containers, **more}


def review(
    content: Mapping[str, Any],
    *,
    old: Mapping[str, Any] | None = None,
    operation: str = "",
    namespace: str = "default",
    **more: Any,
) -> dict[str, Any]:
    """An AdmissionReview of an object, as an API server sends it."""
    group, slash, version = content["apiVersion"].partition("/")
    request = {
        "uid": str(uuid.uuid4()),
        "kind": {"group": group if slash else "", "version": version or group, "kind": content["kind"]},
        "operation": operation or ("CREATE" if old is None else "UPDATE"),
        "name": content.get("metadata", {}).get("name", ""),
        "namespace": namespace,
        "userInfo": {"username": "somebody"},
        "object": content,
        "oldObject": old,
        "dryRun": False,
        **more,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def pod(
    *images: str, name: str = "p", labels: Mapping[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": pod_spec(*images, **spec),
    }


@dataclass
class RunningWebhook:
    """A webhook in a process of its own."""

    process: ForkedProcess
    port: int
    metrics_port: int
    certificates: Certificates
    decisions: Path
    log: Path
    file: Path

    def connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.certificates.authority))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=context)

    def ask(self, body: Mapping[str, Any], query: str = "?timeout=10s") -> dict[str, Any]:
        """The response to a review."""
        with contextlib.closing(self.connection()) as connection:
            return say(connection, body, query)

    def status(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def decided(self) -> list[dict[str, Any]]:
        """The log of decisions."""
        return [json.loads(line) for line in self.decisions.read_text().splitlines()]

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


def say(connection: http.client.HTTPConnection, body: Mapping[str, Any], query: str = "") -> dict[str, Any]:
    connection.request("POST", f"/validate{query}", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, (answer.status, content)
    said = json.loads(content)
    assert said["kind"] == "AdmissionReview"
    assert said["response"]["uid"] == body["request"]["uid"]
    assert "patch" not in said["response"]
    return dict(said["response"])


@contextlib.contextmanager
def running_webhook(directory: Path, policy: str, **settings: str) -> Iterator[RunningWebhook]:
    """A webhook with the lines ``policy`` before its own tables, ended at the end of the block."""
    certificates = make(directory / "certificates")
    port, metrics = free_port(), free_port()
    file = directory / "admission.toml"
    certificate, key = certificates.server
    tail = f"""
[server]
listen = "127.0.0.1:{port}"
metrics = "127.0.0.1:{metrics}"
drain = "{settings.get("drain", "1s")}"

[certificate]
certificate = "{certificate}"
key = "{key}"
"""
    file.write_text(policy + tail)
    decisions, log = directory / "decisions.jsonl", directory / "webhook.log"
    with Path(settings.get("output", decisions)).open("wb") as output, log.open("wb") as errors:
        process = start_digestry("admission", "serve", "--config", file, stdout=output, stderr=errors)
    webhook = RunningWebhook(process, port, metrics, certificates, decisions, log, file)
    try:
        wait_until(lambda: _is_ready(webhook), what="the webhook", log=log)
        yield webhook
    finally:
        process.terminate()
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(webhook: RunningWebhook) -> bool:
    assert webhook.process.poll() is None, webhook.log.read_text()
    try:
        return webhook.status("/readyz")[0] == 200
    except OSError:
        return False


def conditions(decisions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The conditions in the last decision of the log, with their actions."""
    return {one["condition"]: one["action"] for one in decisions[-1]["findings"]}
