"""Metrics of a process's use of its machine: processor time, memory, open files."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from digestry.registry.observability.counters import CPU, ProcessMetrics

MEMORY: Final = "process_resident_memory_bytes"
FILES: Final = "process_open_fds"
PROCESSES: Final = "digestry_processes"

_STATM: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = Path("/proc/self/fd")


class ProcessMeter:
    """Measures this process, as one of ``kind``."""

    def __init__(self, metrics: ProcessMetrics, kind: str) -> None:
        self._measures = metrics
        self._kind = kind

    def read(self) -> None:
        """Record the present values."""
        self._measures.counter(CPU).reached(time.process_time(), self._kind)
        self._measures.gauge(PROCESSES, 1, self._kind)
        with contextlib.suppress(OSError, ValueError):  # where there is no /proc
            pages = int(_STATM.read_text().split()[1])
            self._measures.gauge(MEMORY, pages * os.sysconf("SC_PAGE_SIZE"), self._kind)
            self._measures.gauge(FILES, sum(1 for _ in _DESCRIPTORS.iterdir()), self._kind)
