"""The inspection of both images of a move: it fetches their manifests and configs, and stores the facts."""

from __future__ import annotations

import datetime
import logging
import threading
import time
import uuid
from dataclasses import replace
from typing import Final

import msgspec

from digestry.backend import Backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.observed_moves import KEEP, LONGEST_RETRY, URGENT, ObservedMove
from digestry.coordination.protocol import FencedLock
from digestry.errors import (
    Conflict,
    ContentError,
    DigestryError,
    InvalidConfiguration,
    InvalidManifest,
    RemoteError,
    StorageFull,
    TooLarge,
)
from digestry.model import media_types
from digestry.model.descriptor import encode_hook
from digestry.model.digest import Digest
from digestry.model.fleet_events import UPSTREAM_MOVED, FleetEvent
from digestry.model.json_types import prepared
from digestry.model.name_pattern import matches
from digestry.model.observations import UpstreamMove
from digestry.model.timestamps import rfc3339
from digestry.observer.checks import Checks
from digestry.observer.content import Content
from digestry.observer.facts import TagFacts, facts_of
from digestry.observer.hosts import Host
from digestry.observer.image_inspection import ImageInspection, Later, absence, is_temporary
from digestry.observer.reasons import reason_of
from digestry.registry.config import RegistryConfig
from digestry.registry.observation_report import move_of
from digestry.registry.observed_targets import Target
from digestry.registry.pull_through.upstream_errors import BackingOff

log: Final = logging.getLogger("digestry.registry")

_FIRST_RETRY: Final = 5
_LONGEST_RETRY: Final = LONGEST_RETRY / clock.SECOND
_ATTEMPTS: Final = 6
"""After so many failed looks a move is told with what is known: the next one would be half an hour later."""
_KEEP_ATTEMPTS: Final = 60
_FULL_RETRY: Final = 15 * clock.SECOND
_FULL_WORD: Final = 60.0
"""The log says once in so many seconds that there is no room."""


