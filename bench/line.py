"""A long line between two network namespaces: each packet comes late, some are lost, and only so many fit.

It is what ``tc netem`` does, for kernels without it: two TUN devices, each in a namespace of its own, and a
process that passes packets from one to the other. Both ends are the kernel's own TCP, so that a connection
costs a round trip, TLS another, and a lost packet what it costs on any line. Needs root and ``/dev/net/tun``.

``python -m bench.line DEVICE DEVICE DELAY LOSS RATE`` is that process; :func:`line` starts it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEAR, FAR = "10.213.77.1", "10.213.77.2"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MTU = 1500
_QUEUE_SECONDS = 0.1  # of the line's buffer: what does not fit is lost


@dataclass(frozen=True)
class Line:
    """The two ends of a line: the names of their namespaces."""

    near: str
    far: str

    def at_near(self, command: list[str]) -> list[str]:
        """Return ``command`` as it is run at the near end, whose address is :data:`NEAR`."""
        return ["ip", "netns", "exec", self.near, *command]

    def at_far(self, command: list[str]) -> list[str]:
        """Return ``command`` as it is run at the far end, whose address is :data:`FAR`."""
        return ["ip", "netns", "exec", self.far, *command]


def is_possible() -> bool:
    """Return whether this process may make namespaces and devices."""
    return os.geteuid() == 0 and Path("/dev/net/tun").exists()


@contextlib.contextmanager
def line(*, delay: float, loss: float = 0.0, rate: float = 12.5e6) -> Iterator[Line]:
    """Run a line: each packet comes ``delay`` seconds late, a share of ``loss`` is lost, and ``rate`` bytes a
    second fit into each direction. Both ends send by Reno, which a namespace may choose; at such losses CUBIC
    is as fast.
    """
    ends = Line(f"line-{os.getpid()}-near", f"line-{os.getpid()}-far")
    devices = [f"ln{os.getpid() % 10**7}n", f"ln{os.getpid() % 10**7}f"]
    with contextlib.ExitStack() as stack:
        for name in (ends.near, ends.far):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        arguments = [*devices, str(delay), str(loss), str(rate)]
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.line", *arguments], stdout=subprocess.PIPE, text=True
        )
        stack.callback(_end, process)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        pairs = ((ends.near, devices[0], NEAR, FAR), (ends.far, devices[1], FAR, NEAR))
        for name, device, own, other in pairs:
            _ip("link", "set", device, "netns", name)
            _ip("-n", name, "addr", "add", own, "peer", other, "dev", device)
            _ip("-n", name, "link", "set", device, "mtu", str(_MTU), "up")
            _ip("-n", name, "link", "set", "lo", "up")
            control = "net.ipv4.tcp_congestion_control=reno"
            _run("ip", "netns", "exec", name, "sysctl", "-q", "-w", control)
            # What one command learnt of the line is no help to the next.
            _run("ip", "netns", "exec", name, "sysctl", "-q", "-w", "net.ipv4.tcp_no_metrics_save=1")
        yield ends


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


class _Direction:
    """The packets on their way from one device to the other."""

    def __init__(self, source: int, target: int, delay: float, loss: float, rate: float) -> None:
        self._source = source
        self._target = target
        self._delay = delay
        self._loss = loss
        self._rate = rate
        self._free_at = 0.0
        self._way: deque[tuple[float, bytes]] = deque()
        self._chance = random.Random(1)  # noqa: S311 - which packets are lost

    def take(self) -> None:
        """Take what was sent: it comes after the packets before it, at the line's rate, and late."""
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(self._source, 65536)
                now = time.monotonic()
                begins = max(now, self._free_at)
                if begins - now > _QUEUE_SECONDS:
                    continue
                self._free_at = begins + len(packet) / self._rate
                if self._chance.random() >= self._loss:
                    self._way.append((self._free_at + self._delay, packet))

    def deliver(self) -> float | None:
        """Deliver what has come, and return the seconds until more does; None if nothing is on its way."""
        while self._way:
            left = self._way[0][0] - time.monotonic()
            if left > 0:
                return left
            _, packet = self._way.popleft()
            with contextlib.suppress(OSError):  # an end that is not up yet
                os.write(self._target, packet)
        return None


def _device(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


def main() -> None:
    """Pass packets on until the process is ended."""
    near, far = _device(sys.argv[1]), _device(sys.argv[2])
    delay, loss, rate = map(float, sys.argv[3:])
    ways = {
        near: _Direction(near, far, delay, loss, rate),
        far: _Direction(far, near, delay, loss, rate),
    }
    print("ready", flush=True)
    poll = select.epoll()
    for descriptor in ways:
        poll.register(descriptor, select.EPOLLIN)
    while True:
        waits = [left for way in ways.values() if (left := way.deliver()) is not None]
        for descriptor, _ in poll.poll(min(waits, default=1.0)):
            ways[descriptor].take()


if __name__ == "__main__":
    main()
