"""Look-ups of host names with a time limit: the system's resolver has none, and cannot be interrupted."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final

MOST_OF_AN_OWNER: Final = 8
"""Look-ups under way at once for one owner: an upstream, a webhook, an issuer of tokens."""

_MOMENT: Final = 1.0

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, SocketAddress]


class _LookUp:
    """One query to the system's resolver, in a thread of its own, so that its callers may give up."""

    def __init__(self, host: str, port: int) -> None:
        self._question = host, port
        self.done = threading.Event()
        self.thread = threading.Thread()
        self.found: Sequence[AddressInfo] = ()
        self.failure: OSError | UnicodeError | None = None

    def run(self) -> None:
        host, port = self._question
        try:
            self.found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self.failure = error
        finally:
            if not self.found and self.failure is None:
                self.failure = socket.gaierror(socket.EAI_NONAME, "no address")
            self.done.set()


_lock: Final = threading.Lock()
_under_way: Final[dict[tuple[str, str, int], _LookUp]] = {}
_owners: Final[Counter[str]] = Counter()


def look_up(host: str, port: int, *, seconds: float, owner: str) -> Sequence[AddressInfo]:
    """Return the result of ``getaddrinfo`` for ``host`` and a stream, after ``seconds`` at most.

    A second call for the same name waits for the same answer. A resolver that never answers holds a thread
    for each name, up to :data:`MOST_OF_AN_OWNER` of ``owner``. Raises :class:`socket.gaierror`,
    :class:`UnicodeError`, and :class:`TimeoutError` on a timeout, or if too many are under way.
    """
    if _is_address(host):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    look_up = _joined(host, port, owner)
    if not look_up.done.wait(max(0.0, seconds)):
        raise TimeoutError(f"the address of {host} could not be looked up in time")
    # A thread that ends while the process ends can crash it (CPython before 3.13).
    look_up.thread.join(_MOMENT)
    if look_up.failure is not None:
        raise look_up.failure
    return look_up.found


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return True
    return False


def _joined(host: str, port: int, owner: str) -> _LookUp:
    key = owner, host, port
    with _lock:
        running = _under_way.get(key)
        if running is not None:
            return running
        if _owners[owner] >= MOST_OF_AN_OWNER:
            raise TimeoutError(f"the address of {host} is not looked up: too many others have no answer yet")
        running = _under_way[key] = _LookUp(host, port)
        _owners[owner] += 1

    def run() -> None:
        try:
            running.run()
        finally:
            with _lock:
                del _under_way[key]
                _owners[owner] -= 1
                if not _owners[owner]:
                    del _owners[owner]

    # The process does not wait for it at its end.
    running.thread = threading.Thread(target=run, name=f"look-up {host}", daemon=True)
    try:
        running.thread.start()
    except RuntimeError as error:  # no more threads
        with _lock:
            _under_way.pop(key, None)
            _owners[owner] -= 1
        raise TimeoutError(f"the address of {host} cannot be looked up now: {error}") from error
    return running
