"""The client beside crane and skopeo: pulls, copies and pushes with one registry, in turns, on this machine.

``python -m bench.client [--rounds N] [--registry PROGRAM] [--crane PROGRAM] [--skopeo PROGRAM] [--far]
[WHAT …]``. ``WHAT`` is ``pull`` (into digestry's local store; into an OCI layout with the others), ``copy``
(into an OCI layout), ``push`` (from an OCI layout), and images: ``small`` (2 KB), ``large`` (one layer of
200 MB), ``many`` (20 layers of 20 MB), and ``again``: a pull of ``small`` once more, with nothing new.
``--far`` puts a line of 50 ms (a round trip) and 100 Mbit/s before the registry, which speaks TLS there
(``bench/line.py``; as root), and loses ``--loss`` of the packets; it measures ``small``, ``again``, ``usual``
(four layers of 20 to 60 KB), ``far`` (one layer of 40 MB) and ``eight`` (eight of 5 MB).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import certificates
from tests.support import RegistryServer, descriptor, wait_until

from bench import line, servers
from digestry.client.session import Session
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference

_SIZES = {
    "small": [500],
    "large": [200 << 20],
    "many": [20 << 20] * 20,
    "usual": [20_000, 40_000, 50_000, 60_000],
    "far": [40 << 20],
    "eight": [5 << 20] * 8,
}
_NEAR = ("small", "large", "many", "again")
_FAR = ("small", "usual", "again", "far", "eight")
_ACTIONS = ("pull", "copy", "push")
_DELAY = 0.025  # of the line, one way


@dataclass(frozen=True)
class Run:
    """One command, start to end: seconds, and seconds of the processor."""

    wall: float
    processor: float


def main() -> None:
    """Print a line for each image and program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--registry", default=servers.PEER, help="distribution's program, of any version")
    parser.add_argument("--crane", default=shutil.which("crane"))
    parser.add_argument("--skopeo", default=shutil.which("skopeo"))
    parser.add_argument("--far", action="store_true")
    parser.add_argument("--loss", type=float, default=0.0, help="of the far line's packets, such as 0.01")
    parser.add_argument("what", nargs="*", metavar="WHAT")
    options = parser.parse_args()
    images = [name for name in _FAR if options.far] or list(_NEAR)
    images = [name for name in images if name in options.what or not set(options.what) - set(_ACTIONS)]
    actions = [name for name in _ACTIONS if name in options.what or not set(options.what) & set(_ACTIONS)]
    for name in ("crane", "skopeo"):
        if getattr(options, name) is None:
            print(f"{name} is not on this machine", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="bench-client-") as scratch,
        servers.peer(Path(scratch, "r"), program=options.registry) as server,
        contextlib.ExitStack() as opened,
    ):
        for image in images:
            _push(server, "small" if image == "again" else image)
        host, ends = server.host, None
        if options.far:
            ends = opened.enter_context(line.line(delay=_DELAY, loss=options.loss))
            host = opened.enter_context(_behind(ends, Path(scratch), options.registry))
        for image in images:
            name = "small" if image == "again" else image
            for action in ("pull",) if image == "again" else actions:
                _measure(options, Task(action, image, f"{host}/bench/{name}:1", Path(scratch), ends))


@contextlib.contextmanager
def _behind(ends: line.Line, scratch: Path, program: str) -> Iterator[str]:
    """Run a second registry over the same files at the far end of a line, with TLS. Its host is yielded."""
    pki = certificates.make(scratch / "pki", f"IP:{line.FAR}")
    certificate, key = pki.server
    host = f"{line.FAR}:5000"
    config = scratch / "far.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {accesslog: {disabled: true}, level: error}\n"
        f"storage: {{cache: {{blobdescriptor: inmemory}}, filesystem: {{rootdirectory: {scratch / 'r'}}}}}\n"
        f"http: {{addr: '{host}', tls: {{certificate: {certificate}, key: {key}}}}}\n"
    )
    os.environ["SSL_CERT_FILE"] = str(pki.authority)
    with (scratch / "far.log").open("wb") as log:
        process = subprocess.Popen(ends.at_far([program, "serve", str(config)]), stdout=log, stderr=log)
    try:
        check = [sys.executable, "-c", f"import socket; socket.create_connection(('{line.FAR}', 5000), 5)"]
        wait_until(
            lambda: subprocess.run(ends.at_far(check), capture_output=True, check=False).returncode == 0,
            what="the far registry",
        )
        yield host
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class Task:
    """What is measured, of which image, in which directory."""

    action: str
    image: str
    reference: str
    scratch: Path
    line: line.Line | None = None

    @property
    def work(self) -> Path:
        """The directory that is new for each command."""
        return self.scratch / "w"

    @property
    def layout(self) -> Path:
        """The OCI layout that is pushed."""
        return self.scratch / f"layout-{self.image}"