class MoveInspector:
    """Inspects moves, as long as it holds ``lock``. Thread-safe."""

    def __init__(
        self, config: RegistryConfig, backend: Backend, catalog: Catalog, checks: Checks, lock: FencedLock
    ) -> None:
        self._backend = backend
        self._catalog = catalog
        self._checks = checks
        self._lock = lock
        self._content = Content(
            catalog,
            backend,
            lock,
            manifest_limit=config.manifest_limit,
            blob_limit=config.upload_limit,
        )
        self._webhooks = config.webhooks
        self._next_word = 0.0

    def inspect(self, host: Host, target: Target, move: ObservedMove, stop: threading.Event) -> None:
        """Do what is pending of a move: inspect its images, or fetch their content.

        Raises :class:`Conflict` if the lock is lost or ``stop`` was set, and :class:`StorageError`.
        """
        try:
            if move.pending == KEEP:
                self._keep(host, target, move, stop)
            else:
                self._facts(host, target, move, stop, at_last=move.attempts + 1 >= _ATTEMPTS)
        except Later as later:
            self._postpone(move, later.error)
        except StorageFull as error:
            self._wait_for_room(target, move, error)

    def close(self, move: ObservedMove) -> None:
        """End what is pending of a move whose repository is not observed any more."""
        self._catalog.observed_moves.end(move, self._lock)

    def _postpone(self, move: ObservedMove, error: DigestryError) -> None:
        seconds: float = min(_LONGEST_RETRY, _FIRST_RETRY * 3 ** min(move.attempts, 8))
        if isinstance(error, BackingOff):
            seconds = max(1.0, min(_LONGEST_RETRY, error.seconds + 1))
        due = self._backend.now() + int(seconds * clock.SECOND)
        self._catalog.observed_moves.postpone(move, due_at=due, fence=self._lock)

    def _wait_for_room(self, target: Target, move: ObservedMove, error: StorageFull) -> None:
        """Try again soon: whoever makes room does not tell."""
        now = time.monotonic()
        if now >= self._next_word:
            self._next_word = now + _FULL_WORD
            log.warning(
                "observed %s:%s: not all content of its images can be kept now: %s (%s)",
                target.name,
                move.tag,
                reason_of(error),
                error.message,
            )
        due = self._backend.now() + _FULL_RETRY
        # It is no attempt that the other registry failed.
        same = replace(move, attempts=move.attempts - 1)
        self._catalog.observed_moves.postpone(same, due_at=due, fence=self._lock)

    # -- facts -----------------------------------------------------------------------------------

    def _facts(
        self, host: Host, target: Target, move: ObservedMove, stop: threading.Event, *, at_last: bool
    ) -> None:
        listed = self._listed(move.repository)
        look = ImageInspection(self._content, host, target, stop, listed=listed, at_last=at_last)
        # Of a tag that is new here, the list is enough: it is what a later move is compared with.
        fresh = move.pending == URGENT or listed is None
        after = None if move.to_digest is None else look.tag_facts(move.to_digest, fresh=fresh)
        before = None if move.from_digest is None else look.tag_facts(move.from_digest, fresh=False)
        if move.from_digest is not None and before is not None and move.event == "moved":
            before = self._with_attachments(move, move.from_digest, before)
        facts = facts_of(move.tag, move.event, before, after, self._pointed_until(move))
        told = move_of(move, target.name, facts)
        # The event of a move that is sent twice would have one ID: it is made of the journal's entry.
        event = _event(told, clock.to_datetime(self._backend.now()))
        subscriptions = [
            webhook.subscription
            for webhook in self._webhooks
            if any(matches(pattern, move.repository) for pattern in webhook.repositories)
        ]
        document = msgspec.json.encode(facts).decode()
        wanted = self._catalog.observed_moves.finish(
            move,
            document,
            keep=target.keep and move.to_digest is not None,
            event=None if move.event == "created" and move.not_before is None else event,
            subscriptions=subscriptions,
            fence=self._lock,
        )
        if wanted:
            _log(told)

    def _with_attachments(self, move: ObservedMove, digest: Digest, before: TagFacts) -> TagFacts:
        """Return the facts about the old image, with the attachments that it had when the tag came to it."""
        earlier = self._catalog.observed_moves.to(move.repository, move.tag, digest, before=move.at)
        if earlier is None or not earlier.document:
            return before
        known = msgspec.json.decode(earlier.document, type=prepared(_Attached)).attachments
        now = before.attachments or frozenset()
        return replace(before, attachments=frozenset(known) | now)

    def _pointed_until(self, move: ObservedMove) -> datetime.datetime | None:
        """Return when the tag left the digest earlier to which it moved now."""
        if move.to_digest is None:
            return None
        left = self._catalog.tag_history.left_at(move.repository, move.tag, move.to_digest, before=move.at)
        return None if left is None else clock.to_datetime(left)

    # -- content ---------------------------------------------------------------------------------

    def _keep(self, host: Host, target: Target, move: ObservedMove, stop: threading.Event) -> None:
        """Fetch all content of the images of a move."""
        if not target.keep:
            self._catalog.observed_moves.end(move, self._lock)
            return
        failed: list[DigestryError] = []
        for digest in filter(None, (move.to_digest, move.from_digest)):
            try:
                self._keep_image(host, target, digest, stop)
            except Conflict:
                raise
            except (RemoteError, ContentError, InvalidConfiguration, TooLarge, InvalidManifest) as error:
                failed.append(error)
        temporary = next((one for one in failed if is_temporary(one)), None)
        if temporary is not None and move.attempts < _KEEP_ATTEMPTS:
            raise Later(temporary)
        for one in failed:
            log.warning(
                "observed %s:%s: not all content of its images could be kept: %s",
                target.name,
                move.tag,
                absence(one),
            )
        self._catalog.observed_moves.end(move, self._lock, kept=not failed)

    def _keep_image(self, host: Host, target: Target, digest: Digest, stop: threading.Event) -> None:
        manifest = self._content.manifest(host, target, digest, stop)
        for child in manifest.manifests:
            self._keep_image(host, target, child.digest, stop)
        parts = [] if manifest.config is None else [manifest.config]
        for part in (*parts, *manifest.layers):
            if not media_types.is_foreign(part.media_type):
                self._content.blob(host, target, part, stop)

    def _listed(self, repository: str) -> frozenset[str] | None:
        """Return the tags of signatures and referrers in the repository's last list; None without one."""
        return self._checks.attachment_tags.get(repository)


class _Attached(msgspec.Struct, frozen=True):
    attachments: tuple[str, ...] = ()


def _event(move: UpstreamMove, at: datetime.datetime) -> FleetEvent:
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{move.repository}#{move.entry}").hex
    encoded = msgspec.Raw(msgspec.json.encode(move, enc_hook=encode_hook))
    return FleetEvent(identity, UPSTREAM_MOVED, at, f"{move.name}:{move.tag}", encoded)


def _log(move: UpstreamMove) -> None:
    when = (
        f"by {rfc3339(move.at)}"
        if move.not_before is None
        else f"between {rfc3339(move.not_before)} and {rfc3339(move.at)}"
    )
    concerns = ", ".join(move.facts.concerns) if move.facts is not None else ""
    level = logging.WARNING if concerns else logging.INFO
    log.log(
        level,
        "observed %s:%s: %s %s, %s -> %s%s",
        move.name,
        move.tag,
        move.event,
        when,
        move.from_digest or "-",
        move.to_digest or "-",
        f" ({concerns})" if concerns else "",
    )
