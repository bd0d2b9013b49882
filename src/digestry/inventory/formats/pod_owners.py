"""The workload that a pod belongs to, by its own metadata."""

from __future__ import annotations

import re
from typing import Final

from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_OF_CRON_JOB: Final = re.compile(r"(.+)-[0-9]{8,10}", re.ASCII)
"""A job of a cron job is called after it and the minute that it was scheduled for."""


def workload_of(metadata: JsonObject) -> str:
    """Return the workload of a pod as ``kind/name``: its deployment, its cron job, or what controls it.

    Empty for a pod that nothing controls.
    """
    for reference in map(as_object, as_list(metadata.get("ownerReferences"))):
        kind, name = as_text(reference.get("kind")), as_text(reference.get("name"))
        if reference.get("controller") is False or not kind or not name:
            continue
        if kind == "ReplicaSet":
            labels = as_object(metadata.get("labels"))
            revision = f"-{as_text(labels.get('pod-template-hash'))}"
            if len(revision) > 1 and name.endswith(revision):
                return f"deployment/{name.removesuffix(revision)}"
        if kind == "Job" and (match := _OF_CRON_JOB.fullmatch(name)) is not None:
            return f"cronjob/{match[1]}"
        return f"{kind.lower()}/{name}"
    return ""
