"""The audit of a large fleet: half a million containers in a file, two thousand images in a registry.

``python -m bench.fleet`` makes both, runs ``digestry audit`` as a user would, and prints how long it
took, how much memory it needed and how many requests it cost. ``--profile`` adds where the time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import csv
import datetime
import http.client
import json
import os
import pstats
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import RegistryServer, descriptor, digestry, start_registry

from digestry.advisories import publish
from digestry.audit.audit import audit
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.reports import to_json
from digestry.client.session import Session
from digestry.inventory.source_selection import parse_source
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.reference import Reference

SECONDS = 20.0
MEGABYTES = 1024.0
_EACH = 2  # images of one repository: the one that its tag left, and the one that it has
_AFFECTED = 10  # every so many repositories have an advisory
_MULTI = 5  # every so many repositories have indexes of two platforms
_PUSHERS = 4
_SEED = 1505


@dataclass(frozen=True)
class Image:
    """One image that containers run: by which name they were started, and what they got."""

    reference: str
    digest: Digest


class Pusher:
    """Pushes images over one connection."""

    def __init__(self, server: RegistryServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def repository(self, host: str, number: int) -> list[Image]:
        """One repository whose tag has moved, twice."""
        name = f"bench/team-{number % 40}/app-{number:04d}"
        layer = self._blob(name, b"layer")
        digests = []
        for code in ("first", "old", "new"):
            children = [
                self._manifest(
                    name, {"architecture": architecture, "os": "linux", "code": f"{code} {number}"}, layer
                )
                for architecture in (("amd64", "arm64") if number % _MULTI == 0 else ("amd64",))
            ]
            if len(children) == 1:
                digests.append(self._put(name, "1.5", children[0], media_types.OCI_MANIFEST))
                continue
            for child in children:
                self._put(name, str(Digest.of(child)), child, media_types.OCI_MANIFEST)
            listed = [
                descriptor(media_types.OCI_MANIFEST, Digest.of(child), len(child))
                | {"platform": {"os": "linux", "architecture": architecture}}
                for child, architecture in zip(children, ("amd64", "arm64"), strict=True)
            ]
            index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": listed}
            digests.append(self._put(name, "1.5", json.dumps(index).encode(), media_types.OCI_INDEX))
        return [Image(f"{host}/{name}:1.5", digest) for digest in digests[-_EACH:]]

    def _blob(self, name: str, content: bytes) -> dict[str, Any]:
        digest = Digest.of(content)
        self._request("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", content)
        return descriptor(media_types.OCI_LAYER, digest, len(content))

    def _manifest(self, name: str, config: dict[str, str], layer: dict[str, Any]) -> bytes:
        described = self._blob(name, json.dumps(config).encode()) | {"mediaType": media_types.OCI_CONFIG}
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_MANIFEST,
                "config": described,
                "layers": [layer],
            }
        ).encode()

    def _put(self, name: str, target: str, raw: bytes, media_type: str) -> Digest:
        self._request("PUT", f"/v2/{name}/manifests/{target}", raw, {"Content-Type": media_type})
        return Digest.of(raw)

    def _request(self, method: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._connection.request(method, path, body, headers or {})
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 201, text


def fill(server: RegistryServer, images: int) -> list[Image]:
    """Pushes ``images`` images, with history and advisories."""

    def push(numbers: Sequence[int]) -> list[Image]:
        pusher = Pusher(server)
        return [image for number in numbers for image in pusher.repository(server.host, number)]

    count = images // _EACH
    with ThreadPoolExecutor(_PUSHERS) as pool:
        shares = pool.map(push, [range(first, count, _PUSHERS) for first in range(_PUSHERS)])
        made = sorted((image for share in shares for image in share), key=lambda image: image.reference)
    with Session() as session:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        bad = publish.NewStatement("CVE-2026-1505", "affected", "bench", now)
        for old, new in zip(made[:: _EACH * _AFFECTED], made[1 :: _EACH * _AFFECTED], strict=True):
            subject, cure = (
                publish.find_image(session, Reference.parse(one.reference).with_digest(one.digest))
                for one in (old, new)
            )
            publish.attach_statement(
                session, subject, bad, [cure], new_queries=lambda: RegistryQueries(session)
            )
    return made


def containers(images: Sequence[Image], count: int) -> Iterator[dict[str, str]]:
    """So many containers of ``images``: a few of the images run everywhere, most in few places."""
    chance = random.Random(_SEED)  # noqa: S311 - the same fleet every time
    weights = [1 / (1 + rank) ** 0.7 for rank in range(len(images))]
    chosen = chance.choices(range(len(images)), weights, k=count - len(images))
    for number, at in enumerate([*range(len(images)), *chosen]):
        image = images[at]
        yield {
            "host": f"node-{number % 5000:04d}.example",
            "namespace": f"team-{at % 40}",
            "name": f"app-{at:04d}-{number:06x}",
            "id": f"{number:064x}",
            "reference": image.reference,
            "digest": str(image.digest),
            "platform": "linux/amd64",
        }


def write(path: Path, rows: Iterator[dict[str, str]]) -> None:
    """An inventory, as its name says: JSON or CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            table = csv.writer(file)
            for number, row in enumerate(rows):
                if number == 0:
                    table.writerow(row)
                table.writerow(row.values())
            return
        file.write('{"containers": [')
        for number, row in enumerate(rows):
            file.write((",\n" if number else "\n") + json.dumps(row))
        file.write("\n]}\n")


