"""Pulls while the registry collects and scrubs all the time, beside pulls while it does neither."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.backends import open_catalog
from tests.support import RegistryServer, descriptor, wait_until

from bench import servers
from bench.compare import Measure, Options
from bench.content import IMAGE, Repository, new_blobs
from bench.large import NAME, Body, push
from bench.load import Load, drive
from bench.requests import Loads
from digestry.catalog.job_states import COLLECTION, SCRUB
from digestry.model import media_types

LOSS = 0.10
"""How much slower pulls may be."""

_GARBAGE = 200
_HELD = 40
_HELD_SIZE = 16 << 20
_WARM = 1.0
_IDLE = """
[collection]
every = "off"
lease = "1s"
[scrub]
every = "off"
"""
_BUSY = """
[collection]
every = "0s"
lease = "1s"
[scrub]
every = "60s"
"""


@dataclass
class Loss:
    """One kind of pull: its loads without and with the upkeep, in turns."""

    what: str
    without: list[Load] = field(default_factory=list)
    during: list[Load] = field(default_factory=list)

    @property
    def share(self) -> float:
        """How much of the rate was lost, by the medians; below 0 if none was."""
        return 1 - self._ratio(statistics.median)

    @property
    def least(self) -> float:
        """The same by the best rounds: those that other work on the machine disturbed least."""
        return 1 - self._ratio(max)

    def _ratio(self, of: Callable[[Iterable[float]], float]) -> float:
        without, during = (of(load.rate for load in loads) for loads in (self.without, self.during))
        return during / without


@dataclass(frozen=True)
class Upkeep:
    """What came of it: the pulls, and how much was done meanwhile, so that it is known to have run."""

    losses: tuple[Loss, ...]
    collections: int
    removed: int
    scrubbed: int
    """In bytes."""


@dataclass(frozen=True)
class _Done:
    """How much upkeep a registry has seen so far."""

    collections: int = 0
    removed: int = 0
    scrubbed: int = 0


def upkeep(root: Path, repository: Repository, options: Options) -> Upkeep:
    """Pulls from a registry that has that repository, one worker; it is started again for each turn, so
    that what collects and scrubs is its own process, as nice to the worker as it ever is."""
    idle, busy = root.with_name("idle.toml"), root.with_name("busy.toml")
    idle.write_text(_IDLE, encoding="ascii")
    busy.write_text(_BUSY, encoding="ascii")
    loads = Loads(repository, options.seconds)
    pulls: dict[str, Measure] = {
        "GET manifest by tag": loads.by_tag(),
        "GET manifest by digest": loads.by_digest(),
        "GET blob of 1.6 KB": loads.blobs(),
    }
    losses = {what: Loss(what) for what in pulls}
    with servers.ours(root, "--config", str(idle)) as running:
        _push_large_image(running)
    for _ in range(options.rounds):
        with servers.ours(root, "--config", str(idle)) as running:
            # Blobs that no manifest names, for the collection to remove.
            drive(running.port, new_blobs("bench/left", patch=False), clients=4, seconds=60.0, most=_GARBAGE)
            _pull(running, repository, pulls, {what: loss.without for what, loss in losses.items()})
        with _at_work(root, busy) as running:
            _pull(running, repository, pulls, {what: loss.during for what, loss in losses.items()})
    done = _done(root)
    return Upkeep(tuple(losses.values()), done.collections, done.removed, done.scrubbed)


def _push_large_image(running: RegistryServer) -> None:
    """For the scrub to read: an image of many layers, so that the collection leaves them there."""
    config = running.push_blob(NAME, IMAGE.config)
    layers = []
    for _ in range(_HELD):
        body = Body(_HELD_SIZE)
        push(running, body, patch=False)
        layers.append(descriptor(media_types.OCI_LAYER, body.digest, body.size))
    running.push_manifest(
        NAME,
        "held",
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": descriptor(media_types.OCI_CONFIG, config, len(IMAGE.config)),
            "layers": layers,
        },
    )


def _pull(
    running: RegistryServer, repository: Repository, pulls: dict[str, Measure], into: dict[str, list[Load]]
) -> None:
    Loads(repository, _WARM).by_tag()(running)
    for what, pull in pulls.items():
        into[what].append(pull(running))


@contextlib.contextmanager
def _at_work(root: Path, busy: Path) -> Iterator[RegistryServer]:
    """A server that collects and scrubs: one collection has come to its end, and others follow."""
    before = _done(root).collections
    with servers.ours(root, "--config", str(busy)) as running:
        wait_until(lambda: _done(root).collections > before, what="a collection")
        yield running


def _done(root: Path) -> _Done:
    catalog = open_catalog(root)
    try:
        collected, scrubbed = catalog.jobs.state(COLLECTION), catalog.jobs.state(SCRUB)
    finally:
        catalog.close()
    return _Done(
        collections=collected.state.get("runs", 0) if collected else 0,
        removed=collected.state.get("blobs", 0) if collected else 0,
        scrubbed=scrubbed.state.get("bytes", 0) if scrubbed else 0,
    )
