"""A temporary machine on which a page's commands are played, with servers that listen on loopback."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.docs.commands import Command
from tests.docs.outputs import Bindings
from tests.support import PATIENCE, free_port

_SERVE = re.compile(r"^digestry serve\b")
_LONGEST = 300

# Hosts and absolute paths of the pages; on the stage they are below the temporary directory, and on loopback.
_HOSTS = re.compile(
    r"\b(?:registry\.example\.com(?::5000)?|localhost:5000|127\.0\.0\.1:5000|0\.0\.0\.0:5000)"
)
_PATHS = re.compile(r"(?<![\w.])/(?:etc|var/lib|run|srv)/(?:digestry|backups?)\b")


class Stage:
    """A directory, a shell in it, and the servers that the page's commands start."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.port = free_port()
        self.bindings = Bindings()
        self._servers: list[subprocess.Popen[bytes]] = []
        home = directory / "home"
        home.mkdir()
        # skopeo refuses to work without a policy.
        policy = home / ".config/containers/policy.json"
        policy.parent.mkdir(parents=True)
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("DIGESTRY_", "XDG_", "DOCKER_", "CONTAINER"))
            and key != "REGISTRY_AUTH_FILE"
        }
        self._environment = {
            **kept,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "NO_COLOR": "1",
            "COLUMNS": "100",
            **environment,
        }
        for name in ("page", "etc", "var/lib", "run", "srv"):
            (directory / name).mkdir(parents=True)
        self.page = directory / "page"
        self._output = directory / "output"
        ended, self._tell = os.pipe()
        self._ended = os.fdopen(ended)
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            cwd=self.page,
            env=self._environment,
            pass_fds=[self._tell],
            start_new_session=True,
            text=True,
        )

    def close(self) -> None:
        """Stop the shell, and the servers, by their own process ids."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._shell.wait(timeout=1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
        self._stop_servers()
        self._ended.close()
        os.close(self._tell)

    def here(self, text: str) -> str:
        """Return ``text`` of the page with this stage's address, paths and names."""
        text = _HOSTS.sub(lambda found: self._address(found[0]), text)
        text = _PATHS.sub(lambda found: f"{self.directory}{found[0]}", text)
        return text.replace("root@vm", f"{getpass.getuser()}@{platform.node()}")

    def _address(self, shown: str) -> str:
        host = shown.partition(":")[0]
        return f"{'127.0.0.1' if host[0].isdigit() else 'localhost'}:{self.port}"

    def write(self, path: str, text: str) -> None:
        """Make a file that the page shows."""
        target = self.page / self.here(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.here(text) + "\n")

    def play(self, command: Command) -> None:
        """Run a command of the page; fail the test if its end or its output is not what the page says."""
        text = self.bindings.command(self.here(command.text))
        if _SERVE.match(text):
            status, printed = 0, self._serve(text)
        else:
            status, printed = self._run(text)
        if command.status is not None and status != command.status:
            pytest.fail(f"{command.where}: {text}\nended with exit code {status}\n{printed}", pytrace=False)
        if command.shown is not None:
            difference = self.bindings.compare(self.here(command.shown), printed)
            if difference is not None:
                pytest.fail(f"{command.where}: {text}\nprints something else\n{difference}", pytrace=False)

    def _run(self, text: str) -> tuple[int, str]:
        assert self._shell.stdin is not None
        # The status of one command is there for the next one, which may be `echo $?`.
        self._shell.stdin.write(
            f"{{\n{text}\n}} >{shlex.quote(str(self._output))} 2>&1 </dev/null\n"
            f"__status=$?; echo $__status >&{self._tell}; (exit $__status)\n"
        )
        self._shell.stdin.flush()
        with _alarm(_LONGEST, text):
            status = self._ended.readline()
        if not status:
            pytest.fail(f"the shell ended at: {text}", pytrace=False)
        return int(status), self._output.read_text(errors="replace")

    def _serve(self, text: str) -> str:
        """Start a server as the page does, in place of the one before; return its URL when it is ready."""
        self._stop_servers()
        log = self.directory / "server.log"
        command = text.rstrip().removesuffix("&")
        with log.open("ab") as errors:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.page,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self._servers.append(server)
        assert server.stdout is not None
        url = server.stdout.readline().decode()
        if not url:
            pytest.fail(
                f"{command}: the server did not start\n{log.read_text(errors='replace')}", pytrace=False
            )
        return url

    def _stop_servers(self) -> None:
        while self._servers:
            server = self._servers.pop()
            server.terminate()
            try:
                server.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
            if server.stdout is not None:
                server.stdout.close()


@contextlib.contextmanager
def _alarm(seconds: int, text: str) -> Iterator[None]:
    def late(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"after {seconds} s this has not ended: {text}")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
