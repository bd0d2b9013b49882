"""The observer's state, which it stores for all nodes: counts for the metrics. It prunes old spans, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.job_states import JobState
from digestry.coordination.protocol import FencedLock
from digestry.model.json_types import prepared
from digestry.observer.checks import Checks
from digestry.registry.config import RegistryConfig
from digestry.registry.observability.observation_metrics import NAME, ObservationCounts
from digestry.registry.observed_targets import Target

__all__ = ["ObserverState"]

_PER_PASS: Final = 20_000


class ObserverState:
    """Stores the state of the holder of ``lock``."""

    def __init__(self, config: RegistryConfig, catalog: Catalog, now: clock.Clock, lock: FencedLock) -> None:
        self._history = config.observe.history
        self._ages = config.ages
        self._catalog = catalog
        self._now = now
        self._lock = lock
        self._before = _stored(catalog)

    def store(self, targets: Sequence[Target], checks: Checks) -> None:
        """Store the counts: they go on where the process before left them."""
        now, plan = self._now(), self._catalog.observation_plan
        counts = ObservationCounts(
            answered=self._before.answered + checks.answered,
            failed=self._before.failed + checks.failed,
            repositories=len(targets),
            tags=sum(plan.repositories().values()) - sum(target.lists for target in targets),
            lag=plan.lag(now),
            moves=self._catalog.observed_moves.kinds(),
        )
        state = msgspec.to_builtins(counts)
        self._catalog.jobs.store(JobState(NAME, now, now, state), self._lock)

    def prune(self) -> None:
        """Remove the observations that are older than the configuration keeps them, but not those that a
        minimum age counts."""
        if self._history is None:
            return
        seen, before = self._catalog.observations, self._now() - int(self._history * clock.SECOND)
        aging = [name for name in seen.repositories(before) if self._ages.gates(name)]
        seen.prune(before, limit=_PER_PASS, aging=aging)


def _stored(catalog: Catalog) -> ObservationCounts:
    job = catalog.jobs.state(NAME)
    if job is None:
        return ObservationCounts()
    try:
        return msgspec.convert(job.state, prepared(ObservationCounts))
    except msgspec.ValidationError:
        return ObservationCounts()
