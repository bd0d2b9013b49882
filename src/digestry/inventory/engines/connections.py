"""Connections to an engine: over a unix socket, TCP with or without TLS, or a program over SSH.

Over SSH, ``docker system dial-stdio`` is run on the other machine, as docker's own client does: it relays
what is written to it to the engine. SSH must not prompt: it needs a key or an agent.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import unquote

from digestry.errors import Unreachable
from digestry.inventory.engines.endpoints import TLS, Endpoint

if TYPE_CHECKING:
    import subprocess

_RETRY: Final = 0.02
_LAST_WORDS: Final = 0.5
_END: Final = 2.0
_LONGEST_MESSAGE: Final = 300


def connection_to(endpoint: Endpoint, timeout: float) -> http.client.HTTPConnection:
    """Return a connection that is not open yet. Raises :class:`Unreachable` for unusable certificates."""
    address = endpoint.address
    if address.scheme == "unix":
        return _UnixConnection(unquote(address.path), timeout)
    if address.scheme == "ssh":
        return SSHConnection(endpoint, timeout)
    host = address.hostname or ""
    if endpoint.tls is None:
        return http.client.HTTPConnection(host, endpoint.port, timeout=timeout)
    context = _context(endpoint.url, endpoint.tls)
    return http.client.HTTPSConnection(host, endpoint.port, timeout=timeout, context=context)


def _context(url: str, tls: TLS) -> ssl.SSLContext:
    try:
        authority = None if tls.authority is None else str(tls.authority)
        context = ssl.create_default_context(cafile=authority)
        if not tls.verify:
            # The user's own docker context says so, and docker does the same.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ValueError) as error:
        files = [str(path) for path in (tls.authority, tls.certificate, tls.key) if path is not None]
        raise Unreachable(f"{url}: cannot use the certificates {', '.join(files)}: {error}") from error
    return context


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        deadline = time.monotonic() + (self.timeout or 0)
        while True:
            try:
                self.sock.connect(self._path)
            except BlockingIOError:
                # Too many others are waiting to be let in; a unix socket does not wait for us.
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(_RETRY)
            else:
                return


class SSHConnection(http.client.HTTPConnection):
    """HTTP with the engine at the other end of a program that SSH runs."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._command = ssh_command(endpoint, timeout)
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def connect(self) -> None:
        import subprocess  # noqa: PLC0415 - for SSH alone: an agent does without their memory
        import tempfile  # noqa: PLC0415

        ours, theirs = socket.socketpair()
        # Not a pipe, which would not be read while the answer is awaited.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                start_new_session=True,  # with no terminal to ask on
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.settimeout(self.timeout)
        self.sock = ours

    def why(self) -> str:
        """Return the last words of SSH, or of the program that it ran; "" if there are none."""
        import subprocess  # noqa: PLC0415 - as above

        if self._process is None or self._errors is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS)
        self._errors.seek(0)
        output = self._errors.read(1 << 16).decode(errors="replace").strip()
        if not output and self._process.returncode:
            output = f"{self._command[0]} ended with {self._process.returncode}"
        return " ".join(output.split())[-_LONGEST_MESSAGE:]

    def end(self) -> None:
        """Close the connection, and end SSH."""
        import subprocess  # noqa: PLC0415 - as above

        self.close()
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(_LAST_WORDS / 5)  # it ends when its input has ended
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(_END)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if self._errors is not None:
            self._errors.close()
            self._errors = None


def ssh_command(endpoint: Endpoint, timeout: float) -> list[str]:
    """Return the command to run for ``ssh://[user@]host[:port][/path/of/the/socket]``."""
    import shlex  # noqa: PLC0415 - as above

    address = endpoint.address
    command = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, round(timeout))}"]
    if endpoint.identity:
        command += ["-i", endpoint.identity]
    if address.username:
        command += ["-l", unquote(address.username)]
    if address.port:
        command += ["-p", str(address.port)]
    remote = [endpoint.program]
    path = unquote(address.path)
    if path.strip("/"):
        # The remote user's shell reads this.
        remote += ["--url" if endpoint.program == "podman" else "--host", shlex.quote(f"unix://{path}")]
    return [*command, "--", address.hostname or "", *remote, "system", "dial-stdio"]
