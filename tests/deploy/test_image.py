"""The health check of the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import RegistryServer, free_port

HEALTH_CHECK = Path(__file__).parents[2] / "deploy" / "image" / "healthcheck.py"


def health(address: str) -> int:
    return subprocess.run([sys.executable, str(HEALTH_CHECK), address], check=False).returncode


def test_the_health_check_asks_a_registry(registry: RegistryServer) -> None:
    assert health(registry.host) == 0
    assert health(f"127.0.0.1:{free_port()}") == 1
