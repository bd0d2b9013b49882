from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.model.reference import Reference
from tests.client.liar import Liar, lying
from tests.support import free_port, program

CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
{auth}
"""


def start_docker_registry(root: Path, auth: str = "") -> tuple[subprocess.Popen[bytes], str]:
    path = program("docker-registry")
    port = free_port()
    config = root / "config.yml"
    config.write_text(CONFIG.format(root=root / "data", port=port, auth=auth))
    process = subprocess.Popen(
        [path, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 10
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
        except OSError:
            if time.monotonic() > end or process.poll() is not None:
                process.kill()
                pytest.fail("docker-registry did not start")
            time.sleep(0.02)
        else:
            return process, f"127.0.0.1:{port}"


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="session")
def docker_registry() -> Iterator[str]:
    """The host of a real registry that is not ours."""
    root = Path(tempfile.mkdtemp(prefix="digestry-peer-"))
    process, host = start_docker_registry(root)
    yield host
    stop(process)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def liar() -> Iterator[Liar]:
    with lying() as server:
        yield server


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(ClientOptions(timeout=5, retries=2)) as opened:
        yield opened


@pytest.fixture
def hostile(liar: Liar, session: Session) -> Repository:
    """The repository ``team/app`` of the liar."""
    return session.repository(Reference(liar.host, "team/app"))
