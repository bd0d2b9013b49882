"""The allocator of a worker that has a store far away."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_ARENAS = """
import ctypes, sys, threading
from digestry.registry import allocator
if sys.argv[1] == "limited":
    allocator.limit_arenas()
meet = threading.Barrier(8)
def work():
    kept = bytearray(100_000)
    meet.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_threads_share_two_arenas() -> None:
    arenas = {
        how: subprocess.run(
            [sys.executable, "-c", _ARENAS, how], check=True, capture_output=True, text=True
        ).stdout.count("<heap nr=")
        for how in ("limited", "as it is")
    }
    assert arenas["limited"] <= 2 < arenas["as it is"]
