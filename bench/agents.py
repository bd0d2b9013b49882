"""Agents that report, and questions about millions of runs.

``python -m bench.agents`` starts a registry, has simulated hosts report to it, and prints how many reports a
second it took, and how much memory its processes had. Then it fills a catalog with ``--runs`` runs, and
prints how long each question takes. ``--postgresql`` uses a database of a server that it starts.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import text
from tests.postgresql import running_cluster
from tests.support import start_registry

from bench.servers import megabytes
from digestry.backend import StoreLocations, open_backend
from digestry.catalog import clock, dialect
from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet.run_pages import RunFilter
from digestry.catalog.fleet.selection import ImageFilter
from digestry.catalog.fleet_schema import fleet_runs
from digestry.catalog.migrations.versions.v0015_observations import count_runs
from digestry.model.digest import Digest

CONTAINERS = 50
"""On each simulated host."""
IMAGES = 2000
SOURCES = 10_000
RUNNING = 500_000
LAYER_EVERY = 50
"""One of so many images has the layer that is asked for."""

_CLIENTS = 8
_CHANGES = 0.1
_DAY = 86_400 * clock.SECOND
_YEAR = 365 * _DAY
_LENGTH = f"CASE WHEN i % 1024 = 0 THEN {30 * _DAY} WHEN i % 64 = 0 THEN {2 * _DAY} ELSE 3600000000 END"
"""How long a run is: an hour, one of 64 two days, and one of 1,024 a month."""
_LONGER_THAN = "CASE WHEN i % 1024 = 0 THEN 16 WHEN i % 64 = 0 THEN 1 END"
LAYER = Digest.of(b"layer")
DIGEST = Digest.of(b"image")
VULNERABILITY = "CVE-2026-0001"


@dataclass
class Host:
    """A simulated host: its agent's number, and the number of its next entry."""

    number: int
    next: int = 1
    starts: int = 0

    def report(self, entries: list[dict[str, Any]]) -> bytes:
        now = datetime.datetime.now(datetime.UTC).isoformat()
        first, self.next = self.next, self.next + len(entries)
        body = {
            "agent": f"{self.number:032x}", "place": f"host-{self.number}", "version": "1", "interval": 60,
            "sentAt": now, "first": first, "entries": entries,
            "sources": [{"source": "docker", "confirmedAt": now}],
        }  # fmt: skip
        if entries:
            body["images"] = {str(number): _image(number) for number in range(CONTAINERS)}
        return json.dumps(body).encode()

    def run(self, container: int) -> dict[str, Any]:
        self.starts += 1
        now = datetime.datetime.now(datetime.UTC).isoformat()
        return {
            "container": f"{self.number:032x}{container:032x}", "instance": str(self.starts),
            "image": str(container % CONTAINERS), "startedAt": now, "name": f"app-{container}",
        }  # fmt: skip

    def first_report(self) -> bytes:
        now = datetime.datetime.now(datetime.UTC).isoformat()
        runs = [self.run(container) for container in range(CONTAINERS)]
        return self.report([{"type": "snapshot", "source": "docker", "id": "1", "at": now, "runs": runs}])

    def later_report(self) -> bytes:
        """A heartbeat, or with some luck a container that was replaced."""
        if random.random() > _CHANGES:
            return self.report([])
        run = self.run(random.randrange(CONTAINERS))
        stopped = {
            "type": "stopped",
            "source": "docker",
            "container": run["container"],
            "at": run["startedAt"],
        }
        return self.report([stopped, {"type": "started", "source": "docker", "run": run}])


def _image(number: int) -> dict[str, Any]:
    digest = str(Digest.of(b"image %d" % number))
    return {
        "reference": f"registry.example/app-{number}:1",
        "claims": [{"digest": digest, "kind": "manifest"}],
    }


def intake(hosts: int, seconds: float, database: str | None) -> None:
    """Print how many reports of ``hosts`` a registry takes a second."""
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "registry.toml"
        config.write_text("" if database is None else f'[storage]\ndatabase = "{database}"\n')
        server = start_registry(Path(directory) / "root", "--config", str(config), "--workers", "1")
        try:
            everyone = [Host(number) for number in range(hosts)]
            began = time.monotonic()
            took = _send(server.host, everyone, Host.first_report, None)
            first = hosts / (time.monotonic() - began)
            took = _send(server.host, everyone, Host.later_report, seconds)
            millis = statistics.quantiles(took, n=100)[98] * 1000 if len(took) > 1 else 0.0
            print(
                f"{hosts:6d} hosts: first reports {first:6.0f}/s ({CONTAINERS} containers each),"
                f" then {len(took) / seconds:6.0f}/s, 99 % within {millis:.1f} ms,"
                f" {megabytes(server):.0f} MB",
                flush=True,
            )
        finally:
            server.stop()


