"""The program ``digestry``: the command line as a process of its own, which starts and ends quickly."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading
from typing import Final, NoReturn

from digestry.cli import late_modules

_COLLECT_AFTER: Final = 20_000
"""Objects that are made before Python looks for unused ones."""


def start() -> NoReturn:
    """Run the command line as the program that this process is."""
    # Modules are never garbage: a collection while they are loaded takes as long as some of them.
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    late_modules.install()
    from digestry.cli.main import main

    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int) and all(thread.daemon for thread in _others()):
            # The teardown of loaded modules takes as long as a fifth of `digestry images`. A daemon thread
            # that goes on meanwhile, such as one that looks up a name, crashes the process (before 3.13).
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    if stream is not None:
                        stream.flush()
            os._exit(end.code)
        raise
    sys.exit()


def _others() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
