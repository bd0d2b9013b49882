"""Messages to systemd: that the agent is ready, lives, and stops (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

_NEVER: Final = 3600.0


class ServiceManager:
    """The service manager that started this process, if one did and wants to know."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        microseconds = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", "") in {"", str(os.getpid())}
        is_number = microseconds.isascii() and microseconds.isdigit()
        self.watchdog_pause = int(microseconds) / 2e6 if is_number and is_ours and path else _NEVER
        """The most seconds between two messages that the agent lives."""

    def tell(self, message: str) -> None:
        """Send a message, such as ``READY=1``; do nothing without a service manager."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(message.encode(), self._address)
