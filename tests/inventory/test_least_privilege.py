"""The manifest that is shipped for clusters grants what is asked, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

MANIFEST = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base" / "rbac.yaml"
GRANTED = {
    "pods": "list, watch", "deployments, statefulsets, daemonsets": "list", "cronjobs, jobs": "list",
    "nodes": "list", "namespaces": "get",
}  # fmt: skip


def test_it_grants_no_more_than_the_page_says() -> None:
    rules = re.findall(r"resources: \[(.*?)\]\s+verbs: \[(.*?)\]", MANIFEST.read_text())
    assert dict(rules) == GRANTED
    assert len(rules) == MANIFEST.read_text().count("verbs:")
