"""The checks that make observations: a tag, or the list of tags, is asked for, and the answer is recorded."""

from __future__ import annotations

import hashlib
import logging
import random
import threading
from dataclasses import replace
from functools import partial
from typing import Final

from digestry.backend import Backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.observation_plan import ScheduledTag
from digestry.catalog.observations import LIST, Observation, Outcome
from digestry.catalog.tag_moves import TagRefused
from digestry.coordination.protocol import FencedLock
from digestry.errors import (
    DigestryError,
    ProtocolViolation,
    RemoteError,
    RemoteNotFound,
    StorageFull,
)
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.manifest import Manifest
from digestry.observer.facts import is_attachment
from digestry.observer.hosts import Host
from digestry.observer.reasons import FalseDigest, reason_of
from digestry.registry.observability import audit_events
from digestry.registry.observability.audit_log import AuditLog
from digestry.registry.observed_targets import Target
from digestry.registry.pull_through import upstream_errors
from digestry.registry.pull_through.upstream_errors import TROUBLE, BackingOff

log: Final = logging.getLogger("digestry.registry")

MOST_TAGS: Final = 500_000
"""The longest list of tags that is read."""
_JITTER: Final = 0.1
_FIRST_RETRY: Final = 5 * clock.SECOND
_SPREAD: Final = 10 * clock.SECOND
"""Tags that a list shows for the first time are looked at over so long, and more the more they are."""
_MOST_DOUBLINGS: Final = 20
_MOST_KEPT: Final = 100_000


