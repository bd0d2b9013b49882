"""The kernel's view of this process's sockets (Linux: /proc, and tcp(7), TCP_INFO).

The server's own runtime owns these descriptors, and may close one at any moment. So nothing is changed before
a duplicate proves, by its inode, to be the right connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_DESCRIPTORS: Final = "/proc/self/fd"
_TCP_INFO: Final[int] = getattr(socket, "TCP_INFO", 11)
_INFO: Final = struct.Struct("=24xI92xQQ8xI")
"""Of struct tcp_info: tcpi_unacked, tcpi_bytes_acked, tcpi_bytes_received, tcpi_notsent_bytes."""
_COUNT: Final = struct.Struct("i")
_RESET: Final = struct.pack("ii", 1, 0)

Peer = tuple[str, str]
"""A client's address and port, both text, as the server passes them to the application."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Byte counts of one connection, TLS and HTTP included: acknowledged by the client, received, and waiting
    here for the client."""

    acked: int
    received: int
    waiting: int


def available() -> bool:
    """Return whether this system provides all of it."""
    return sys.platform == "linux" and Path(_DESCRIPTORS).is_dir()


def sockets() -> Iterator[tuple[int, int]]:
    """Yield the descriptor and inode of each open socket of this process."""
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - thousands, several times a second
        descriptor = int(name)
        try:
            found = os.fstat(descriptor)
        except OSError:
            continue
        if stat.S_ISSOCK(found.st_mode):
            yield descriptor, found.st_ino


def peer(descriptor: int, inode: int, address: tuple[str, int]) -> Peer | None:
    """Return the remote address of a TCP connection that came in at the port of ``address``, else None."""
    with _borrowed(descriptor, inode) as connection:
        if connection is None:
            return None
        try:
            if connection.family not in {socket.AF_INET, socket.AF_INET6}:
                return None
            if connection.getsockname()[1] != address[1]:
                return None
            name = connection.getpeername()
        except OSError:
            return None  # listening, or gone already
        return str(name[0]).partition("%")[0], str(name[1])


def counts(descriptor: int, inode: int) -> Counts | None:
    """Return the byte counts of a TCP connection; None if it is closed."""
    try:
        if os.fstat(descriptor).st_ino != inode:
            return None
        # Without a duplicate: this only looks. Should the descriptor have become another one's in between,
        # the next look finds that out.
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    except OSError:
        return None
    try:
        found = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO.size)
        unacked, acked, received, unsent = _INFO.unpack(found)
    except (OSError, struct.error):
        return None
    finally:
        connection.detach()
    return Counts(acked, received, unacked + unsent)


def unread(descriptor: int) -> int:
    """Return how many received bytes the server has not read yet."""
    try:
        return int(_COUNT.unpack(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(_COUNT.size)))[0])
    except OSError:
        return 0


def cut(descriptor: int, inode: int) -> bool:
    """Close a connection at once and drop what the server still held for it."""
    with _borrowed(descriptor, inode) as connection:
        if connection is None:
            return False
        with contextlib.suppress(OSError):
            # Reset it when it is closed: nothing is kept for a client that does not read.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
        return True


@contextlib.contextmanager
def _borrowed(descriptor: int, inode: int) -> Iterator[socket.socket | None]:
    """Yield a duplicate of the socket; None if the descriptor belongs to another one by now."""
    try:
        own = os.dup(descriptor)
    except OSError:
        yield None
        return
    try:
        is_same = os.fstat(own).st_ino == inode
        connection = socket.socket(fileno=own) if is_same else None
    except OSError:
        os.close(own)
        yield None
        return
    if connection is None:
        os.close(own)
        yield None
        return
    with connection:
        yield connection
