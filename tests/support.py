"""Parts that many tests use: real peers, real servers, and small images made on the spot."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests import forked_process
from tests.forked_process import ForkedProcess, forkable

REQUIRED = os.environ.get("DIGESTRY_REQUIRE_PEERS") == "1"

PATIENCE = 120.0
"""Seconds after which what a test waits for will not come. Only what hangs is to be caught by it: a
machine may be slow, and busy with other tests."""


def lacking(peer: str, why: str) -> NoReturn:
    """Ends a test that needs a peer which is not here: a skip, or a failure where peers are required."""
    message = f"needs {peer}: {why}"
    if REQUIRED:
        pytest.fail(f"{message} (DIGESTRY_REQUIRE_PEERS=1)", pytrace=False)
    pytest.skip(message)


def program(name: str) -> str:
    """The path of a real program, or the end of the test."""
    return shutil.which(name) or lacking(name, "no such program on the PATH")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def open_directory(prefix: str) -> Iterator[Path]:
    """A temporary directory that every user can reach: pytest's own are closed, and TMPDIR may be, too."""
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    reached = (
        place for place in places if all(one.stat().st_mode & 0o001 for one in (place, *place.parents))
    )
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=next(reached, None), ignore_cleanup_errors=True
    ) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def _is_open(path: Path) -> bool:
    return all(one.stat().st_mode & 0o001 for one in (path, *path.parents))


def wait_until(condition: Any, *, what: str, log: Path | None = None) -> None:
    """Polls ``condition`` until it is true; fails the test if it stays false, and shows ``log``'s end."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            shown = "" if log is None else f"\n{log.read_text()[-4096:]}"
            pytest.fail(f"{what} did not happen within {PATIENCE:.0f} s{shown}")
        time.sleep(0.02)


def wait_for_line(log: Path, text: str) -> None:
    """Until a server's ``log`` has ``text``."""
    wait_until(lambda: text in log.read_text(), what=f"{text!r} in the log", log=log)


@dataclass
class Response:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The first error's code."""
        return str(self.json()["errors"][0]["code"])


@dataclass
class RegistryServer:
    """A running registry. ``host`` is ``127.0.0.1:PORT``."""

    host: str
    process: ForkedProcess | subprocess.Popen[bytes]
    root: Path
    log: Path = field(default_factory=Path)

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def push_blob(self, name: str, content: bytes, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(content, algorithm)
        answer = self.request("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", content)
        assert answer.status == 201, answer.body
        return digest

    def push_manifest(
        self, name: str, target: str, manifest: Mapping[str, Any] | bytes, media_type: str | None = None
    ) -> Digest:
        raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        kind = media_type or str(json.loads(raw).get("mediaType", media_types.OCI_MANIFEST))
        answer = self.request("PUT", f"/v2/{name}/manifests/{target}", raw, {"Content-Type": kind})
        assert answer.status == 201, answer.body
        return Digest.parse(answer.headers["docker-content-digest"])

    def push_image(self, name: str, target: str, layer: bytes = b"layer", **extra: Any) -> Digest:
        """Pushes a small image whose layer is ``layer``; returns its manifest's digest."""
        return self.push_manifest(name, target, self.image(name, layer, **extra))

    def image(self, name: str, layer: bytes = b"layer", **extra: Any) -> dict[str, Any]:
        """Pushes the blobs of a small image; returns its manifest, not pushed."""
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
            }
        ).encode()
        return {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": descriptor(media_types.OCI_CONFIG, self.push_blob(name, config), len(config)),
            "layers": [descriptor(media_types.OCI_LAYER, self.push_blob(name, layer), len(layer))],
            **extra,
        }

    def processes(self) -> list[int]:
        """The server's process and its workers, as far as they run."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            process = int(entry.name)
            with contextlib.suppress(OSError):  # it ended meanwhile
                if os.getpgid(process) == self.process.pid and not spawned(process):
                    found += [process] if (entry / "cmdline").read_bytes() else []  # else it has ended
        return found

    def kill(self) -> None:
        """SIGKILL to the server and all its worker processes, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, as an operator would; returns the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def spawned(process: int) -> bool:
    """Whether multiprocessing spawned it, as a server does with the process for its own work."""
    entry = Path(f"/proc/{process}")
    return "multiprocessing" in (entry / "comm").read_text() + (entry / "cmdline").read_text()


def descriptor(media_type: str, digest: Digest, size: int, **extra: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size, **extra}


def digestry(*arguments: str | Path) -> list[str]:
    """The command line of digestry's own program, as installed beside this interpreter."""
    return [str(Path(sys.executable).with_name("digestry")), *map(str, arguments)]


def run_digestry(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    given: str = "",
    timeout: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, as :func:`subprocess.run` does; ``given`` is its standard input.

    Raises :class:`subprocess.TimeoutExpired` after ``timeout`` seconds.
    """
    line = digestry(*arguments)
    if forkable(env):
        return forked_process.run(line, env=env, given=given, timeout=timeout)
    return subprocess.run(
        line, env=env, input=given, capture_output=True, text=True, timeout=timeout, check=False
    )


def start_digestry(*arguments: str | Path, **options: Any) -> ForkedProcess:
    """Starts a command, with the options of :class:`ForkedProcess`."""
    return ForkedProcess(digestry(*arguments), **options)


def _one_worker(root: Path, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Options for one worker, whose memory and counters a test can look at, unless it says how many."""
    files = [root / "registry.toml"]
    if "--config" in arguments:
        files.append(Path(arguments[arguments.index("--config") + 1]))
    said = any(file.is_file() and "workers =" in file.read_text() for file in files)
    return () if said or "--workers" in arguments else ("--workers", "1")


def start_registry(root: Path, *arguments: str, port: int = 0) -> RegistryServer:
    """Starts ``digestry serve`` in a process group of its own and waits for its URL."""
    log = root.with_name(root.name + ".log")
    with log.open("ab") as errors:
        given = (*arguments, *_one_worker(root, arguments))
        line = digestry("serve", "--root", root, "--listen", f"127.0.0.1:{port}", *given)
        process = ForkedProcess(line, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
    assert process.stdout is not None
    url = process.stdout.readline().decode().strip()
    process.stdout.close()
    if not url.startswith(("http://", "https://")):
        process.wait(timeout=PATIENCE)
        pytest.fail(f"the registry did not start: {log.read_text()}")
    return RegistryServer(url.partition("://")[2], process, root, log)


@contextlib.contextmanager
def running_registry(*arguments: str) -> Iterator[RegistryServer]:
    """A registry with an empty root, stopped at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="digestry-test-") as directory:
        server = start_registry(Path(directory) / "root", *arguments)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.stop()
