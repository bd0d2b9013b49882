"""SIGINT for a verb that goes on until it is interrupted: no such signal is ever lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a ``__del__``, a callback of
the garbage collector or a weak reference it is printed and forgotten, and a thread pool that is left by
it first waits for its threads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

from digestry.cli import exit_codes

_GRACE: Final = 5.0
_STEP: Final = 0.1


class Interrupts:
    """Takes SIGINT over until the process ends. For the main thread.

    A SIGINT raises KeyboardInterrupt, as it does without this. What swallowed it is asked again at
    :meth:`check` and :meth:`sleep`; and a process that has not ended some seconds after it, ends then,
    with the exit code of an interrupted one.
    """

    def __init__(self, grace: float = _GRACE) -> None:
        self._grace = grace
        self._came = False
        signal.signal(signal.SIGALRM, _end)
        signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, _: int, __: FrameType | None) -> NoReturn:
        # No lock here, nor anything that takes one: the thread that is interrupted may hold it.
        if not self._came:
            self._came = True
            signal.setitimer(signal.ITIMER_REAL, self._grace)
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raises KeyboardInterrupt if it was raised before."""
        if self._came:
            raise KeyboardInterrupt

    def sleep(self, seconds: float) -> None:
        """Waits. Raises KeyboardInterrupt at once, or if it was raised before."""
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _STEP))
            self.check()


@contextlib.contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT calls ``stop``, which takes no lock, besides raising KeyboardInterrupt: what swallowed
    that is ended by whatever error comes of the other."""
    came = False

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        nonlocal came
        came = True
        stop()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception:
        if came:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _end(_: int, __: FrameType | None) -> NoReturn:
    os._exit(exit_codes.INTERRUPTED)
