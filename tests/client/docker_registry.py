"""docker's own registry, a real peer of ours."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import PATIENCE, free_port, program

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextlib.contextmanager
def running_docker_registry() -> Iterator[str]:
    """Its ``host:port``, for the block."""
    path = program("docker-registry")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="digestry-peer-") as directory:
        config = Path(directory) / "config.yml"
        config.write_text(_CONFIG.format(root=Path(directory) / "data", port=port))
        process = subprocess.Popen(
            [path, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait(process, port)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
        except OSError:
            if time.monotonic() > end or process.poll() is not None:
                pytest.fail("docker-registry did not start")
            time.sleep(0.02)
        else:
            return
