"""A SIGINT ends a verb that goes on until it is interrupted, whenever it comes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.client.dripping import SLOW, dripping
from tests.support import PATIENCE, digestry

_LOOP = """
import gc, sys, time
from digestry.cli.signals import Interrupts

interrupts = Interrupts(grace={grace})
print("ready", flush=True)
{body}
"""

# What loses a KeyboardInterrupt: an exception in __del__ is printed and forgotten.
_SWALLOWED = """
class Sly:
    def __del__(self):
        time.sleep(1.5)

try:
    while True:
        Sly()
        interrupts.sleep(0.01)
except KeyboardInterrupt:
    sys.exit(130)
"""
_NEVER_ASKS = """
while True:
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        pass
"""
_JOINS = """
import threading
threading.Thread(target=time.sleep, args=(60,)).start()
try:
    interrupts.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("body", "grace"),
    [(_SWALLOWED, 60.0), (_NEVER_ASKS, 0.5), (_JOINS, 0.5)],
    ids=["swallowed", "never", "joins"],
)
def test_it_is_not_lost(body: str, grace: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _LOOP.format(body=body, grace=grace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=50) == 130  # before any of the sixty seconds are over
        finally:
            process.kill()


@pytest.mark.parametrize("verb", ["pull", "tags", "audit"])
def test_a_command_ends_at_once_while_a_registry_drips(tmp_path: Path, verb: str) -> None:
    with dripping(SLOW["a body a byte at a time"]) as server:
        fleet = tmp_path / "fleet.json"
        fleet.write_text(json.dumps([{"host": "h", "name": "n", "reference": f"{server.host}/a/b:1"}]))
        arguments = {
            "pull": [f"{server.host}/a/b:1"],
            "tags": [f"{server.host}/a/b"],
            "audit": ["--source", f"file:{fleet}", "--timeout", "60"],
        }
        with subprocess.Popen(
            digestry(verb, *arguments[verb]),
            env=os.environ | {"DIGESTRY_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                deadline = time.monotonic() + 20
                while not server.seen and time.monotonic() < deadline:
                    time.sleep(0.05)
                begun = time.monotonic()
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=50)
                assert time.monotonic() - begun < 10
                assert (process.returncode, said.splitlines()[-1]) == (130, b"digestry: interrupted")
            finally:
                process.kill()


@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.long)])
def test_rounds_of_an_audit_end_whenever_it_comes(tmp_path: Path, times: int) -> None:
    fleet = tmp_path / "fleet.json"
    # Nothing listens there: a round asks, fails, and says so.
    rows = [{"host": "n1", "name": f"c{n}", "reference": f"127.0.0.1:9/app:{n}"} for n in range(20)]
    fleet.write_text(json.dumps(rows))
    environment = {**os.environ, "DIGESTRY_HOME": str(tmp_path / "home")}
    chance = random.Random(15)
    for _ in range(times):
        processes = [
            subprocess.Popen(
                digestry("audit", "--watch", "1", "--source", f"file:{fleet}"),
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(3)
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline().startswith(b"== ")
                time.sleep(chance.random() * chance.choice((0.01, 0.1, 1.0)))
                process.send_signal(signal.SIGINT)
            assert [process.wait(timeout=PATIENCE) for process in processes] == [130] * len(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
