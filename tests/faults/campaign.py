"""A fault at every durable step of the scenario, and a look at what it leaves.

::

    python -m tests.faults.campaign kill  [--every N]    SIGKILL right before and right after each step
    python -m tests.faults.campaign power [--every N]    the power goes before each step
    python -m tests.faults.campaign full  [--every N]    the disk is full at each step, once
    python -m tests.faults.campaign io    [--every N]    the disk fails at each step, once
    python -m tests.faults.campaign start [--every N]    SIGKILL at each step of the first start

``--every N`` takes each Nth step only. Prints what failed, and a line of JSON with the counts; the
exit code is 1 if anything failed. A process of its own: each run is forked from it, so that it has
no threads and has imported everything before.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from digestry.catalog import uploads
from digestry.errors import StorageError
from digestry.registry.disk_reserve import ReserveJob
from tests.backends import open_reserve
from tests.faults import power, scenario
from tests.faults.after import Log, check, check_at_rest, check_running
from tests.faults.inside import Inside, prepared
from tests.faults.scenario import Act, Clock, Refusal, Stage
from tests.faults.steps import Step, Steps

_SECONDS = 300
"""A run that takes so long hangs."""

_SHOWN = 5
"""More failures than these are only counted."""

Side = Literal["before", "after"]


@dataclass
class Result:
    """What a campaign came to."""

    steps: int = 0
    runs: int = 0
    failures: list[str] = field(default_factory=list)


def run_scenario(root: Path, acts: tuple[Act, ...], log_file: Path, steps: Steps | None = None) -> None:
    """Plays the acts on a registry in this process, and writes down how far they came."""
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(*what: object) -> None:
        os.write(descriptor, json.dumps(what).encode() + b"\n")

    clock = Clock()
    if steps is not None:
        steps.watch()
    with Inside(root, now=clock) as registry:
        stage = Stage(registry, lambda key, location: tell("upload", key, location), clock)
        for number, act in enumerate(acts):
            tell("begin", number)
            act.run(stage)
            tell("ack", number)


def run_out(root: Path, acts: tuple[Act, ...], at: int, log_file: Path, *, full: bool) -> None:
    """Plays the acts until the disk is full, or fails, at step ``at``, and goes on to the checks."""

    def strike(step: Step) -> None:
        if step.number != at:
            return
        if step.call in {"commit", "volatile-commit"}:
            error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
            raise error
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, os.strerror(number), str(step.path))

    steps = Steps(root, strike, _nothing)
    steps.watch()
    clock, log = Clock(), Log()
    with Inside(root, now=clock) as registry:
        stage = Stage(registry, log.locations.__setitem__, clock)
        for act in acts:
            log.begun += 1
            log_file.write_text(json.dumps(["begin", log.begun - 1]))
            try:
                act.run(stage)
            except Refusal as refusal:
                if refusal.status != (507 if full else 500):
                    raise
                break
            except StorageError:
                break  # the registry's own work, that nobody is answered
            log.acknowledged += 1
        clock.ahead = 0
        ReserveJob(open_reserve(root)).run(threading.Event())  # the registry's own work, once there is room
        check_running(registry, acts, log, lost=True)
    check_at_rest(root)


def forked(function: Callable[[], None], said: Path) -> int:
    """Runs ``function`` in a process of its own; its wait status. What it raises is written to ``said``."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        signal.alarm(_SECONDS)
        function()
    except BaseException:  # noqa: BLE001 - told to the parent
        with contextlib.suppress(OSError):
            said.write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


