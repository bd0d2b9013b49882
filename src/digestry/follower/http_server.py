"""The HTTP server of a copy, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Final

from starlette.applications import Starlette

from digestry.errors import InvalidConfiguration, StorageError

_PATIENCE: Final = 10.0


@contextlib.contextmanager
def serving(application: Starlette, host: str, port: int) -> Iterator[None]:
    """Serve ``application`` inside the block. Raises :class:`InvalidConfiguration` for an address that cannot
    be used."""
    from granian.constants import Interfaces  # noqa: PLC0415 - as below
    from granian.server.embed import Server  # noqa: PLC0415 - it loads slowly

    _check_free(host, port)
    server = Server(application, address=host, port=port, interface=Interfaces.ASGI, log_enabled=False)
    failed: list[BaseException] = []
    loop = asyncio.new_event_loop()

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(server.serve())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            failed.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="copy-server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(server.stop)
        thread.join(_PATIENCE)
    if failed:
        raise StorageError(f"the server of the copy ended: {failed[0]}")


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise InvalidConfiguration(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
