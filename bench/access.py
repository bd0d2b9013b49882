"""What asking who somebody is costs: the same manifest, open and with a token, in one run.

    .venv/bin/python -m bench.access

Needs ``wrk``. Two registries, one without rules and one with users; rounds alternate between them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping

from tests.registry.access.support import As, guarded, nobody, of, token
from tests.support import RegistryServer, running_registry

from bench.servers import processor_seconds

GOAL = 1.1
"""The most processor time that is wanted, as a multiple of the open registry's."""

_RULES = """
[[rule]]
who = "alice"
repository = "bench/**"
actions = ["pull", "push"]
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.access", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        print("this needs wrk on the PATH", file=sys.stderr)
        return 2
    with running_registry() as plain, guarded(_RULES, auth="token-seconds = 3600") as guarded_one:
        measure(plain, guarded_one, arguments.rounds, arguments.seconds)
    return 0


def measure(plain: RegistryServer, asking: RegistryServer, rounds: int, seconds: int) -> None:
    for asker in (nobody(plain), of(asking, "alice")):
        push(asker)
    secret = token(asking, "repository:bench/small:pull", headers=of(asking, "alice").headers)["token"]
    cases: dict[str, tuple[RegistryServer, Mapping[str, str]]] = {
        "open": (plain, {}),
        "with a Bearer token": (asking, {"Authorization": f"Bearer {secret}"}),
        "with a password (Basic)": (asking, of(asking, "alice").headers),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    costs: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (server, headers) in cases.items():
            url = f"http://{server.host}/v2/bench/small/manifests/1"
            before = processor_seconds(server)
            rate, requests = load(url, seconds, headers)
            rates[name].append(rate)
            costs[name].append((processor_seconds(server) - before) / requests * 1e6)
    first = statistics.median(costs["open"])
    print(f"{'GET manifest by tag (wrk -t1 -c16)':<40}{'/s':>12}{'CPU, us each':>15}{'ratio':>8}{'goal':>9}")
    for name in cases:
        rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
        goal = "" if name == "open" else f"<= {GOAL}"
        print(f"  {name:<38}{rate:>12,.0f}{cost:>15.1f}{cost / first:>8.2f}{goal:>9}")


def load(url: str, seconds: int, headers: Mapping[str, str]) -> tuple[float, int]:
    """Requests a second, and in all, by ``wrk -t1 -c16``; none of them may be refused."""
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    output = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in output, output
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    total = re.search(r"(\d+) requests in", output)
    assert rate is not None, output
    assert total is not None, output
    return float(rate[1]), int(total[1])


def push(asking: As) -> None:
    answer = asking.push_image("bench/small", "1")
    assert answer.status == 201, answer.body


if __name__ == "__main__":
    sys.exit(main())
