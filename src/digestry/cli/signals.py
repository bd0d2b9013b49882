"""SIGINT handling for commands that run until interrupted, so that no signal is lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a ``__del__``, a callback of
the garbage collector or a weak reference it is printed and forgotten, and a thread pool that is left by
it first waits for its threads.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

from digestry.cli import exit_codes

_GRACE: Final = 5.0
_STEP: Final = 0.1
_PROMPT: Final = 1.0


class Interrupts:
    """A handler of SIGINT that stays until the process ends. For the main thread.

    A SIGINT raises KeyboardInterrupt, as it does without this. If code swallowed it, it is raised again at
    :meth:`check` and :meth:`sleep`; and a process that has not ended some seconds after it is ended with the
    exit code of an interrupted one.
    """

    def __init__(self, grace: float = _GRACE) -> None:
        self._grace = grace
        self._was_interrupted = False
        signal.signal(signal.SIGALRM, _end)
        signal.signal(signal.SIGINT, self._interrupt)
        atexit.register(_take_alarm_back)

    def _interrupt(self, _: int, __: FrameType | None) -> NoReturn:
        # No lock here, nor anything that takes one: the thread that is interrupted may hold it.
        if not self._was_interrupted:
            self._was_interrupted = True
            signal.setitimer(signal.ITIMER_REAL, self._grace)
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was raised before."""
        if self._was_interrupted:
            raise KeyboardInterrupt

    def sleep(self, seconds: float) -> None:
        """Wait. Raises KeyboardInterrupt at once, or if it was raised before."""
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _STEP))
            self.check()


@contextlib.contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Make SIGINT and SIGTERM call ``stop``, which takes no lock, and raise KeyboardInterrupt.

    What the command has begun is undone then, as far as it undoes it. Code that swallows the exception is
    ended by the error that comes of ``stop``.
    """
    came = False

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        nonlocal came
        came = True
        stop()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Exception:
        if came:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_promptly() -> None:
    """Make SIGINT end the process within a second, also while threads wait for registries.

    It ends with the exit code of an interrupted one. Does nothing if SIGINT has another handler.

    Its incomplete files are swept from the local store later, as after a kill.
    """
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGALRM, _end_and_say)
        signal.signal(signal.SIGINT, _interrupt_promptly)
        atexit.register(_take_alarm_back)


def _interrupt_promptly(_: int, __: FrameType | None) -> NoReturn:
    signal.setitimer(signal.ITIMER_REAL, _PROMPT)
    raise KeyboardInterrupt


def _take_alarm_back() -> None:
    """Take back the alarm, once nothing is waited for: an interpreter that ends has no handler for it."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def _end_and_say(_: int, __: FrameType | None) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, b"digestry: interrupted\n")  # no stream: its lock may be held
    os._exit(exit_codes.INTERRUPTED)


def _end(_: int, __: FrameType | None) -> NoReturn:
    os._exit(exit_codes.INTERRUPTED)