@dataclass(frozen=True)
class Statistics:
    """One run: seconds by the clock and by the processor, and the most memory in MB."""

    seconds: float
    processor: float
    megabytes: float
    states: Counter[tuple[str, str]]


def peak(pid: int) -> float:
    """The most memory that a process has had, in MB; 0 if it has ended."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def measure(inventory: Path, output: Path) -> Statistics:
    """``digestry audit --source file:… --format json``, start to end."""
    began = time.perf_counter()
    most = 0.0
    with output.open("wb") as file:
        process = subprocess.Popen(
            digestry("audit", "--source", f"file:{inventory}", "--format", "json"), stdout=file
        )
        while True:
            # Not rusage's: that counts this process, too, from which the other was forked.
            most = max(most, peak(process.pid))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.02)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in {0, 1}, f"digestry audit ended with {process.returncode}"
    processor = usage.ru_utime + usage.ru_stime
    report = json.loads(output.read_bytes())
    assert report["problems"] == [], report["problems"][:3]
    states = Counter((one["tag_state"], one["advisory_state"]) for one in report["containers"])
    return Statistics(took, processor, most, states)


def profile(inventory: Path) -> None:
    """The same in this process, part by part."""
    profiler = cProfile.Profile()
    with Session() as session, Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        began = time.perf_counter()
        profiler.enable()
        report = audit([parse_source(f"file:{inventory}")], RegistryQueries(session))
        nowhere.writelines(to_json.write(report))
        profiler.disable()
        print(f"with the profiler: {time.perf_counter() - began:.1f} s, without the reading threads' part")
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def requests(inventory: Path, *, at_once: bool) -> tuple[Counter[str], float]:
    """How many requests of which kind the audit sends, and its seconds in this process.

    Without ``at_once`` it asks one by one, as it asks other registries.
    """
    counts: Counter[str] = Counter()
    with Session() as session:
        send = session.connection.transport.send

        def counted(call: Any, **options: Any) -> Any:
            path = call.url.partition("/v2/")[2]
            counts[f"{call.method} {path if path.startswith('_') else path.split('/')[-2:][0]}"] += 1
            return send(call, **options)

        session.connection.transport.send = counted  # type: ignore[method-assign]
        if not at_once:
            session.resolve_many = lambda *_, **__: None  # type: ignore[method-assign]
        began = time.perf_counter()
        audit([parse_source(f"file:{inventory}")], RegistryQueries(session))
        return counts, time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("--containers", type=int, default=500_000)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv", action="store_true", help="the inventory as CSV, not as JSON")
    parser.add_argument("--profile", action="store_true", help="say where the time goes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="digestry-bench-") as name:
        directory = Path(name)
        server = start_registry(directory / "root")
        try:
            began = time.perf_counter()
            images = fill(server, arguments.images)
            print(f"{len(images)} images pushed in {time.perf_counter() - began:.1f} s")
            inventory = directory / ("fleet.csv" if arguments.csv else "fleet.json")
            write(inventory, containers(images, arguments.containers))
            print(f"{arguments.containers} containers in {inventory.stat().st_size / 1e6:.0f} MB")
            for at_once in (False, True):
                sent, took = requests(inventory, at_once=at_once)
                how = "at once" if at_once else "one by one"
                print(f"asked {how}: {sum(sent.values())} requests {dict(sent)}, {took:.1f} s in all")
            rounds = [measure(inventory, directory / "report.json") for _ in range(arguments.rounds)]
            if arguments.profile:
                profile(inventory)
        finally:
            server.stop()
    return report(rounds)


def report(rounds: Sequence[Statistics]) -> int:
    """Prints the figures; 1 if a goal was missed by the median."""
    middle = sorted(rounds, key=lambda one: one.seconds)[len(rounds) // 2]
    print(f"{'':<12}{'median':>10}{'all':>26}{'goal':>10}")
    print(
        f"{'seconds':<12}{middle.seconds:>10.1f}{' '.join(f'{one.seconds:.1f}' for one in rounds):>26}"
        f"{f'< {SECONDS:.0f}':>10}"
    )
    print(f"{'processor s':<12}{middle.processor:>10.1f}")
    print(f"{'memory, MB':<12}{middle.megabytes:>10.0f}{'':>26}{f'< {MEGABYTES:.0f}':>10}")
    for (tag, advisory), count in sorted(middle.states.items()):
        print(f"  {count:>7} tag {tag}, advisories {advisory}")
    return 0 if middle.seconds < SECONDS and middle.megabytes < MEGABYTES else 1


if __name__ == "__main__":
    sys.exit(main())
