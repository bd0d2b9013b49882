"""The worker processes of a server, which Granian starts, replaces and stops."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.mp import WorkerProcess
from starlette.types import ASGIApp

from digestry.errors import StorageError
from digestry.registry import tls
from digestry.registry.config import RegistryConfig
from digestry.registry.connections import kernel, listening
from digestry.registry.connections.guard import most_accepted
from digestry.registry.connections.listening import Listening
from digestry.registry.draining import Drain, closing
from digestry.registry.http1 import worker as http1_worker
from digestry.registry.observability import logs

_READ_BUFFER: Final = 480 << 10
"""Bytes that one connection may read ahead: large uploads are faster with it. It bounds a request's head as
well, at twice as much; the guard closes connections that wait with a long one."""
_HTTP2: Final = HTTP2Settings(
    initial_connection_window_size=1 << 20,
    initial_stream_window_size=256 << 10,
    keep_alive_interval=20_000,
    keep_alive_timeout=20,
    max_concurrent_streams=32,
    max_headers_size=32 << 10,
    max_send_buffer_size=64 << 10,
)
"""The limits of an HTTP/2 connection, where HTTP/2 is enabled."""
STOP_SECONDS: Final = 10
"""Seconds that workers have to end."""
_BEGUN_MOST: Final = 5
_BEGUN_SECONDS: Final = 120.0
"""All workers are started anew at the most so often within so many seconds."""

log: Final = logging.getLogger("digestry.registry")


class Interrupt:
    """Wakes the server's main loop, as a :class:`threading.Event` does, but by a pipe: a signal's handler may
    wake it at any instruction of that loop. The handler of an event would wait for the lock that the
    interrupted instruction has. Once it is for the end, nothing clears it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_last = False

    def set(self, *, for_the_end: bool = False) -> None:
        self._is_last |= for_the_end
        with contextlib.suppress(BlockingIOError):  # it is full: the loop is woken anyway
            os.write(self._writer, b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass
        if self._is_last:
            self.set()

    def wait(self, timeout: float | None = None) -> bool:
        return bool(select.select([self._reader], [], [], timeout)[0])

    def is_set(self) -> bool:
        return self.wait(0)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class _Server(Granian):  # type: ignore[misc,valid-type]
    """Granian on an already bound socket, which all workers share."""

    def __init__(self, socket: Listening, reload: Callable[..., None], drain: Drain, **options: Any) -> None:
        super().__init__("digestry.registry.app", **options)
        self._listening = socket
        self._reload_configuration = reload
        self._drain = drain
        self.main_loop_interrupt = Interrupt()

    def signal_handler_interrupt(self, number: int = signal.SIGINT, *arguments: Any, **options: Any) -> None:
        """Handle SIGTERM and SIGINT: stop, after a SIGTERM once the drain has ended."""
        if os.getpid() != self.pid:
            os._exit(0)  # a worker that has no handlers of its own yet, and no requests
        stop = self._interrupt
        if number == signal.SIGTERM and self._drain.begin():
            timer = threading.Timer(self._drain.seconds, stop)
            timer.daemon = True
            timer.start()
        else:
            stop()

    def _interrupt(self) -> None:
        self.interrupt_signal = True
        self.main_loop_interrupt.set(for_the_end=True)

    def signal_handler_reload(self, *arguments: Any, **options: Any) -> None:
        """Handle SIGHUP."""
        self._reload_configuration()

    def respawn(self) -> None:
        """Replace the workers, one after the other."""
        super().signal_handler_reload()

    def _init_shared_socket(self) -> None:
        socket = self._listening.socket
        self._ssp, self._sso = None, None
        holder: Any = SocketHolder  # Granian has no types
        self._shd = holder(socket.fileno(), self._listening.path is not None, listening.BACKLOG)
        self._sfd = socket.fileno()


class Workers:
    """The worker processes of the server.

    Granian restarts a worker that dies; but if it dies again within seconds, Granian ends them all. A machine
    without free memory may kill it twice: so the workers are restarted, unless they keep dying, or never
    answered a request.
    """

    def __init__(
        self,
        config: RegistryConfig,
        socket: Listening,
        certificate: tls.Certificate | None,
        *,
        load: Callable[[], ASGIApp],
        reload: Callable[..., None],
        drain: Drain,
    ) -> None:
        self._config = config
        self._socket = socket
        self._certificate = certificate
        self._load = load
        self._reload = reload
        self._drain = drain
        self._server = self._make()
        self._begun: list[float] = []
        self.answered = False

    def _make(self) -> _Server:
        config = self._config
        limits = config.connections
        return _Server(
            self._socket,
            self._reload,
            self._drain,
            interface=Interfaces.ASGI,
            workers=config.workers,
            websockets=False,
            # The guard limits them to fewer: connections that are not accepted cannot be told from an attack.
            backpressure=most_accepted(limits),
            http=HTTPModes.auto if config.http2 else HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(limits.header_seconds * 1000), max_buffer_size=_READ_BUFFER
            ),
            http2_settings=_HTTP2,
            **({} if self._certificate is None else self._certificate.options()),
            log_level=LogLevels.warning,
            log_dictconfig=logs.configuration(config.log.format),
            workers_kill_timeout=STOP_SECONDS,
            respawn_failed_workers=True,
        )

    def processes(self) -> list[int]:
        """Return the process IDs of the running workers."""
        return [worker.inner.pid for worker in list(self._server.wrks) if worker.is_alive()]

    def renew(self, certificate: tls.Certificate) -> None:
        """Replace the workers, one after the other, with ones that use the present ``certificate``."""
        files = certificate.used
        self._server.build_ssl_context(files.certificate, files.key, None, tls.OLDEST, None, [], False)
        self._server.respawn()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises :class:`StorageError` if the workers keep dying."""
        target = self._spawn_target()
        load = self._load if target is not None else self._load_closing
        while True:
            try:
                self._server.serve(target, target_loader=load, wrap_loader=False)
            except SystemExit as error:
                if not error.code or self._server.interrupt_signal or self._drain.has_begun():
                    return
                if not self._may_restart():
                    raise StorageError(
                        "the server's workers stopped", hint="its log, above, says why"
                    ) from error
            else:
                return
            log.error("a worker died twice within seconds: all workers are started anew")
            self._server = self._make()

    def _load_closing(self) -> ASGIApp:
        return closing(self._load(), self._drain.has_begun)

    def _spawn_target(self) -> Callable[..., None] | None:
        """Return the main function of a worker process; None for Granian's own server, which has TLS and
        HTTP/2."""
        config = self._config
        if config.tls is not None or config.http2 or config.socket is not None or not kernel.available():
            return None
        socket, most = self._socket.socket, most_accepted(config.connections)
        drain = self._drain.wait

        def work(_worker: int, app: Any, _socket: Any, _pipe: Any, loop: Any, *_options: Any) -> None:
            http1_worker.serve(app, loop, socket, most=most, patience=STOP_SECONDS / 2, drain=drain)

        target: Callable[..., None] = WorkerProcess.wrap_target(work)  # type: ignore[no-untyped-call]
        return target

    def _may_restart(self) -> bool:
        now = time.monotonic()
        self._begun = [*(begun for begun in self._begun if now - begun < _BEGUN_SECONDS), now]
        return self.answered and len(self._begun) <= _BEGUN_MOST
