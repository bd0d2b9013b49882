"""The observer: takes what is due, and has it asked, each registry by its own threads."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.observation_plan import ObservationRule, ScheduledTag
from digestry.catalog.observations import LIST
from digestry.catalog.observed_moves import ObservedMove
from digestry.coordination.protocol import FencedLock
from digestry.errors import Conflict, DigestryError
from digestry.observer.checks import Checks, jittered
from digestry.observer.hosts import Host
from digestry.observer.move_inspection import MoveInspector
from digestry.observer.state import ObserverState
from digestry.registry.config import RegistryConfig
from digestry.registry.observability.audit_log import AuditLog
from digestry.registry.observed_targets import Target, obstacles, targets
from digestry.registry.pull_through.names import canonical
from digestry.registry.pull_through.upstream import MakeUpstream

log: Final = logging.getLogger("digestry.registry")

LOOK_SECONDS: Final = 0.25
_RULES_SECONDS: Final = 2.0
_STATE_SECONDS: Final = 10.0
_PRUNE_SECONDS: Final = 3600.0
_AHEAD: Final = 6
"""So many checks a thread are taken from the schedule at once."""
_MOVES: Final = 50
_LOOKS: Final = 8
"""So many moves of a registry wait for their turn to be looked at."""
_TROUBLE: Final = 60_000_000
_NEVER: Final = 2**63


class Observer:
    """The observing of one holder of the lock, which fences what it writes. Used by one thread.

    ``only`` are the local repositories that it asks about, by default all; with ``at_once``, the tags that a
    list shows for the first time are not spread over some time.
    """

    def __init__(
        self,
        config: RegistryConfig,
        backend: Backend,
        catalog: Catalog,
        make_upstream: MakeUpstream,
        lock: FencedLock,
        *,
        only: Collection[str] | None = None,
        at_once: bool = False,
    ) -> None:
        self._config = config
        self._backend = backend
        self._catalog = catalog
        self._make_upstream = make_upstream
        self._lock = lock
        self._only = only
        self._audit = AuditLog(config.log, config.scratch)
        self._stop = threading.Event()
        self.checks = Checks(
            catalog,
            backend,
            self._audit,
            lock,
            manifest_limit=config.manifest_limit,
            stop=self._stop,
            at_once=at_once,
        )
        self._inspector = MoveInspector(config, backend, catalog, self.checks, lock)
        self._state = ObserverState(config, catalog, backend.now, lock)
        self._hosts: dict[str, Host] = {}
        self._targets: dict[str, Target] = {}
        self._rules: list[ObservationRule] | None = None
        self._wanted: list[Target] = []
        self._obstacles: dict[str, str] = {}
        self._planned = False
        self._last = _NEVER
        self._running: dict[tuple[str, str], Future[None]] = {}
        self._looking: dict[tuple[str, int], Future[None]] = {}
        self._next_rules = 0.0
        self._next_state = 0.0
        self._next_prune = 0.0
        self._first = 0
        self._lost: Conflict | None = None

    def step(self) -> bool:
        """Start what is due; return whether anything is under way. Raises :class:`Conflict` once the lock is
        lost."""
        self._lock.check()
        if self._lost is not None:
            raise self._lost
        now = time.monotonic()
        if now >= self._next_rules:
            self._next_rules = now + _RULES_SECONDS
            self.plan()
        self._forget_ended()
        due = self._catalog.observation_plan.due_repositories(self._backend.now())
        names = [name for name in self._targets if name in due and self._is_mine(name)]
        self._first += 1
        busy = self._busy(self._running)
        for number in range(len(names)):  # another one first each time: none of a registry waits for good
            self._begin(self._targets[names[(number + self._first) % len(names)]], busy)
        self._look()
        if now >= self._next_state:
            self._next_state = now + _STATE_SECONDS
            self._state.store(list(self._targets.values()), self.checks)
        if now >= self._next_prune:
            self._next_prune = now + _PRUNE_SECONDS
            self._state.prune()
        return bool(self._running or self._looking)

    def plan(self) -> list[Target]:
        """Read the rules that were added, bring the schedule in line, and return what is observed."""
        now = self._backend.now()
        if now < self._last:  # at the start, too: the clock may have been set while nobody observed
            self._catalog.observation_plan.bring_forward(now, self._lock)
            self._catalog.observed_moves.bring_forward(now, self._lock)
        self._last = now
        rules = self._catalog.observation_plan.rules()
        found = self._wanted if rules == self._rules else targets(self._config, rules)
        self._rules = rules
        if found != self._wanted or self._obstacles:
            obstacles_now = obstacles(self._config, self._catalog.observation_plan, found)
            for name, reason in obstacles_now.items():
                if self._obstacles.get(name) != reason:
                    log.error("%s is not observed: %s", name, reason)
            self._wanted, self._obstacles = found, obstacles_now
        wanted = {one.local_name: one for one in found if one.name not in self._obstacles}
        if wanted != self._targets or not self._planned:
            self._schedule(list(wanted.values()))
            kept = {one.local_name: one.keep_for for one in wanted.values() if one.keep}
            self._catalog.observation_plan.keep(kept, self._lock)
            self._targets, self._planned = wanted, True
        return list(wanted.values())

    def has_moves(self) -> bool:
        """Return whether the images of a move are to be looked at now."""
        return bool(self._catalog.observed_moves.unfinished(self._backend.now(), limit=1, only=self._only))

    def _is_mine(self, repository: str) -> bool:
        return self._only is None or repository in self._only

    def _schedule(self, wanted: Sequence[Target]) -> None:
        plan, now = self._catalog.observation_plan, self._backend.now()
        names = {one.local_name for one in wanted}
        for name in plan.repositories():
            if name not in names:
                plan.unschedule(name, fence=self._lock)
        scheduled = plan.all_tags()
        due: list[ScheduledTag] = []
        for target in wanted:
            there = scheduled.get(target.local_name, {})
            asked = {*target.literal, *([LIST] if target.lists else [])}
            known = {tag for tag in there if tag in asked or (target.lists and target.wants(tag))}
            plan.unschedule(target.local_name, there.keys() - known, self._lock)
            changed = {tag for tag in known if there[tag] != target.interval}
            due += (
                ScheduledTag(
                    target.local_name,
                    tag,
                    target.interval,
                    now + (jittered(target.interval) if tag in there else 0),
                )
                for tag in changed | (asked - there.keys())
            )
        plan.schedule(due, self._lock)  # a commit for many repositories together

    def host(self, target: Target) -> Host:
        """Return the registry of a target."""
        key = canonical(target.registry.host)
        found = self._hosts.get(key)
        if found is None:
            observe = self._config.observe
            found = self._hosts[key] = Host(
                target.registry,
                self._make_upstream,
                self._backend.coordination,
                self._config.scratch,
                rate=observe.rate,
                parallel=observe.parallel,
            )
        return found

    def _busy(self, work: Iterable[tuple[str, object]]) -> Counter[str]:
        """Return how much of ``work``, by local repository, each registry has."""
        targets = (self._targets.get(name) for name, _ in work)
        return Counter(one.registry.host for one in targets if one is not None)

    def _begin(self, target: Target, busy: Counter[str]) -> None:
        room = self._config.observe.parallel * _AHEAD - busy[target.registry.host]
        if room <= 0:
            return
        host = self.host(target)
        mine = {tag for name, tag in self._running if name == target.local_name}
        due = self._catalog.observation_plan.due(
            target.local_name, self._backend.now(), limit=room, without=mine
        )
        for one in due:
            work = partial(self._check, host, target, one)
            self._running[one.repository, one.tag] = host.submit(work)
        busy[target.registry.host] += len(due)

    def _check(self, host: Host, target: Target, due: ScheduledTag) -> None:
        if not host.wait_turn(self._stop):
            return
        try:
            following = self.checks.check(host, target, due)
            self._catalog.observation_plan.reschedule(following, self._lock)
        except Conflict as error:
            self._lost = error
        except DigestryError as error:
            log.error("observing %s:%s failed: %s", target.name, due.tag, error.message)
            self._put_off(due)
        except Exception:
            log.exception("observing %s:%s failed", target.name, due.tag)
            self._put_off(due)

    def _put_off(self, due: ScheduledTag) -> None:
        """Try again later what failed here, and not at the other registry."""
        wait = min(_TROUBLE, due.interval)
        following = ScheduledTag(
            due.repository, due.tag, due.interval, self._backend.now() + wait, due.failures + 1, due.etag
        )
        try:
            self._catalog.observation_plan.reschedule(following, self._lock)
        except Conflict as error:
            self._lost = error
        except DigestryError as error:
            log.error("the schedule of observations cannot be written: %s", error.message)
            self._stop.wait(1)

    def _look(self) -> None:
        busy = Counter(
            target.registry.prefix
            for name, _ in self._looking
            if (target := self._targets.get(name)) is not None
        )
        full = {prefix for prefix, count in busy.items() if count >= _LOOKS}
        # One that is slow, or has many, keeps no other registry waiting.
        found = self._catalog.observed_moves.unfinished(
            self._backend.now(), limit=_MOVES, only=self._only, without=full
        )
        for move in found:
            key = move.repository, move.entry
            target = self._targets.get(move.repository)
            if key in self._looking:
                continue
            if target is None:  # it is not observed any more
                self._inspector.close(move)
                continue
            prefix = target.registry.prefix
            if busy[prefix] < _LOOKS:
                busy[prefix] += 1
                host = self.host(target)
                self._looking[key] = host.look(partial(self._look_at, host, target, move))

    def _look_at(self, host: Host, target: Target, move: ObservedMove) -> None:
        try:
            self._inspector.inspect(host, target, move, self._stop)
        except Conflict as error:
            self._lost = error
        except DigestryError as error:
            log.error("looking at %s:%s failed: %s", target.name, move.tag, error.message)
            self._stop.wait(1)
        except Exception:
            log.exception("looking at %s:%s failed", target.name, move.tag)
            self._stop.wait(1)

    def _forget_ended(self) -> None:
        self._running = {key: future for key, future in self._running.items() if not future.done()}
        self._looking = {key: future for key, future in self._looking.items() if not future.done()}

    def stop(self) -> None:
        """End the threads: what they are doing is finished, or done again by who observes next."""
        self._stop.set()
        for host in self._hosts.values():
            host.stop()
        self._audit.close()
