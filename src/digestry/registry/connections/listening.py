"""The listening socket that all worker processes share.

The parent has one socket for all of them: the first free worker takes a connection, so that a worker that
hangs, or has just ended, keeps no connection waiting. (With a socket for each worker, SO_REUSEPORT, the
kernel would also give a share to a worker that hangs.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from digestry.errors import InvalidConfiguration

BACKLOG: Final = 4096
"""Connections that wait to be accepted; the kernel takes less if net.core.somaxconn says so."""

_NOTSENT: Final = 1 << 20
"""Bytes of one answer that the kernel keeps beyond what is under way to the client."""
_TRY_SECONDS: Final = 1.0
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)
_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class Listening:
    """A bound socket; for a unix socket, with its ``path``."""

    def __init__(self, bound: socket.socket, *, path: Path | None = None) -> None:
        self.socket = bound
        self.path = path
        self._inode = None if path is None else path.lstat().st_ino

        self.address: tuple[str, int] | None = None
        """The IP address and port; None of a unix socket."""
        if path is None:
            host, port = bound.getsockname()[:2]
            self.address = str(host), int(port)

    @property
    def port(self) -> int:
        """The TCP port; 0 for a unix socket."""
        return self.address[1] if self.address else 0

    def url(self, scheme: str, host: str) -> str:
        """Return the address for clients, with the name ``host``: a URL, or ``unix:PATH``."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def connect(self, timeout: float) -> socket.socket:
        """Open a local connection to the socket. Raises OSError."""
        if self.path is not None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(timeout)
                connection.connect(str(self.path))
            except BaseException:
                connection.close()
                raise
            return connection
        host, port = self.address or ("", 0)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        return socket.create_connection((host, port), timeout)

    def close(self) -> None:
        """Stop listening, and remove a unix socket's file."""
        self.socket.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                if self.path.lstat().st_ino == self._inode:  # else it is another server's by now
                    self.path.unlink()


def listen(host: str, port: int, *, patience: float) -> Listening:
    """Bind a TCP socket; port 0 chooses a free one. The kernel drops data that a client does not read within
    ``patience`` seconds.

    Raises :class:`InvalidConfiguration` if the host has no address here, or the port is taken.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
    except OSError as error:
        raise _cannot(f"{host}:{port}", error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Each accepted connection inherits these options from its first byte on (tcp(7)).
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _USER_TIMEOUT is not None:
            bound.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(patience * 1000))
        if _NOTSENT_LOWAT is not None:
            bound.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _NOTSENT)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise _cannot(f"{host}:{port}", error) from error
    return Listening(bound)


def listen_unix(path: Path, mode: int) -> Listening:
    """Bind a unix socket whose file has the permissions ``mode`` from the start.

    A file that a server left which was killed is replaced; one that somebody listens on is not, nor is
    anything else that has this name. Raises :class:`InvalidConfiguration`.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _alone(path.parent):
            _remove_stale(path)
            os.fchmod(bound.fileno(), 0o600)  # until it has the configured permissions
            bound.bind(str(path))
            path.chmod(mode)
            bound.listen(BACKLOG)
            return Listening(bound, path=path)
    except OSError as error:
        bound.close()
        raise _cannot(f"unix:{path}", error) from error
    except BaseException:
        bound.close()
        raise


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock under which a stale socket file is checked and replaced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise InvalidConfiguration(
            f"cannot listen on unix:{path}: there is something else of that name",
            hint="choose another path with --listen, or move it away",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_TRY_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except FileNotFoundError:
            return
        except TimeoutError:
            pass  # somebody listens, and has no time
    raise InvalidConfiguration(
        f"cannot listen on unix:{path}: another server does", hint="choose another path with --listen"
    )


def _cannot(where: str, error: OSError) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"cannot listen on {where}: {error.strerror or error}",
        hint="choose another address with --listen; port 0 takes a free one",
    )
