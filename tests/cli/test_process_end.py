"""The end of the program's process, with threads that are still at work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, threading, time, zlib

class Kept:
    def __del__(self):
        print("torn down")

def work():
    while True:
        zlib.crc32(bytes(100_000))  # gives up the interpreter's lock, and takes it again

from digestry.cli import main, program

def ending():
    for _ in range(8):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.05)
    print("said")
    sys.exit(3)

main.main = ending
main.kept = Kept()
program.start()
"""


def test_the_interpreter_is_not_torn_down_while_threads_are_at_work(tmp_path: Path) -> None:
    # CPython before 3.13 can crash when a daemon thread goes on meanwhile.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"said\n", b"")
