"""Agents as processes that can be killed, also with a clock that is off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import PATIENCE, lacking

_LIBRARIES = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime")


def clock_ahead(seconds: int) -> dict[str, str]:
    """Return the environment of a program whose clock is so many seconds ahead, or the end of the test."""
    libraries = (Path(directory, "libfaketimeMT.so.1") for directory in _LIBRARIES)
    library = next((path for path in libraries if path.exists()), None)
    if library is None:
        lacking("faketime", "its library is not installed")
    # The time since the machine started is nobody's to set.
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{seconds:+d}s",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@dataclass
class AgentProcess:
    """``digestry agent`` with a state directory of its own, in ``directory``."""

    directory: Path
    registry: str
    place: str
    source: str
    interval: int = 2
    environment: dict[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        token = self.directory / "token"
        token.write_text("dgr_campaign\n")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "digestry", "agent", "--registry", f"http://{self.registry}",
                    "--token-file", str(token), "--state-dir", str(self.directory / "state"),
                    "--source", self.source, "--place", self.place, "--interval", str(self.interval),
                    *self.more,
                ],
                env={**os.environ, "DIGESTRY_HOME": str(self.directory / "home"), **self.environment},
                stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.kills += 1

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
