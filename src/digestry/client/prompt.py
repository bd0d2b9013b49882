"""Answers whose head must have come within a time in all: a timeout alone begins anew with every byte."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import time
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection


class _Hasty(io.RawIOBase):
    """What a connection sends, until a time; then for ever."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, seconds: float) -> None:
        self._raw = raw
        self._sock = sock
        self._timeout = sock.gettimeout()
        self._until: float | None = time.monotonic() + seconds

    def relax(self) -> None:
        """From now on only the connection's own timeout counts."""
        self._until = None
        with contextlib.suppress(OSError):  # it may have been closed
            self._sock.settimeout(self._timeout)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(left if self._timeout is None else min(left, self._timeout))
        return self._raw.readinto(buffer)

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()
        super().close()


def hasten(manager: urllib3.PoolManager, seconds: float) -> None:
    """Gives the heads of all answers to ``manager`` so long, each from when it is waited for."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self._hasty = _Hasty(self.fp.detach(), sock, seconds)
            self.fp = io.BufferedReader(self._hasty)

        def begin(self) -> None:
            super().begin()
            self._hasty.relax()

    class Plain(HTTPConnection):
        response_class = Response

    class Encrypted(HTTPSConnection):
        response_class = Response

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Encrypted

    manager.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}
