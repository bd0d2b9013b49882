"""How long each page takes to come: with 10 and 100,000 tags, and 10,000 repositories.

    .venv/bin/python -m bench.pages

One browser, which has a connection of its own for each page; the figure is the median of its requests. A page
is rendered, not taken from a cache; the first request of each kind is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time

from tests.support import RegistryServer, running_registry

from bench.content import Repository, fill_ours, put_blob, work_off

GOAL = 250.0
"""The most milliseconds that a page may take."""

_BLOB = b"a blob"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tags", type=int, default=100_000)
    parser.add_argument("--repositories", type=int, default=10_000)
    arguments = parser.parse_args()
    few, many = Repository.of(10), Repository.of(arguments.tags)
    with running_registry() as server:
        began = time.monotonic()
        for repository in (few, many):
            fill_ours(server, repository)
        fill_repositories(server, arguments.repositories)
        print(f"filled in {time.monotonic() - began:.0f} s")
        missed = [
            what
            for what, path in pages(server, few, many).items()
            if not measure(server, what, path, arguments.rounds)
        ]
    print("\nEvery goal was met." if not missed else f"\nNot met: {', '.join(missed)}")
    return 0


def fill_repositories(server: RegistryServer, wanted: int) -> None:
    """Make so many repositories, with a blob each."""
    work_off(server, [put_blob(f"bench/r{number:05}", _BLOB) for number in range(wanted)])


def pages(server: RegistryServer, few: Repository, many: Repository) -> dict[str, str]:
    """The pages that are measured, by what they are."""
    found = {"repositories": "/", "repositories, filtered": "/?filter=r0999", "search": "/search?q=r0999"}
    for repository in (few, many):
        last = repository.tag(repository.tags - 1)
        digest = server.request("HEAD", f"/v2/{repository.name}/manifests/{last}").headers[
            "docker-content-digest"
        ]
        found |= {
            f"tags, the newest first, of {repository.tags:,}": f"/r/{repository.name}",
            f"tags by name, in the middle, of {repository.tags:,}": (
                f"/r/{repository.name}?order=name&after={repository.tag(repository.tags // 2)}"
            ),
            f"tags, filtered, of {repository.tags:,}": f"/r/{repository.name}?filter={last[-4:]}",
            f"a tag, of {repository.tags:,}": f"/r/{repository.name}:{last}",
            f"a digest, of {repository.tags:,} tags": f"/r/{repository.name}@{digest}",
            f"search for a tag, of {repository.tags:,}": f"/search?q={last[:9]}",
            f"search for a digest, of {repository.tags:,} tags": f"/search?q={digest[:19]}",
        }
    return found


def measure(server: RegistryServer, what: str, path: str, rounds: int) -> bool:
    """Print how long a page takes; return whether that is within the goal."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        answer = server.request("GET", path)
        times.append((time.perf_counter() - began) * 1000)
        assert answer.status == 200, (path, answer.status)
    median, slowest = statistics.median(times[1:]), max(times[1:])
    verdict = "met" if median <= GOAL else "NOT MET"
    size = len(answer.body) / 1000
    print(f"{what:45} {median:7.1f} ms   slowest {slowest:7.1f} ms   {size:5.0f} KB   {verdict}")
    return median <= GOAL


if __name__ == "__main__":
    raise SystemExit(main())
