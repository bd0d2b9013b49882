"""The scanning of what runs: a scanner looks at each image that agents report, the latest first.

Each scan is ``digestry scan`` in a process of its own, with limits: it fetches the image from the registry,
has the scanner look at it, and attaches what that finds, as a person would.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Final

from digestry.advisories.scanners import find_scanner
from digestry.backend import Backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet.scans import RunningImage
from digestry.coordination.protocol import FencedLock, Job
from digestry.errors import Conflict, InvalidConfiguration
from digestry.fleet.own_names import OwnNames
from digestry.model.text import printable
from digestry.registry.config import RegistryConfig

log: Final = logging.getLogger("digestry.registry")

_LOOK_SECONDS: Final = 5.0
_TAKE_OVER_SECONDS: Final = 30.0
_WITHOUT_SECONDS: Final = 3600.0
_POLL_SECONDS: Final = 0.2
_LONGEST_MESSAGE: Final = 1000
_ENDED: Final = frozenset({0, 1})
"""Exit codes of a scan that was made."""


class ScanJob:
    """Scans images that run, one at a time. A job of the maintenance process."""

    name = "scan"

    def __init__(self, config: RegistryConfig, backend: Backend) -> None:
        self._config = config
        self._scan = config.scan
        self._backend = backend
        self._catalog: Catalog | None = None
        self._missing = ""

    def run(self, stop: threading.Event) -> float:
        """Scan what is due; return after how many seconds to look again."""
        try:
            find_scanner(self._scan.scanner)
        except InvalidConfiguration as error:
            if error.message != self._missing:
                log.warning("what runs is not scanned: %s", error.message)
            self._missing = error.message
            return _WITHOUT_SECONDS
        if self._catalog is None:
            self._catalog = self._backend.open_catalog()
        try:
            with self._backend.coordination.only_one(Job.SCANNING) as lock:
                return self._scan_due(self._catalog, lock, stop)
        except Conflict:
            return _TAKE_OVER_SECONDS

    def _scan_due(self, catalog: Catalog, lock: FencedLock, stop: threading.Event) -> float:
        while not stop.is_set():
            lock.check()
            running = catalog.fleet_scans.running()
            known = catalog.fleet_scans.times()
            now = self._backend.now()
            every = int((self._scan.every or 0) * clock.SECOND)
            due = [image for image in running if known.get(image.digest, 0) + every <= now]
            if not due:
                return _LOOK_SECONDS
            # One that was never scanned comes first, the latest of them before others.
            image = next((one for one in due if one.digest not in known), due[0])
            self._scan_image(image, stop)
            if stop.is_set():
                break  # it was broken off
            still = {one.digest for one in running}
            times = {digest: at for digest, at in known.items() if digest in still}
            catalog.fleet_scans.store({**times, image.digest: now}, now, lock)
        return _LOOK_SECONDS

    def _scan_image(self, image: RunningImage, stop: threading.Event) -> None:
        """Scan one image; a failure is logged, and tried again when the image is due again."""
        where = self._scan.registry or OwnNames(self._config).address
        name = f"{where}/{image.repository}@{image.digest}"
        command = [sys.executable, "-m", "digestry", "scan", name]
        if self._scan.scanner:
            command += ["--scanner", self._scan.scanner]
        if self._scan.severity:
            command += ["--severity", self._scan.severity]
        environment = dict(os.environ)
        if self._scan.docker_config is not None:
            environment["DOCKER_CONFIG"] = str(self._scan.docker_config)
        environment["DIGESTRY_HOME"] = str(self._config.scratch / "scans")
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        limit = self._scan.memory
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # What the process starts inherits it. Address space is no measure: scanners reserve much.
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (limit, limit))
        said = _Tail(process)
        while process.poll() is None:
            late = time.monotonic() - began > self._scan.timeout
            if late or stop.wait(_POLL_SECONDS):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if late:
                    log.error("the scan of %s did not end within %.0f s", name, self._scan.timeout)
                return
        if process.returncode not in _ENDED:
            log.error("the scan of %s failed: %s", name, said.text())


class _Tail:
    """The end of what a process says on standard error, read by a thread so that it never waits."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._content = b""
        self._process = process
        self._thread = threading.Thread(target=self._read, name="scan's messages", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - a pipe
        with self._process.stderr as stream:
            while some := os.read(stream.fileno(), 1 << 14):
                self._content = (self._content + some)[-_LONGEST_MESSAGE:]

    def text(self) -> str:
        """Return it as one line."""
        self._thread.join(1.0)
        lines = self._content.decode(errors="replace").strip().splitlines()
        return printable("; ".join(line.strip() for line in lines)) or "it said nothing"