def _send(
    address: str, hosts: list[Host], body: Callable[[Host], bytes], seconds: float | None
) -> list[float]:
    """Send a report of each host, or for ``seconds`` of any; return how long each took."""
    end = None if seconds is None else time.monotonic() + seconds
    took: list[float] = []

    def client(mine: list[Host]) -> None:
        connection = http.client.HTTPConnection(address)
        while mine:
            for host in mine:
                content = body(host)
                began = time.monotonic()
                connection.request("POST", "/v2/_digestry/fleet/reports", content)
                answer = connection.getresponse()
                if answer.status != 200:
                    raise SystemExit(f"{answer.status}: {answer.read()!r}")
                answer.read()
                took.append(time.monotonic() - began)
                if end is not None and time.monotonic() > end:
                    return
            if end is None:
                return

    threads = [threading.Thread(target=client, args=(hosts[n::_CLIENTS],)) for n in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def fill(catalog: Catalog, runs: int, now: int) -> None:
    """Make ``runs`` runs of a year, of which the last :data:`RUNNING` still run."""
    with catalog._database.write() as connection:
        execute = connection.exec_driver_sql
        numbers = (
            "WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
        )
        execute(
            "INSERT INTO fleet_agents (number, id, place, actor, version, interval, first_at, last_at,"
            " sequence, clock_offset, hour, hour_runs, hour_images)"
            " VALUES (1, 'a', 'host-1', 'bench', '1', 60, 0, 0, 1, 0, 0, 0, 0)"
        )
        execute(
            "INSERT INTO fleet_sources (number, place, source, agent, first_at, confirmed_at, running,"
            " problem) "
            + numbers.format(SOURCES)
            + f"SELECT i, 'host-' || i, 'docker', 1, 0, {now}, 0, '' FROM n"
        )
        execute(
            "INSERT INTO fleet_images (number, hash, document, reference, host, repository, digest, kind,"
            " home, related_at, first_at, state) "
            + numbers.format(IMAGES)
            + "SELECT i, 'h' || i, '{}', 'registry.example/app-' || i || ':1', 'registry.example',"
            f" 'app-' || i, '{Digest.of(b'any')}', 'manifest', '', {now}, 0, 'unjudged' FROM n"
        )
        execute(
            "INSERT INTO fleet_image_digests (digest, image, kind) "
            + numbers.format(IMAGES // LAYER_EVERY)
            + f"SELECT '{LAYER}', i * {LAYER_EVERY}, 'layer' FROM n"
        )
        execute(
            "INSERT INTO fleet_image_digests (digest, image, kind) "
            f"VALUES ('{DIGEST}', {IMAGES // 2}, 'manifest')"
        )
        execute(
            "INSERT INTO fleet_image_vulnerabilities (vulnerability, image, status) "
            + numbers.format(IMAGES // LAYER_EVERY)
            + f"SELECT '{VULNERABILITY}', i * {LAYER_EVERY}, 'affected' FROM n"
        )
        for index in fleet_runs.indexes:
            index.drop(connection)
    step = 250_000
    for start in range(0, runs, step):
        with catalog._database.write() as connection:
            started = f"({now} - {_YEAR} + (i + {start}) * {_YEAR // runs})"
            runs_on = f"i + {start} > {runs - RUNNING} OR {started} + {_LENGTH} > {now}"
            ended = f"CASE WHEN {runs_on} THEN NULL ELSE {started} + {_LENGTH} END"
            longer = f"CASE WHEN {runs_on} THEN NULL ELSE {_LONGER_THAN} END"
            dialect.of(connection).lift_limits(connection)
            statement = (
                "INSERT INTO fleet_runs (source, container, instance, image, agent, name, namespace, node,"
                " workload, started_at, ended_at, ended_after, longer_than) "
                f"WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL"
                f" SELECT i + 1 FROM n WHERE i < {step}) "
                f"SELECT 1 + (i + {start}) * 7919 % {SOURCES}, 'c' || (i + {start}), '1',"
                f" 1 + (i + {start}) * 104729 % {IMAGES}, 1, 'app', '', '', '', {started}, {ended}, {ended},"
                f" {longer} FROM n"
            )
            connection.execute(text(statement))
    # Made of rows that are there: entries one by one, in no order, take ten times as long.
    for index in sorted(fleet_runs.indexes, key=lambda index: str(index.name)):
        with catalog._database.write() as connection:
            dialect.of(connection).lift_limits(connection)
            index.create(connection)
    with catalog._database.write() as connection:
        dialect.of(connection).lift_limits(connection)
        counted = "SELECT count(*) FROM fleet_runs WHERE source = fleet_sources.number AND ended_at IS NULL"
        connection.exec_driver_sql(f"UPDATE fleet_sources SET running = ({counted})")
        count_runs(connection)


def questions(runs: int, database: str | None, directory: Path) -> None:
    """Print how long each question about so many runs takes, the median of three.

    A ``directory`` that has such runs is asked as it is.
    """
    directory.mkdir(parents=True, exist_ok=True)
    catalog = open_backend(directory, stores=StoreLocations(database=database)).open_catalog()
    catalog.migrate()
    made = directory / f"{runs}-runs"
    if not made.exists():
        began = time.monotonic()
        fill(catalog, runs, clock.now())
        with catalog._database.write() as connection:
            dialect.of(connection).lift_limits(connection)
            connection.exec_driver_sql("ANALYZE")
        print(
            f"{runs} runs made in {time.monotonic() - began:.0f} s, {catalog.size() / 1e9:.1f} GB", flush=True
        )
        made.touch()
    with catalog._database.read() as connection:
        now = connection.exec_driver_sql("SELECT max(confirmed_at) FROM fleet_sources").scalar_one()
    for what, ask in _asked(catalog, now).items():
        times = []
        for _ in range(3):
            began = time.monotonic()
            ask()
            times.append(time.monotonic() - began)
        print(
            f"  {what:40} {statistics.median(times) * 1000:8.1f} ms (first {times[0] * 1000:.0f})", flush=True
        )
    catalog.close()


def _asked(catalog: Catalog, now: int) -> dict[str, Callable[[], object]]:
    fleet = catalog.fleet
    half, weeks = now - _YEAR // 2, now - 50 * 7 * _DAY
    cve = ImageFilter(vulnerability=VULNERABILITY)
    by = {"a layer": ImageFilter(digest=LAYER), "a digest": ImageFilter(digest=DIGEST), "a CVE": cve}
    asked: dict[str, Callable[[], object]] = {"who runs": lambda: fleet.runs(now=now, limit=100)}
    for what, images in by.items():
        for when, choice in {
            "runs": RunFilter(images),
            "ever ran": RunFilter(images, ever=True),
            "half a year ago ran": RunFilter(images, at=half),
            "50 weeks ago ran": RunFilter(images, at=weeks),
        }.items():
            asked[f"who {when} {what}"] = partial(fleet.runs, choice, now=now, limit=100)
        asked[f"the timeline of {what}"] = partial(fleet.timeline, RunFilter(images), now=now)
    for when, at in {"half a year": half, "50 weeks": weeks}.items():
        asked[f"who ran anything {when} ago"] = partial(fleet.runs, RunFilter(at=at), now=now, limit=100)
    for what, length in {"an hour": _DAY // 24, "a week": 7 * _DAY}.items():
        asked[f"what changed in {what}"] = partial(
            fleet.changes, since=half, until=half + length, now=now, limit=100
        )
    asked["silent places"] = partial(fleet.places, now=now, limit=100, silent=True)
    asked["the summary"] = partial(fleet.summary, now=now)
    asked["the timeline of everything"] = partial(fleet.timeline, RunFilter(), now=now)
    place = f"host-{SOURCES // 2}"
    asked["the timeline of a place"] = partial(fleet.timeline, RunFilter(place=place), now=now)
    for what, days in {"day": 1, "week": 7, "month": 30, "year": 365}.items():
        asked[f"the states of the last {what}"] = partial(
            fleet.state_history, since=now - days * _DAY, now=now
        )
    return asked


@contextlib.contextmanager
def _database(*, postgresql: bool) -> Iterator[Callable[[], str | None]]:
    if not postgresql:
        yield lambda: None
        return
    with running_cluster() as cluster:
        yield cluster.new_database


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--hosts", type=int, nargs="*", default=[10, 1000, 10_000])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=10_000_000)
    parser.add_argument("--directory", type=Path, help="where the runs are made, and kept (SQLite)")
    options = parser.parse_args()
    with _database(postgresql=options.postgresql) as new:
        for hosts in options.hosts:
            intake(hosts, options.seconds, new())
        if options.runs:
            with contextlib.ExitStack() as stack:
                directory = options.directory
                if directory is None:
                    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                questions(options.runs, new(), directory)


if __name__ == "__main__":
    main()
