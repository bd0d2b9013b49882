"""A single round of observations, for a command: by the server if it runs, else by the command."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.coordination.protocol import Job
from digestry.errors import Conflict, NotFound
from digestry.model.observations import ObservationReport
from digestry.observer.observer import Observer
from digestry.registry.config import RegistryConfig
from digestry.registry.observation_report import report
from digestry.registry.observed_targets import Target, obstacles, targets
from digestry.registry.pull_through.upstream import MakeUpstream

_POLL: Final = 0.1
_LOOK_SECONDS: Final = 3.0
"""So often it is looked whether somebody else still observes."""


@dataclass(frozen=True, slots=True)
class SingleRound:
    """The outcome of a round: a ``report`` from its beginning on, how many observations were answered, how
    many failed, and how many did not end in time."""

    report: ObservationReport
    answered: int
    failed: int
    unfinished: int


def observe_all_once(
    config: RegistryConfig,
    backend: Backend,
    catalog: Catalog,
    make_upstream: MakeUpstream,
    *,
    names: Collection[str],
    due: bool,
    seconds: float,
) -> SingleRound:
    """Observe all repositories, or those with these ``names``, and return what was found.

    With ``due``, only what is due. Raises :class:`NotFound` for a name that is not observed, and
    :class:`Conflict` for one whose local repository has another purpose.
    """
    end, began = time.monotonic() + seconds, backend.now()
    known = targets(config, catalog.observation_plan.rules())
    wanted = [one for one in known if not names or one.name in names]
    for name in names:
        if name not in {one.name for one in known}:
            raise NotFound(f"{name} is not observed", hint=f"begin with: digestry observe add {name}")
    blocked = obstacles(config, catalog.observation_plan, known)
    for name in names:
        if name in blocked:
            raise Conflict(f"{name} is not observed: {blocked[name]}")
    wanted = [one for one in wanted if one.name not in blocked]
    local = {one.local_name for one in wanted}
    while True:
        try:
            with backend.coordination.only_one(Job.OBSERVATION) as lock:
                observer = Observer(config, backend, catalog, make_upstream, lock, only=local, at_once=True)
                try:
                    unfinished = _observe(observer, catalog, backend, wanted, end, due=due)
                finally:
                    observer.stop()
                answered, failed = observer.checks.answered, observer.checks.failed
                found = report(catalog, config, since=began, now=backend.now(), visible=local.__contains__)
                return SingleRound(found, answered, failed, unfinished)
        except Conflict:
            made = _by_server(config, backend, catalog, wanted, end, due=due)
        if made is not None:
            return made


def _observe(
    observer: Observer,
    catalog: Catalog,
    backend: Backend,
    wanted: Sequence[Target],
    end: float,
    *,
    due: bool,
) -> int:
    observer.plan()
    plan, began = catalog.observation_plan, backend.now()
    if not due:
        for one in wanted:
            plan.hasten(one.local_name, began)
    while time.monotonic() < end:
        busy = observer.step()
        # New tags of a list are due at once; what was asked is due an interval later.
        waits = any(plan.waiting(one.local_name, backend.now()) for one in wanted)
        if not busy and not waits and not observer.has_moves():
            return 0
        time.sleep(_POLL)
    return sum(plan.waiting(one.local_name, backend.now()) for one in wanted)


def _by_server(
    config: RegistryConfig,
    backend: Backend,
    catalog: Catalog,
    wanted: Sequence[Target],
    end: float,
    *,
    due: bool,
) -> SingleRound | None:
    """Have the server observe, and wait until it has. None once nobody observes: the server was stopped, or
    it was killed, and its lock has ended."""
    plan = catalog.observation_plan
    local = {one.local_name for one in wanted}
    look = time.monotonic() + _LOOK_SECONDS
    while not local <= plan.repositories().keys() and time.monotonic() < end:
        if time.monotonic() >= look:
            if _nobody_observes(backend):
                return None
            look = time.monotonic() + _LOOK_SECONDS
        time.sleep(_POLL)  # it has not read the rule yet
    began = backend.now()
    asked = sum(
        plan.waiting(one.local_name, began) if due else plan.hasten(one.local_name, began) for one in wanted
    )
    left = asked
    while time.monotonic() < end:
        left = sum(plan.waiting(one.local_name, began) for one in wanted)
        if not left and not catalog.observed_moves.unfinished(backend.now(), limit=1, only=local):
            break
        if time.monotonic() >= look:
            if _nobody_observes(backend):
                return None
            look = time.monotonic() + _LOOK_SECONDS
        time.sleep(_POLL)
    found = report(catalog, config, since=began, now=backend.now(), visible=local.__contains__)
    failed = sum(gap.until is None for gap in found.gaps)
    return SingleRound(found, max(0, asked - left - failed), failed, left)


def _nobody_observes(backend: Backend) -> bool:
    try:
        with backend.coordination.only_one(Job.OBSERVATION):
            return True
    except Conflict:
        return False
