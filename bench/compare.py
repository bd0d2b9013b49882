"""Comparisons: interleaved rounds of the same load on each server, and what came of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support import RegistryServer

from bench.load import Load
from bench.servers import MemoryWatch, processor_seconds

OURS, THEIRS = "digestry", "docker-registry"
_BETWEEN = 0.25

Measure = Callable[[RegistryServer], Load]


@dataclass(frozen=True)
class Options:
    """How long, and how much. ``tags`` are the sizes of the repositories."""

    rounds: int = 3
    seconds: float = 2.0
    tags: tuple[int, ...] = (10, 1_000, 100_000)
    large: int = 200 << 20
    uploads: int = 20
    upload: int = 128 << 20
    walks: int = 3


@dataclass
class Result:
    """One server's rounds. ``megabytes`` is the most memory seen meanwhile, ``processor`` the seconds of the
    processor that its processes took in all."""

    loads: list[Load] = field(default_factory=list)
    megabytes: float = 0.0
    processor: float = 0.0

    @property
    def rate(self) -> float:
        return statistics.median(load.rate for load in self.loads)

    @property
    def p50(self) -> float:
        return statistics.median(load.p50 for load in self.loads)

    @property
    def p99(self) -> float:
        return statistics.median(load.p99 for load in self.loads)

    @property
    def refused(self) -> float:
        return max(load.refused for load in self.loads)

    @property
    def processor_ms(self) -> float:
        """Milliseconds of the processor for each answer: the other work of a machine does not count."""
        pieces = sum(load.pieces for load in self.loads)
        return self.processor / pieces * 1000 if pieces else 0.0


@dataclass
class Line:
    """One comparison. ``goal`` is the least ratio of the rates that is wanted."""

    what: str
    setting: str
    unit: str
    ours: Result
    theirs: Result
    goal: float | None = None

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return _ratio(self.ours.rate, self.theirs.rate)

    @property
    def ratios(self) -> list[float]:
        """Of each round."""
        pairs = zip(self.ours.loads, self.theirs.loads, strict=True)
        return [_ratio(mine.rate, its.rate) for mine, its in pairs]

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return "met" if self.ratio >= self.goal else "NOT MET"

    def raw(self) -> dict[str, Any]:
        """Everything, for ``--json``."""
        sides = {
            name: {
                "megabytes": round(result.megabytes, 1),
                "processor_ms": result.processor_ms,
                "rounds": [
                    {"rate": load.rate, "p50_ms": load.p50, "p99_ms": load.p99, "refused": load.refused}
                    for load in result.loads
                ],
            }
            for name, result in ((OURS, self.ours), (THEIRS, self.theirs))
        }
        return {
            "what": self.what,
            "setting": self.setting,
            "unit": self.unit,
            "goal": self.goal,
            "ratio": self.ratio,
            "ratios": self.ratios,
            **sides,
        }


def _ratio(mine: float, its: float) -> float:
    return mine / its if its else math.inf  # not one answer in all the time


def measure(servers: Mapping[str, RegistryServer], rounds: int, load: Measure) -> dict[str, Result]:
    """Puts ``load`` on each server in turn, so many times over."""
    results = {name: Result() for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            before = processor_seconds(server)
            with MemoryWatch(server, _BETWEEN) as memory:
                results[name].loads.append(load(server))
            results[name].processor += processor_seconds(server) - before
            results[name].megabytes = max(results[name].megabytes, memory.peak)
    return results


def table(title: str, lines: Sequence[Line]) -> None:
    """Prints comparisons side by side."""
    width = max(len(line.what) for line in lines)
    aside = max(len(line.setting) for line in lines)
    print(f"\n{title}")
    print(
        f"  {'':<{width + aside + 2}}{OURS:>35}{THEIRS:>37}\n"
        f"  {'':<{width + aside + 2}}{'rate':>12}{'p99 ms':>9}{'CPU ms':>8}{'MB':>6}  "
        f"{'rate':>12}{'p99 ms':>9}{'CPU ms':>8}{'MB':>6}{'ratio':>8}{'(of each round)':>18}{'goal':>7}"
    )
    for line in lines:
        spread = f"({min(line.ratios):.1f} to {max(line.ratios):.1f})" if len(line.ratios) > 1 else ""
        goal = "" if line.goal is None else f"{line.goal:g}"
        print(
            f"  {line.what:<{width}}  {line.setting:<{aside}}{_side(line.ours, line.unit)}  "
            f"{_side(line.theirs, line.unit)}{line.ratio:>8.1f}{spread:>18}{goal:>7}  {line.verdict}".rstrip()
        )
        for name, result in ((OURS, line.ours), (THEIRS, line.theirs)):
            if result.refused:
                print(f"    ({name} refused {result.refused:.1%} of these)")


def _side(result: Result, unit: str) -> str:
    rate = f"{result.rate:,.0f}" if result.rate >= 100 else f"{result.rate:.2f}"
    latency = f"{result.p99:,.1f}" if result.p99 else ""
    processor = f"{result.processor_ms:,.2f}" if result.processor_ms else ""
    return f"{rate + ' ' + unit:>12}{latency:>9}{processor:>8}{result.megabytes:>6.0f}"
