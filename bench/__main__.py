"""digestry beside docker-registry 2.8.2 (distribution), on this machine, in this run.

Each figure is the median of interleaved rounds: first the one, then the other, then again, so that
what else the machine does hits both. Needs ``docker-registry`` and ``wrk``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support import RegistryServer, digestry

from bench import large, listing, nodes, requests, servers, upkeep
from bench.compare import OURS, THEIRS, Line, Options, table
from bench.content import Repository, fill_ours, fill_peer

QUICK = Options(
    rounds=1, seconds=1.0, tags=(10, 100, 1_000), large=64 << 20, uploads=20, upload=16 << 20, walks=2
)
FULL_UPLOAD = 1 << 30
_START_GOAL = 100.0


@dataclass
class Report:
    """What was measured: printed as it comes, and kept for ``--json``."""

    raw: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def lines(self, title: str, lines: list[Line]) -> None:
        table(title, lines)
        self.raw[title] = [line.raw() for line in lines]
        self.missed += [
            f"{line.what}, {line.setting}: {line.ratio:.1f}, not {line.goal:g}"
            for line in lines
            if line.verdict == "NOT MET"
        ]

    def judge(self, met: bool, what: str) -> str:
        if not met:
            self.missed.append(what)
        return "met" if met else "NOT MET"

    def end(self) -> None:
        print("\nEvery goal was met." if not self.missed else "\nNot met:")
        for what in self.missed:
            print(f"  {what}")


@dataclass
class Bench:
    """The servers, filled alike: digestry with one worker and with one for each core, docker-registry
    with one core and with all."""

    options: Options
    report: Report
    directory: Path
    repositories: tuple[Repository, ...] = ()
    one: tuple[RegistryServer, RegistryServer] = field(init=False)
    every: tuple[RegistryServer, RegistryServer] = field(init=False)

    @property
    def pair(self) -> dict[str, RegistryServer]:
        """digestry with one worker, and docker-registry as it starts when nothing is said: with all cores."""
        return {OURS: self.one[0], THEIRS: self.every[1]}

    @contextlib.contextmanager
    def running(self, sizes: tuple[int, ...]) -> Iterator[None]:
        """All four, with a repository of each of so many tags."""
        self.repositories = tuple(Repository.of(size) for size in sizes)
        root, peer = self.directory / "one", self.directory / "peer"
        with servers.ours(root) as server, servers.peer(peer) as theirs:
            for repository in self.repositories:
                took = []
                for fill, each in ((fill_ours, server), (fill_peer, theirs)):
                    began = time.perf_counter()
                    fill(each, repository)
                    took.append(time.perf_counter() - began)
                print(
                    f"{repository.tags:,} tags: {took[0]:.1f} s by digestry's API, {took[1]:.1f} s as files"
                )
        shutil.copytree(root, self.directory / "every")
        cores = os.cpu_count() or 1
        with (
            servers.ours(root) as one,
            servers.ours(self.directory / "every", "--workers", str(cores)) as every,
            servers.peer(peer, cores=1) as peer_one,
            servers.peer(peer) as peer_every,
        ):
            self.one, self.every = (one, peer_one), (every, peer_every)
            yield


def cores(bench: Bench) -> None:
    lines = requests.by_cores(bench.one, bench.every, bench.repositories[0], bench.options)
    what = f"{requests.CLIENTS} clients, {bench.repositories[0].tags} tags"
    bench.report.lines(f"Small requests, {what} (workers : GOMAXPROCS)", lines)


def clients(bench: Bench) -> None:
    for what, lines in requests.by_clients(bench.pair, bench.repositories[0], bench.options).items():
        bench.report.lines(f"{what}, by clients (one worker : all cores)", lines)


def tags(bench: Bench) -> None:
    for what, lines in requests.by_tags(bench.pair, bench.repositories, bench.options).items():
        bench.report.lines(f"{what}, by tags (one worker : all cores)", lines)


def pages(bench: Bench) -> None:
    repository = bench.repositories[-1]
    title = f"All {repository.tags:,} tags in pages of 100"
    found = listing.listings(bench.pair, repository, bench.options.walks)
    print(f"\n{title}\n  {'':<18}{'pages':>8}{'median ms':>12}{'p99 ms':>9}{'slowest ms':>12}{'all, s':>9}")
    for name, one in found.items():
        verdict = ""
        if name == OURS:
            slow = one.slowest / one.median
            verdict = bench.report.judge(
                slow <= listing.SLOW or one.slowest <= listing.SLOW_MS,
                f"{title}: the slowest takes {slow:.1f} times the median",
            )
        print(
            f"  {name:<18}{len(one.pages):>8}{one.median:>12.2f}{one.p99:>9.2f}{one.slowest:>12.2f}"
            f"{one.total / 1000:>9.2f}  {verdict}".rstrip()
        )
    bench.report.raw[title] = {name: asdict(one) for name, one in found.items()}


def blobs(bench: Bench) -> None:
    bench.report.lines("Large blobs (one worker : all cores)", large.large(bench.pair, bench.options))


def uploads(bench: Bench) -> None:
    options = bench.options
    title = f"{options.uploads} uploads of {options.upload >> 20} MB at once, as docker pushes them"
    head = f"{'before, MB':>12}{'most MB in each fifth of the time':>38}{'later':>8}{'GB/s':>7}"
    print(f"\n{title}\n  {'':<18}{head}")
    raw = {}
    for name, server in bench.pair.items():
        grown = large.at_once(server, options)
        raw[name] = asdict(grown)
        verdict = ""
        if name == OURS:
            verdict = bench.report.judge(
                grown.ratio <= large.FLAT, f"{title}: memory grew to {grown.ratio:.2f} of the beginning's"
            )
        fifths = " ".join(f"{amount:6.0f}" for amount in grown.fifths)
        print(
            f"  {name:<18}{grown.before:>12.0f}{fifths:>38}{grown.ratio:>8.2f}"
            f"{grown.bytes / grown.seconds / 1e9:>7.2f}  {verdict}".rstrip()
        )
    bench.report.raw[title] = raw


def care(bench: Bench) -> None:
    title = "Pulls while collection and scrub run all the time (one worker)"
    repository = Repository.of(bench.options.tags[-1])
    root = bench.directory / "one"
    if repository not in bench.repositories:
        with servers.ours(root) as server:
            fill_ours(server, repository)
    found = upkeep.upkeep(root, repository, bench.options)
    print(
        f"\n{title}\n  {'':<24}{'without':>12}{'p99 ms':>9}{'during':>12}{'p99 ms':>9}{'loss':>8}{'best':>8}"
    )
    for one in found.losses:
        verdict = bench.report.judge(
            one.share <= upkeep.LOSS, f"{one.what} while collection and scrub run: {one.share:.0%} slower"
        )
        figures = "".join(
            f"{statistics.median(load.rate for load in loads):>10,.0f}/s"
            f"{statistics.median(load.p99 for load in loads):>9.1f}"
            for loads in (one.without, one.during)
        )
        print(f"  {one.what:<24}{figures}{one.share:>8.1%}{one.least:>8.1%}  {verdict}")
    print(
        f"  meanwhile: {found.collections} collections, {found.removed:,} blobs removed,"
        f" {found.scrubbed / 1e6:,.0f} MB hashed again"
    )
    bench.report.raw[title] = asdict(found)


def start(bench: Bench) -> None:
    environment = {**os.environ, "DIGESTRY_HOME": str(bench.directory / "home")}
    tree = bench.directory / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    pack = digestry("pack", tree, "--tag", "localhost:5000/bench/packed:1")
    subprocess.run(pack, env=environment, check=True, capture_output=True)
    took = []
    for _ in range(15):
        began = time.perf_counter()
        subprocess.run(digestry("images"), env=environment, check=True, capture_output=True)
        took.append((time.perf_counter() - began) * 1000)
    middle = statistics.median(took)
    verdict = bench.report.judge(middle < _START_GOAL, f"digestry images takes {middle:.0f} ms")
    print(f"\ndigestry images, start to end: {middle:.0f} ms (goal: under {_START_GOAL:.0f})  {verdict}")
    bench.report.raw["digestry images, ms"] = took


def many_nodes(bench: Bench) -> None:
    title = "A node on PostgreSQL and S3, docker-registry on the same S3 store (one worker : all cores)"
    if lacking := nodes.lacking():
        print(f"\n{title}\n  not measured: {' and '.join(lacking)} cannot be found")
        return
    report, options = bench.report, bench.options
    with nodes.running(bench.directory) as pair:
        report.lines(title, nodes.small(pair, options))
        report.lines(f"{title}: large blobs", nodes.large_blobs(pair, options))
        print(f"\n{title}: memory\n  {'':<36}{'before, MB':>12}{'most, MB':>10}{'more':>7}{'GB/s':>7}")
        raw = {}
        for what, name, grown in nodes.memory(pair, options):
            verdict = ""
            if name == OURS:
                verdict = report.judge(
                    grown.more <= nodes.MORE_MEMORY, f"{what}: {grown.more:.0f} MB more than before"
                )
            raw[f"{what}, {name}"] = asdict(grown)
            print(
                f"  {what:<20}{name:<16}{grown.before:>12.0f}{max(grown.fifths):>10.0f}{grown.more:>7.0f}"
                f"{grown.bytes / grown.seconds / 1e9:>7.2f}  {verdict}".rstrip()
            )
        report.raw[f"{title}: memory"] = raw


PARTS: dict[str, Callable[[Bench], None]] = {
    "cores": cores,
    "clients": clients,
    "tags": tags,
    "pages": pages,
    "blobs": blobs,
    "uploads": uploads,
    "care": care,
    "start": start,
    "nodes": many_nodes,
}
_FILLED = frozenset({"tags", "pages"})
_ALONE = frozenset({"care", "start", "nodes"})


def run(parts: list[str], bench: Bench) -> None:
    """Runs the parts; those that need no servers of the comparison come last."""
    together = [part for part in PARTS if part in parts and part not in _ALONE]
    if together:
        sizes = bench.options.tags if _FILLED & set(together) else bench.options.tags[:1]
        with bench.running(sizes):
            for part in together:
                PARTS[part](bench)
    for part in sorted(_ALONE & set(parts)):
        PARTS[part](bench)


def options_of(arguments: argparse.Namespace) -> Options:
    """What the command line asks for."""
    chosen = asdict(QUICK if arguments.quick else Options())
    chosen |= {
        name: value for name in ("rounds", "seconds") if (value := getattr(arguments, name)) is not None
    }
    if arguments.full:
        chosen["upload"] = FULL_UPLOAD
    return Options(**chosen)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"only these parts: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="one short round of less of everything")
    parser.add_argument("--full", action="store_true", help="uploads at once of 1 GB each: 40 GB are written")
    parser.add_argument("--rounds", type=int, help="interleaved rounds of each figure")
    parser.add_argument("--seconds", type=float, help="of load for each request rate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all the figures there")
    parser.add_argument("--directory", type=Path, help="where the registries' files go; a temporary one")
    arguments = parser.parse_args()
    unknown = set(arguments.part) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    lacking = [name for name in (servers.PEER, "wrk") if shutil.which(name) is None]
    if lacking:
        print(f"make bench needs {' and '.join(lacking)} on the PATH", file=sys.stderr)
        return 2
    report = Report()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="digestry-bench-", dir=arguments.directory) as name:
        run(arguments.part or list(PARTS), Bench(options_of(arguments), report, Path(name)))
    report.end()
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{time.perf_counter() - began:.0f} s; {os.cpu_count()} cores, load now {load}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.raw, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
