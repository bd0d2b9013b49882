"""A command of digestry that runs in a process of its own, forked by the fork server."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final, Self

from tests.spare_processes import MESSAGE_BYTES, umask

_TOP: Final = Path(__file__).parents[1]
_UTF8: Final = {"", "C", "POSIX", "C.UTF-8", "C.utf8"}
"""Locales in which the interpreter takes UTF-8."""
_STORES: Final = ("DIGESTRY_TEST_", "DIGESTRY_TESTS_")
"""Variables that say which stores the fork server's commands use."""
_LIKE_ANY: Final = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
"""Variables of the interpreter that a forked process honours, or that make no difference to it."""


def forkable(env: Mapping[str, str] | None) -> bool:
    """Whether a forked process is one that an interpreter of its own, with this environment, would be."""
    asked = os.environ if env is None else env
    locale = asked.get("LC_ALL") or asked.get("LC_CTYPE") or asked.get("LANG") or ""
    own = {key for key in asked if key.startswith(("PYTHON", "LD_", "MALLOC_"))} - _LIKE_ANY
    return locale in _UTF8 and all(asked[key] == os.environ.get(key) for key in own)


class ForkedProcess:
    """A command that runs: the part of :class:`subprocess.Popen` that the tests need, for bytes.

    A stream that is not given is this process's own; standard input is then empty.
    """

    def __init__(
        self,
        line: list[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: IO[Any] | int | None = None,
        stdout: IO[Any] | int | None = None,
        stderr: IO[Any] | int | None = None,
        start_new_session: bool = False,
    ) -> None:
        self.args = line
        self.returncode: int | None = None
        request = {
            "arguments": line,
            "environment": dict(os.environ if env is None else env),
            "directory": str(Path.cwd()),
            "umask": umask(),
            "session": start_new_session,
        }
        self._told, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._waiting = threading.Lock()
        raw = json.dumps(request).encode()
        assert len(raw) < MESSAGE_BYTES
        with contextlib.ExitStack() as theirs:
            theirs.enter_context(other)
            nothing = theirs.enter_context(Path(os.devnull).open("rb"))
            self.stdout, out = _output(stdout, 1, theirs)
            self.stderr, err = _output(stderr, 2, theirs)
            streams = [_number(nothing if stdin is None else stdin), out, err]
            socket.send_fds(_fork_server(), [raw], [other.fileno(), *streams])
        self.pid = self._tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        self.wait()

    def _tell(self) -> int:
        said = self._told.recv(64)
        assert said, "the fork server ended"
        return int(said)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end; returns the exit code. Raises :class:`subprocess.TimeoutExpired`."""
        with self._waiting:
            if self.returncode is None:
                if not _comes(self._told, timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
                self.returncode = self._tell()
                self._told.close()
            return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Reads the pipes to their ends and waits; returns what came out of them.

        Raises :class:`subprocess.TimeoutExpired` after ``timeout`` seconds, and kills the command then.
        """
        with ThreadPoolExecutor(2) as threads:
            read = [threads.submit(_read_all, pipe) for pipe in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                self.wait()
                raise
            return read[0].result(), read[1].result()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    line: list[str], *, env: Mapping[str, str] | None, given: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, its standard streams pipes; ``given`` is its standard input.

    Raises :class:`subprocess.TimeoutExpired` after ``timeout`` seconds.
    """
    reading, writing = os.pipe()
    pipe = subprocess.PIPE
    with ForkedProcess(line, env=env, stdin=reading, stdout=pipe, stderr=pipe) as process:
        os.close(reading)
        writer = threading.Thread(target=_write, args=(writing, given))
        writer.start()
        stdout, stderr = (_text(content) for content in process.communicate(timeout))
        writer.join()
        return subprocess.CompletedProcess(line, process.wait(), stdout, stderr)


def _write(descriptor: int, text: str) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "w", encoding="utf-8") as pipe:
        pipe.write(text)


def _text(content: bytes) -> str:
    return content.decode().replace("\r\n", "\n").replace("\r", "\n")


def _read_all(pipe: IO[bytes] | None) -> bytes:
    if pipe is None:
        return b""
    with pipe:
        return pipe.read()


def _output(
    stream: IO[Any] | int | None, own: int, theirs: contextlib.ExitStack
) -> tuple[IO[bytes] | None, int]:
    """Our end of a pipe, if one is asked for, and the command's descriptor."""
    if stream == subprocess.PIPE:
        reading, writing = os.pipe()
        theirs.callback(os.close, writing)
        return os.fdopen(reading, "rb"), writing
    return None, own if stream is None else _number(stream)


def _number(stream: IO[Any] | int) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


@functools.cache
def _fork_server() -> socket.socket:
    """The connection to the fork server. The test processes of a run share one: the first call starts it.

    It ends when the last of them has ended. Processes whose stores are others have servers of their own.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    stores = sorted(f"{key}={value}" for key, value in os.environ.items() if key.startswith(_STORES))
    address = f"\0digestry-tests-{hashlib.sha256(json.dumps([run, stores]).encode()).hexdigest()}"
    while True:
        process = _start_fork_server(address)
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.connect(address)
        except ConnectionRefusedError:  # another process starts it just now, or it ended just now
            ours.close()
            time.sleep(0.01)
            continue
        break

    def end() -> None:
        ours.close()
        if process is not None:
            process.wait()

    atexit.register(end)
    return ours


def _start_fork_server(address: str) -> subprocess.Popen[bytes] | None:
    """Starts the fork server that listens at ``address``; returns None if there is one already."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            listener.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return None
        listener.listen(64)
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(listener.fileno())],
            cwd=_TOP,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def _comes(told: socket.socket, timeout: float | None) -> bool:
    """Return whether there is something to read within so many seconds.

    Tests may have thousands of files open, with whose numbers ``select`` does not work.
    """
    waiting = select.poll()
    waiting.register(told, select.POLLIN)
    return bool(waiting.poll(None if timeout is None else timeout * 1000))
