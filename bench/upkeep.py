"""Pulls while the registry collects and scrubs all the time, beside pulls while it does neither."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.support import RegistryServer, wait_until

from bench import servers
from bench.compare import Measure, Options
from bench.content import Repository, fill_ours, new_blobs
from bench.large import Body, push
from bench.load import Load, drive
from bench.requests import Loads
from digestry.catalog.catalog import Catalog
from digestry.catalog.jobs import COLLECTION, SCRUB
from digestry.registry import config, server
from digestry.registry.maintenance import Maintenance

LOSS = 0.10
"""How much slower pulls may be."""

_GARBAGE = 200
_HELD = 5
_SERVED = """
[collection]
every = "off"
lease = "1s"
[scrub]
every = "off"
"""
_WORKING = _SERVED.replace('every = "off"\nlease', 'every = "0s"\nlease').replace('"off"', '"60s"')


@dataclass
class Loss:
    """One kind of pull: its loads without and with the upkeep, in turns."""

    what: str
    without: list[Load] = field(default_factory=list)
    during: list[Load] = field(default_factory=list)

    @property
    def share(self) -> float:
        """How much of the rate was lost, by the medians; below 0 if none was."""
        with_, without = (
            statistics.median(load.rate for load in loads) for loads in (self.during, self.without)
        )
        return 1 - with_ / without


@dataclass(frozen=True)
class Upkeep:
    """What came of it: the pulls, and how much was done meanwhile, so that it is known to have run."""

    losses: tuple[Loss, ...]
    collections: int
    removed: int
    scrubbed: int
    """In bytes."""


def upkeep(directory: Path, tags: int, options: Options) -> Upkeep:
    """The work is done by the process that does it for a server, nice as it is, started and ended here:
    so one server can be measured in both states."""
    root = directory / "upkeep"
    served, working = directory / "served.toml", directory / "working.toml"
    served.write_text(_SERVED, encoding="ascii")
    working.write_text(_WORKING, encoding="ascii")
    loaded = config.load(working, {"root": root, "allow_anonymous": True})
    with servers.ours(root, "--config", str(served)) as running:
        repository = Repository("bench/kept", tags)
        fill_ours(running, repository)
        for _ in range(_HELD):
            push(running, Body(options.upload), patch=False)
        loads = Loads(repository, options.seconds)
        pulls: dict[str, Measure] = {
            "GET manifest by tag": loads.by_tag(),
            "GET manifest by digest": loads.by_digest(),
            "GET blob of 1.6 KB": loads.blobs(),
        }
        losses = {what: Loss(what) for what in pulls}
        for _ in range(options.rounds):
            for what, pull in pulls.items():
                losses[what].without.append(pull(running))
            _leave_garbage(running)
            with _at_work(loaded):
                for what, pull in pulls.items():
                    losses[what].during.append(pull(running))
        catalog = Catalog(root)
        collected = catalog.jobs.state(COLLECTION)
        scrubbed = catalog.jobs.state(SCRUB)
        catalog.close()
    assert collected is not None
    return Upkeep(
        tuple(losses.values()),
        collected.state["runs"],
        collected.state["blobs"],
        0 if scrubbed is None else scrubbed.state.get("bytes", 0),
    )


def _leave_garbage(running: RegistryServer) -> None:
    """Blobs that no manifest names, for the collection to remove."""
    drive(running.port, new_blobs("bench/left", patch=False), clients=4, seconds=60.0, most=_GARBAGE)


@contextlib.contextmanager
def _at_work(loaded: config.RegistryConfig) -> Iterator[None]:
    """Collection and scrub run, one collection having come to its end already."""
    catalog = Catalog(loaded.root)

    def runs() -> int:
        state = catalog.jobs.state(COLLECTION)
        return 0 if state is None else int(state.state.get("runs", 0))

    before = runs()
    work = Maintenance(partial(server.jobs, loaded), {"version": 1, "disable_existing_loggers": False})
    work.start()
    try:
        wait_until(lambda: runs() > before, seconds=60, what="a collection")
        yield
    finally:
        work.stop()
        catalog.close()
