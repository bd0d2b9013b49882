"""When the process of a task began, by what the kernel says of it."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Final

_HOSTS_PROCESSES: Final = "pid:[4026531836]"
"""The namespace of processes that a machine starts with, always of this number."""


def began_at(container: str, process: int, *, processes: Path = Path("/proc")) -> datetime.datetime | None:
    """Return when the process of a container began, or None if that cannot be seen from here.

    An engine may number its processes in another namespace than ours, where the same number is another
    process. So the process counts only if its control group is named after the container.
    """
    directory = processes / str(process)
    try:
        if str((processes / "self/ns/pid").readlink()) != _HOSTS_PROCESSES:
            return None
        groups = (directory / "cgroup").read_text(errors="replace")
        if not any(_names(line.rpartition(":")[2], container) for line in groups.splitlines()):
            return None
        fields = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return datetime.datetime.fromtimestamp(booted + since_boot, datetime.UTC)


def _names(group: str, container: str) -> bool:
    """Tell whether a control group is a container's: ``/NAMESPACE/ID``, ``…-ID.scope``, ``…:ID``."""
    return any(
        part == container or part.removesuffix(".scope").endswith((f"-{container}", f":{container}"))
        for part in group.split("/")
    )
