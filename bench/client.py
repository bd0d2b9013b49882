"""The client beside crane and skopeo: pulls from one registry, in turns, on this machine.

``python -m bench.client [--rounds N] [--registry PROGRAM] [--crane PROGRAM] [--skopeo PROGRAM] [IMAGE …]``.
Images are ``small`` (2 KB), ``large`` (one layer of 200 MB), ``many`` (20 layers of 20 MB), and ``again``:
``small`` once more, with nothing new.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support import RegistryServer, descriptor

from bench import servers
from digestry.client.session import Session
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference

_SIZES = {"small": [500], "large": [200 << 20], "many": [20 << 20] * 20}
_IMAGES = (*_SIZES, "again")


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
    parser.add_argument("images", nargs="*", default=_IMAGES, metavar="IMAGE")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-client-") as scratch,
        servers.peer(Path(scratch, "r"), program=options.registry) as server,
    ):
        for image in options.images:
            name = "small" if image == "again" else image
            _push(server, name)
            programs = _programs(options, f"{server.host}/bench/{name}:1", Path(scratch, "w"))
            if image == "again":
                programs = {"digestry": programs["digestry"]}
            runs = _in_turns(programs, Path(scratch, "w"), options.rounds, fresh=image != "again")
            for program, each in runs.items():
                print(_line(image, program, each, runs["digestry"]), flush=True)


def _programs(options: argparse.Namespace, reference: str, work: Path) -> dict[str, list[str]]:
    found = {"digestry": [str(Path(sys.executable).with_name("digestry")), "pull", "-q", reference]}
    if options.crane:
        found["crane"] = [options.crane, "pull", "--insecure", "--format=oci", reference, str(work / "crane")]
    if options.skopeo:
        found["skopeo"] = [
            *(options.skopeo, "--insecure-policy", "copy", "-q", "--src-tls-verify=false"),
            *(f"docker://{reference}", f"oci:{work / 'skopeo'}:1"),
        ]
    return found


def _in_turns(
    programs: dict[str, list[str]], work: Path, rounds: int, *, fresh: bool
) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, command in programs.items():
            if fresh or number == 0:
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
            run = _run(command, work)
            if number:  # the first round fills the caches
                runs[name].append(run)
    return runs


def _run(command: list[str], work: Path) -> Run:
    environment = {**os.environ, "DIGESTRY_HOME": str(work / "home"), "HOME": str(work)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return Run(wall, used.ru_utime + used.ru_stime)


def _line(image: str, program: str, runs: list[Run], ours: list[Run]) -> str:
    def least(of: Callable[[Run], float], some: list[Run]) -> float:
        return min(of(run) for run in some)

    def wall(run: Run) -> float:
        return run.wall

    def processor(run: Run) -> float:
        return run.processor

    median = statistics.median(run.wall for run in runs)
    return (
        f"{image:6} {program:9} wall {least(wall, runs):.3f} s (median {median:.3f}), processor "
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