def _measure(options: argparse.Namespace, task: Task) -> None:
    task.work.mkdir(exist_ok=True)
    if task.action == "push" and not task.layout.exists():
        source = f"docker://{task.reference}"
        _run(_placed(task, [_digestry(), "copy", "-q", source, f"oci:{task.layout}:1"]), task.work)
    programs = _programs(options, task)
    if task.image == "again":
        programs = {"digestry": programs["digestry"]}
    placed = {name: _always_placed(task, command) for name, command in programs.items()}
    runs = _in_turns(placed, task.work, options.rounds, fresh=task.image != "again")
    for program, each in runs.items():
        print(_line(f"{task.action} {task.image}", program, each, runs["digestry"]), flush=True)


def _placed(task: Task, command: list[str]) -> list[str]:
    return command if task.line is None else task.line.at_near(command)


def _always_placed(task: Task, command: Callable[[int], list[str]]) -> Callable[[int], list[str]]:
    return lambda number: _placed(task, command(number))


def _digestry() -> str:
    return str(Path(sys.executable).with_name("digestry"))


def _programs(options: argparse.Namespace, task: Task) -> dict[str, Callable[[int], list[str]]]:
    """Return the command of each program, by the number of the round: a push is to a new repository."""
    source, work, layout = task.reference, task.work, f"oci:{task.layout}:1"
    insecure = [] if task.line else ["--insecure"]

    def target(program: str, number: int) -> str:
        return f"{source.removesuffix(':1')}-{program}-{number}:1"

    def ours(number: int) -> list[str]:
        if task.action == "pull":
            return [_digestry(), "pull", "-q", source]
        ends = [f"docker://{source}", f"oci:{work / 'digestry'}:1"]
        if task.action == "push":
            ends = [layout, f"docker://{target('digestry', number)}"]
        return [_digestry(), "copy", "-q", *ends]

    def crane(number: int) -> list[str]:
        if task.action == "push":
            return [options.crane, "push", *insecure, str(task.layout), target("crane", number)]
        return [options.crane, "pull", *insecure, "--format=oci", source, str(work / "crane")]

    def skopeo(number: int) -> list[str]:
        ends = [f"docker://{source}", f"oci:{work / 'skopeo'}:1"]
        if task.action == "push":
            ends = [layout, f"docker://{target('skopeo', number)}"]
        plain = () if task.line else ("--src-tls-verify=false", "--dest-tls-verify=false")
        return [options.skopeo, "--insecure-policy", "copy", "-q", *plain, *ends]

    found: dict[str, Callable[[int], list[str]]] = {"digestry": ours}
    if options.crane:
        found["crane"] = crane
    if options.skopeo:
        found["skopeo"] = skopeo
    return found


def _in_turns(
    programs: dict[str, Callable[[int], list[str]]], work: Path, rounds: int, *, fresh: bool
) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, command in programs.items():
            if fresh or number == 0:
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
            run = _run(command(number), work)
            if number:  # the first round fills the caches
                runs[name].append(run)
    return runs


def _run(command: list[str], work: Path) -> Run:
    environment = {**os.environ, "DIGESTRY_HOME": str(work / "home"), "HOME": str(work)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return Run(wall, used.ru_utime + used.ru_stime)


def _line(what: str, program: str, runs: list[Run], ours: list[Run]) -> str:
    def least(of: Callable[[Run], float], some: list[Run]) -> float:
        return min(of(run) for run in some)

    def wall(run: Run) -> float:
        return run.wall

    def processor(run: Run) -> float:
        return run.processor

    median = statistics.median(run.wall for run in runs)
    return (
        f"{what:10} {program:9} wall {least(wall, runs):.3f} s (median {median:.3f}), processor "
        f"{least(processor, runs):.3f} s; digestry takes "
        f"{least(wall, ours) / least(wall, runs):.2f} of its wall time, "
        f"{least(processor, ours) / least(processor, runs):.2f} of its processor time"
    )


def _push(server: RegistryServer, name: str) -> None:
    """Push an image whose layers are noise."""
    chance = random.Random(name)  # noqa: S311 - noise, the same each time
    contents = [chance.randbytes(size) for size in _SIZES[name]]
    contents.append(b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}')
    kinds = [media_types.OCI_LAYER] * len(_SIZES[name]) + [media_types.OCI_CONFIG]
    *layers, config = map(Descriptor, kinds, map(Digest.of, contents), map(len, contents))
    with Session() as session:
        repository = session.repository(Reference(server.host, f"bench/{name}"))
        for described, content in zip([*layers, config], contents, strict=True):
            repository.push_blob(described, functools.partial(io.BytesIO, content))
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": descriptor(config.media_type, config.digest, config.size),
            "layers": [descriptor(one.media_type, one.digest, one.size) for one in layers],
        }
        repository.push_manifest(json.dumps(manifest).encode(), media_types.OCI_MANIFEST, tags=["1"])


if __name__ == "__main__":
    main()
