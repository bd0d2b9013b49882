"""A real S3 server, SeaweedFS, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digestry.blobs.s3.config import S3Config
from digestry.blobs.s3.credentials import Credentials, FixedCredentials
from digestry.blobs.s3.transport import Request, Transport
from tests.peers.wheels import place
from tests.support import PATIENCE, free_port, lacking

ACCESS_KEY = "digestry-tests"
SECRET_KEY = "not-a-secret-of-anybody"
_ATTEMPTS = 5


def credentials() -> Credentials:
    """The server's only access key."""
    return Credentials(ACCESS_KEY, SECRET_KEY)


def environment(endpoint: str) -> dict[str, str]:
    """What a program needs to use the server."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": endpoint,
    }


@dataclass
class S3Server:
    """A server that runs, with one bucket: each takes room for its files."""

    endpoint: str
    command: list[str]
    directory: Path
    process: subprocess.Popen[bytes]
    bucket: str = "digestry-tests"

    def config(self, **settings: Any) -> S3Config:
        """Return the configuration of a store in a folder of its own."""
        prefix = f"tests/{os.urandom(8).hex()}"
        return S3Config(self.bucket, prefix, endpoint=self.endpoint, **{"settle": 0.0, **settings})

    def kill(self) -> None:
        """SIGKILL to the server, which keeps its files."""
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start the server again, on its ports and files, and wait until it takes objects."""
        log = self.directory / "log"
        self.process = _run(self.command, self.directory, log)
        _wait(self.endpoint, self.process, log)


def make_bucket(endpoint: str, name: str) -> None:
    """Make a bucket."""
    config = S3Config(name, endpoint=endpoint, patience=60)
    Transport(config, FixedCredentials(credentials())).send(Request("make", "PUT", "", {}, {}))


@contextlib.contextmanager
def running_server() -> Iterator[S3Server]:
    """A server of its own on loopback, with its files in a folder that is removed; skips if there is none."""
    weed = place("weed")
    if not weed.exists():
        lacking("weed", "it was not installed: run tests/peers/wheels.py")
    with tempfile.TemporaryDirectory(prefix="digestry-weed-") as folder:
        root = Path(folder)
        key = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = {"identities": [{"name": "tests", "credentials": [key], "actions": actions}]}
        (root / "s3.json").write_text(json.dumps(identities))
        server = _start(weed, root)
        try:
            make_bucket(server.endpoint, server.bucket)
            yield server
        finally:
            server.kill()  # what it has is thrown away


def _start(weed: Path, root: Path) -> S3Server:
    """Start the server, again if another program took one of its ports meanwhile."""
    for attempt in range(_ATTEMPTS):
        data, log = root / f"data{attempt}", root / f"log{attempt}"
        data.mkdir()
        endpoint = f"http://127.0.0.1:{free_port()}"
        command = _command(weed, root, data, endpoint)
        process = _run(command, root, log)
        try:
            _wait(endpoint, process, log)
        except BaseException:
            taken = process.poll() is not None and "address already in use" in log.read_text()
            process.kill()
            process.wait()
            if not taken or attempt == _ATTEMPTS - 1:
                raise
        else:
            break
    return S3Server(endpoint, command, root, process)


def _run(command: list[str], directory: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=directory, stdout=file, stderr=file, stdin=subprocess.DEVNULL)


def _command(weed: Path, root: Path, data: Path, endpoint: str) -> list[str]:
    ports = {
        f"{name}.port{kind}": free_port() for name in ("master", "volume", "filer") for kind in ("", ".grpc")
    }
    ports["s3.port"] = int(endpoint.rpartition(":")[2])
    ports.update({"s3.port.grpc": free_port(), "s3.port.iceberg": 0, "s3.port.lance": 0})
    return [
        str(weed),
        f"-logdir={root}",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        f"-s3.config={root / 's3.json'}",
        "-iam=false",
        "-master.volumeSizeLimitMB=128",
        "-volume.max=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]


def _wait(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server takes objects."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(endpoint, timeout=2):  # noqa: S310 - loopback
                pass
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 403:  # it asks for credentials
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the S3 server did not start\n{log.read_text()[-4096:]}")
