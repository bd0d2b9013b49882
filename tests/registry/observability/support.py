"""Reading what a registry tells of itself."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support import RegistryServer, start_registry

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@contextlib.contextmanager
def configured(configuration: str, *arguments: str) -> Iterator[RegistryServer]:
    """A registry with this ``registry.toml``, which is beside its root."""
    with tempfile.TemporaryDirectory(prefix="digestry-test-") as name:
        file = Path(name) / "registry.toml"
        file.write_text(configuration)
        server = start_registry(Path(name) / "root", "--config", str(file), *arguments)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.stop()


class Metrics:
    """One scrape."""

    def __init__(self, server: RegistryServer, headers: Mapping[str, str] | None = None) -> None:
        answer = server.request("GET", "/metrics", headers=headers)
        assert answer.status == 200, answer.body
        self.text = answer.body.decode()
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}

    def sum(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels; 0 if there are none."""
        return sum(
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def has(self, name: str) -> bool:
        return any(sample.name == name for family in self.families.values() for sample in family.samples)


def lines(file: Path) -> list[dict[str, Any]]:
    """A file of JSON lines: each must be one."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def logged(server: RegistryServer) -> list[dict[str, Any]]:
    """What a registry with ``format = "json"`` wrote to standard error."""
    return lines(server.log)


def audited(server: RegistryServer) -> list[dict[str, Any]]:
    """The audit log below the root, with what was refused to who has not logged in, by time."""
    found = lines(server.root / "audit.log") + lines(server.root / "audit-refused.log")
    return sorted(found, key=lambda entry: str(entry["time"]))