class Campaign:
    """Runs in directories of their own under ``work``."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.acts = scenario.play()
        self.result = Result()
        self._template = work / "template"
        self._said = work / "said"
        self._empty = False
        self.must_pass("prepare", lambda: _nothing(prepared(self._template)))

    def fresh(self) -> tuple[Path, Path]:
        """An empty registry's root, and where its log goes."""
        root, log = self.work / "root", self.work / "log"
        shutil.rmtree(root, ignore_errors=True)
        log.unlink(missing_ok=True)
        if not self._empty:
            shutil.copytree(self._template, root)
        return root, log

    def count(self) -> list[Step]:
        """Plays it all once, undisturbed; its steps."""
        root, log = self.fresh()
        steps = self._steps(root, lambda steps: run_scenario(root, self.acts, log, steps))
        self.look("undisturbed", root, Log.read(log))
        return steps

    def _steps(self, root: Path, play: Callable[[Steps], None]) -> list[Step]:
        listed = self.work / "steps"

        def run() -> None:
            found: list[Step] = []
            play(Steps(root, found.append, _nothing))
            listed.write_text("\n".join(f"{step.call} {step.path} {step.creates:d}" for step in found))

        self.must_pass("undisturbed", run)
        lines = listed.read_text().splitlines()
        steps = [
            Step(number, call, Path(path), creates == "1")
            for number, (call, path, creates) in enumerate(line.split(" ") for line in lines)
        ]
        self.result.steps = len(steps)
        return steps

    def must_pass(self, name: str, run: Callable[[], None]) -> None:
        if forked(run, self._said) != 0:
            sys.exit(f"{name}: {self._said.read_text()}")

    def kill(self, step: Step, side: Side, play: Callable[[Steps], None] | None = None) -> None:
        """One run that kills itself there, and a look at what it leaves."""
        root, log = self.fresh()

        def strike(at: Step) -> None:
            if at.number == step.number:
                os.kill(os.getpid(), signal.SIGKILL)

        before, after = (strike, _nothing) if side == "before" else (_nothing, strike)
        steps = Steps(root, before, after)
        play = play or (lambda steps: run_scenario(root, self.acts, log, steps))
        status = forked(lambda: play(steps), self._said)
        name = f"SIGKILL {side} step {step}"
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            said = self._said.read_text() if self._said.exists() else ""
            self.result.failures.append(f"{name}: it did not come to it: {said}")
            return
        self.look(name, root, Log.read(log) if log.exists() else Log())

    def fail(self, step: Step, *, full: bool) -> None:
        """One run in which the disk is full, or fails, at that step."""
        root, log = self.fresh()
        self.result.runs += 1
        if forked(lambda: run_out(root, self.acts, step.number, log, full=full), self._said) != 0:
            begun = Log.read(log).begun
            name = f"disk {'full' if full else 'failed'} at step {step}, in “{self.acts[begun - 1].name}”"
            self.result.failures.append(f"{name}:\n{self._said.read_text()}")

    def start(self, every: int) -> None:
        """SIGKILL at each step of the start that makes the root's files."""
        self._empty = True
        root, _ = self.fresh()

        def play(steps: Steps) -> None:
            steps.watch()
            prepared(root)

        for step in self._steps(root, play)[::every]:
            self.kill(step, "before", play)
            self.kill(step, "after", play)

    def look(self, name: str, root: Path, log: Log, *, power_went: bool = False) -> None:
        """Starts a registry on what is there, and checks everything."""

        def run() -> None:
            if power_went:
                uploads._boot_id = lambda: "the next boot"
            if self._empty:
                for path in root.glob(".*"):
                    os.utime(path, (0, 0))  # a minute later
                prepared(root)
            check(root, self.acts, log, power_went=power_went)

        self.result.runs += 1
        if forked(run, self._said) != 0:
            at = self.acts[min(log.begun, len(self.acts)) - 1].name if log.begun else "the start"
            self.result.failures.append(f"{name}, in “{at}”:\n{self._said.read_text()}")

    def cut_power(self, every: int) -> None:
        """Plays it once; before each step what the disk may hold is laid out, and looked at."""
        root, log = self.fresh()
        kept = self.work / "images"
        kept.mkdir()

        def run() -> None:
            disk = power.Disk(root)
            seen: set[bytes] = set()

            def before(step: Step) -> None:
                if step.number % every:
                    return
                for mixture, image in disk.images():
                    mark = hashlib.sha256(log.read_bytes() + repr(sorted(image.items())).encode()).digest()
                    if mark in seen:
                        continue
                    seen.add(mark)
                    place = kept / f"{step.number:05}-{power.MIXTURES.index(mixture)}"
                    power.restore(image, place)
                    shutil.copyfile(log, place.with_suffix(".log"))
                    place.with_suffix(".name").write_text(f"power gone before step {step}, with {mixture}")

            run_scenario(root, self.acts, log, Steps(root, before, disk.after))

        self.must_pass("power", run)
        for place in sorted(path for path in kept.iterdir() if path.is_dir()):
            name = place.with_suffix(".name").read_text()
            self.look(name, place, Log.read(place.with_suffix(".log")), power_went=True)
            shutil.rmtree(place)


def _nothing(_: object) -> None:
    pass


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign")
    parser.add_argument("fault", choices=["kill", "power", "full", "io", "start"])
    parser.add_argument("--every", type=int, default=1, metavar="N")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="digestry-faults-", dir=_memory()) as directory:
        campaign = Campaign(Path(directory))
        if options.fault == "start":
            campaign.start(options.every)
        elif options.fault == "power":
            campaign.count()
            campaign.cut_power(options.every)
        elif options.fault in {"full", "io"}:
            for step in campaign.count()[:: options.every]:
                campaign.fail(step, full=options.fault == "full")
        else:
            steps = campaign.count()
            for step in steps[:: options.every]:
                campaign.kill(step, "before")
                campaign.kill(step, "after")
    result = campaign.result
    for failure in result.failures[:_SHOWN]:
        print(failure, file=sys.stderr)
    seconds = round(time.monotonic() - began, 1)
    print(
        json.dumps(
            {
                "fault": options.fault,
                "steps": result.steps,
                "runs": result.runs,
                "failed": len(result.failures),
                "seconds": seconds,
            }
        )
    )
    return 1 if result.failures else 0


def _memory() -> str | None:
    """Where files cost nothing, if there is such a place: a fault's run syncs hundreds of times."""
    place = Path("/dev/shm")
    return str(place) if place.is_dir() and os.access(place, os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