class Checks:
    """Makes observations, and records them as long as it has ``lock``. Thread-safe."""

    def __init__(
        self,
        catalog: Catalog,
        backend: Backend,
        audit: AuditLog,
        lock: FencedLock,
        *,
        manifest_limit: int,
        stop: threading.Event,
        at_once: bool = False,
    ) -> None:
        self._catalog = catalog
        self._backend = backend
        self._audit = audit
        self._lock = lock
        self._limit = manifest_limit
        self._stop = stop
        self._at_once = at_once
        self._kept: set[tuple[str, str, Digest]] = set()
        self.attachment_tags: dict[str, frozenset[str]] = {}
        """By local repository: the tags of signatures and referrers in its last list."""
        self.answered = 0
        self.failed = 0

    def check(self, host: Host, target: Target, due: ScheduledTag) -> ScheduledTag:
        """Make one observation, and return when the next is due. Raises :class:`Conflict` if the lock is
        lost, and :class:`StorageError`."""
        try:
            etag = self._list(host, target, due) if due.tag == LIST else self._tag(host, target, due)
        except TROUBLE as error:
            self.failed += 1
            self._catalog.pull_through.failed(
                due.repository, due.tag, reason_of(error), interval=due.interval, fence=self._lock
            )
            return self._later(due, error)
        self.answered += 1
        return replace(due, due_at=self._backend.now() + jittered(due.interval), failures=0, etag=etag)

    def _later(self, due: ScheduledTag, error: DigestryError) -> ScheduledTag:
        """Return the retry after a failure: soon at first, and an interval later at the latest."""
        doublings = min(due.failures, _MOST_DOUBLINGS)
        pause = _FIRST_RETRY * 2**doublings
        if isinstance(error, BackingOff):  # no request was sent: it is the registry's turn that counts
            pause = int(error.seconds * clock.SECOND) + clock.SECOND
        wait = jittered(max(clock.SECOND // 2, min(due.interval, pause)))
        return replace(due, due_at=self._backend.now() + wait, failures=due.failures + 1)

    # -- a tag -----------------------------------------------------------------------------------

    def _tag(self, host: Host, target: Target, due: ScheduledTag) -> str:
        mirror, cache, name, tag = host.mirror, self._catalog.pull_through, due.repository, due.tag
        # A mirror that checks the same tag for a client must not record an older answer after this one.
        with mirror.turn(name, tag):
            seen, here = cache.tag_state(name, tag)
            try:
                with mirror.requesting():
                    answer = mirror.upstream.check(
                        target.upstream_name, tag, due.etag if seen is not None else "", self._limit
                    )
            except RemoteNotFound as error:
                if not upstream_errors.is_gone(error):
                    raise
                self._gone(host, due)
                return ""
            host.obey(answer.rate)
            if answer.descriptor is not None:
                digest = answer.descriptor.digest
            elif seen is not None:
                digest = Digest.parse(seen.digest)
            else:
                raise ProtocolViolation(f"{mirror.config.host} says that {tag} has not changed")
            if digest == here:
                cache.note(name, tag, digest, interval=due.interval, fence=self._lock)
                self._keep(target, tag, digest)
            else:
                self._moved(host, target, due, digest)
            return answer.etag

    def _moved(self, host: Host, target: Target, due: ScheduledTag, digest: Digest) -> None:
        """Fetch the manifest of the digest that a tag has now, and move the local tag."""
        cache, name, tag = self._catalog.pull_through, due.repository, due.tag
        try:
            manifest = self._known(name, digest) or self._fetched(host, target, str(digest))
        except RemoteNotFound as error:
            if not upstream_errors.is_gone(error):
                self._seen(due, digest)
                raise
            # It moved again at this moment; or the answer to the HEAD was outdated.
            manifest = self._fetched(host, target, tag)
            if manifest.digest != digest and self._asked_again(host, target, tag) == digest:
                raise FalseDigest(
                    f"{host.mirror.config.host} names {digest} for {tag}, and sends another"
                ) from error
        except RemoteError as error:
            if not isinstance(error, ProtocolViolation):
                self._seen(due, digest)  # that the tag has moved is known all the same
            raise
        origin = host.mirror.origin
        try:
            with self._backend.coordination.guard(manifest.digest):
                self._backend.blobs.put(manifest.raw, manifest.digest)
                event = cache.put(
                    name, manifest, tag=tag, origin=origin, interval=due.interval, fence=self._lock
                )
        except StorageFull:
            self._seen(due, manifest.digest)
            raise
        except TagRefused:
            cache.note(name, tag, manifest.digest, interval=due.interval, fence=self._lock)
            return
        what = {"action": "fetch-manifest", "digest": manifest.digest, "size": manifest.size}
        self._note(host, name, event, **what)

    def _keep(self, target: Target, tag: str, digest: Digest) -> None:
        """Have the content fetched of an image that was here before it was to be kept."""
        key = target.local_name, tag, digest
        if target.keep and key not in self._kept:
            self._catalog.observed_moves.keep(target.local_name, tag, digest, self._lock)
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept.add(key)

    def _asked_again(self, host: Host, target: Target, tag: str) -> Digest | None:
        """Return the digest that a HEAD of the tag answers now, if it answers one."""
        with host.mirror.requesting():
            found = host.mirror.upstream.check(target.upstream_name, tag, "", self._limit).descriptor
        return None if found is None else found.digest

    def _seen(self, due: ScheduledTag, digest: Digest) -> None:
        cache = self._catalog.pull_through
        cache.note(due.repository, due.tag, digest, interval=due.interval, fence=self._lock)

    def _gone(self, host: Host, due: ScheduledTag) -> None:
        cache, name, tag = self._catalog.pull_through, due.repository, due.tag
        try:
            event = cache.gone(name, tag, origin=host.mirror.origin, interval=due.interval, fence=self._lock)
        except TagRefused:
            cache.absent(name, tag, interval=due.interval, fence=self._lock)
            return
        self._note(host, name, event)

    def _note(self, host: Host, repository: str, event: TagEvent | None, **what: object) -> None:
        if self._audit.enabled and (event is not None or what):
            action = str(what.pop("action", ""))
            self._audit.write(
                audit_events.of_mirror(host.mirror.origin, repository, event=event, action=action, **what)
            )

    def _known(self, repository: str, digest: Digest) -> Manifest | None:
        stored = self._catalog.manifest(repository, digest)
        if stored is None or self._catalog.damage.known(digest):
            return None
        try:
            raw = self._backend.blobs.read(digest, limit=stored.size)
        except (DigestryError, OSError):
            return None  # the fetched one replaces it
        return Manifest.parse(raw, stored.media_type, algorithm=digest.algorithm)

    def _fetched(self, host: Host, target: Target, reference: str) -> Manifest:
        with host.mirror.requesting():
            return host.mirror.upstream.manifest(target.upstream_name, reference, self._limit)

    # -- the list of tags ------------------------------------------------------------------------

    def _list(self, host: Host, target: Target, due: ScheduledTag) -> str:
        """Read the list of tags, and bring the schedule in line with it. Returns which patterns it was read
        for, so that a later list can tell a new tag from one that was not asked for."""
        mirror, plan, name = host.mirror, self._catalog.observation_plan, due.repository
        patterns = hashlib.sha256("\n".join(target.patterns).encode()).hexdigest()[:16]
        outcome: Outcome = "seen"
        try:
            with mirror.requesting():
                turn = partial(host.require_turn, self._stop)
                listed = set(mirror.upstream.tags(target.upstream_name, MOST_TAGS + 1, pace=turn))
        except RemoteNotFound as error:
            if not upstream_errors.is_gone(error):
                raise
            listed, outcome = set(), "absent"  # the repository does not exist: it has no tag
        if len(listed) > MOST_TAGS:
            listed.clear()  # an error keeps the objects of its frames alive until it is collected
            raise ProtocolViolation(f"{target.name} has more than {MOST_TAGS} tags")
        now = self._backend.now()
        self.attachment_tags[name] = frozenset(tag for tag in listed if is_attachment(tag))
        wanted = {tag for tag in listed if target.wants(tag)}
        scheduled = {tag: every for tag, every in plan.tags(name).items() if tag != LIST}
        new = sorted(wanted.difference(scheduled))
        if due.etag == patterns:
            self._were_absent(due, new)
        spread = 0 if self._at_once else min(due.interval, _SPREAD + len(new) * clock.SECOND // 20)
        plan.schedule(
            (
                ScheduledTag(name, tag, due.interval, now + int(random.random() * spread))  # noqa: S311 - no secret
                for tag in new
            ),
            self._lock,
        )
        self._missing(target, due, sorted(scheduled.keys() - listed), now)
        unwanted = [tag for tag in scheduled if not target.wants(tag)]
        plan.unschedule(name, unwanted, self._lock)
        self._catalog.observations.record([Observation(name, LIST, outcome, now, due.interval)], self._lock)
        return patterns

    def _were_absent(self, due: ScheduledTag, new: list[str]) -> None:
        """Record that tags which are new in a list were absent from the one before."""
        spans = self._catalog.observations.spans(due.repository, LIST, limit=20)
        last = next((one for one in spans if one.outcome != "failed"), None)
        if last is not None:
            self._catalog.observations.record(
                (Observation(due.repository, tag, "absent", last.last_at, due.interval) for tag in new),
                self._lock,
            )

    def _missing(self, target: Target, due: ScheduledTag, missing: list[str], now: int) -> None:
        """Ask about tags that the list lacks, at once; forget those of which that is known already."""
        plan, cache, literal = self._catalog.observation_plan, self._catalog.pull_through, set(target.literal)
        gone, asked = [], []
        for tag in missing:
            if tag in literal:
                continue
            spans = self._catalog.observations.spans(due.repository, tag, limit=1)
            absent = bool(spans) and spans[0].outcome == "absent"
            if absent and cache.tag_state(due.repository, tag)[0] is None:
                gone.append(tag)
            elif not spans or spans[0].outcome != "failed":
                asked.append(tag)
        plan.unschedule(due.repository, gone, self._lock)
        for tag in asked:
            plan.reschedule(ScheduledTag(due.repository, tag, due.interval, now), self._lock)


def jittered(interval: int) -> int:
    """Return an interval of about that length, so that requests do not come all at once."""
    return int(interval * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret
