"""A look at both images of a move: their manifests and configs are fetched, and the facts are told."""

from __future__ import annotations

import datetime
import logging
import threading
import uuid
from typing import Final

import msgspec

from digestry.backend import Backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.observed_moves import KEEP, URGENT, ObservedMove
from digestry.coordination.protocol import FencedLock
from digestry.errors import (
    Conflict,
    ContentError,
    DigestryError,
    InvalidConfiguration,
    InvalidManifest,
    RemoteError,
    TooLarge,
)
from digestry.model import media_types
from digestry.model.descriptor import Descriptor, encode_hook
from digestry.model.digest import Digest
from digestry.model.fleet_events import UPSTREAM_MOVED, FleetEvent
from digestry.model.image_config import ImageConfig
from digestry.model.json_types import prepared
from digestry.model.manifest import Manifest
from digestry.model.name_pattern import matches
from digestry.model.observations import UpstreamMove
from digestry.model.timestamps import rfc3339
from digestry.observe.attachments import attachments
from digestry.observe.checks import Checks
from digestry.observe.content import Content
from digestry.observe.facts import ImageFacts, TagFacts, facts_of
from digestry.observe.hosts import Host
from digestry.observe.reasons import reason_of
from digestry.registry.config import RegistryConfig
from digestry.registry.observation_report import move_of
from digestry.registry.observed_targets import Target
from digestry.registry.pull_through import upstream_errors
from digestry.registry.pull_through.upstream_errors import BackingOff

log: Final = logging.getLogger("digestry.registry")

_CONFIG: Final = 4 << 20
_MOST_CHILDREN: Final = 200
_FIRST_RETRY: Final = 5
_LONGEST_RETRY: Final = 3600
_ATTEMPTS: Final = 6
"""After so many failed looks a move is told with what is known: the next one would be half an hour later."""
_KEEP_ATTEMPTS: Final = 60
_BASE: Final = ("org.opencontainers.image.base.digest", "org.opencontainers.image.base.name")
_REFERENCE_TYPE: Final = "vnd.docker.reference.type"
_AUTHORS: Final = "org.opencontainers.image.authors"


class Later(Exception):
    """Something could not be fetched now: the look is made again."""

    def __init__(self, error: DigestryError) -> None:
        super().__init__(error.message)
        self.error = error


class Looks:
    """Looks at moves, as long as it has ``lock``. Thread-safe."""

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

    def look(self, host: Host, target: Target, move: ObservedMove, stop: threading.Event) -> None:
        """Do what is pending of a move: look at its images, or fetch their content. Raises :class:`Conflict`
        if the lock is lost or ``stop`` was set, and :class:`StorageError`."""
        try:
            if move.pending == KEEP:
                self._keep(host, target, move, stop)
            else:
                self._facts(host, target, move, stop, at_last=move.attempts + 1 >= _ATTEMPTS)
        except Later as later:
            self._postpone(move, later.error)

    def close(self, move: ObservedMove) -> None:
        """End what is pending of a move whose repository is not observed any more."""
        self._catalog.observed_moves.kept(move, self._lock)

    def _postpone(self, move: ObservedMove, error: DigestryError) -> None:
        seconds: float = min(_LONGEST_RETRY, _FIRST_RETRY * 3 ** min(move.attempts, 8))
        if isinstance(error, BackingOff):
            seconds = max(1.0, min(_LONGEST_RETRY, error.seconds + 1))
        due = self._backend.now() + int(seconds * clock.SECOND)
        self._catalog.observed_moves.postpone(move, due_at=due, fence=self._lock)

    # -- facts -----------------------------------------------------------------------------------

    def _facts(
        self, host: Host, target: Target, move: ObservedMove, stop: threading.Event, *, at_last: bool
    ) -> None:
        look = _Look(self, host, target, stop, at_last=at_last)
        # Of a tag that is new here, the list is enough: it is what a later move is compared with.
        fresh = move.pending == URGENT or self.listed_attachments(move.repository) is None
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
        return TagFacts(
            before.is_index, before.images, before.platforms, frozenset(known) | now, before.unknown
        )

    def _pointed_until(self, move: ObservedMove) -> datetime.datetime | None:
        """Return when the tag left the digest earlier to which it moved now."""
        if move.to_digest is None:
            return None
        spans = self._catalog.tag_history.tags_for_digest(
            move.repository, move.to_digest, before_time=move.at, limit=100
        )
        left = [
            one.until
            for one in spans
            if one.tag == move.tag and one.digest == move.to_digest and one.until is not None
        ]
        return max((one for one in left if clock.from_datetime(one) <= move.at), default=None)

    # -- content ---------------------------------------------------------------------------------

    def _keep(self, host: Host, target: Target, move: ObservedMove, stop: threading.Event) -> None:
        """Fetch all content of the images of a move."""
        if not target.keep:
            self._catalog.observed_moves.kept(move, self._lock)
            return
        failed: list[DigestryError] = []
        for digest in filter(None, (move.to_digest, move.from_digest)):
            try:
                self._keep_image(host, target, digest, stop)
            except Conflict:
                raise
            except (RemoteError, ContentError, InvalidConfiguration, TooLarge, InvalidManifest) as error:
                failed.append(error)
        temporary = next((one for one in failed if _is_temporary(one)), None)
        if temporary is not None and move.attempts < _KEEP_ATTEMPTS:
            raise Later(temporary)
        for one in failed:
            log.warning(
                "observed %s:%s: not all content of its images could be kept: %s",
                target.name,
                move.tag,
                _absence(one),
            )
        self._catalog.observed_moves.kept(move, self._lock)

    def _keep_image(self, host: Host, target: Target, digest: Digest, stop: threading.Event) -> None:
        manifest = self._content.manifest(host, target, digest, stop)
        for child in manifest.manifests[:_MOST_CHILDREN]:
            self._keep_image(host, target, child.digest, stop)
        parts = [] if manifest.config is None else [manifest.config]
        for part in (*parts, *manifest.layers):
            if not media_types.is_foreign(part.media_type):
                self._content.blob(host, target, part, stop)

    # -- one image -------------------------------------------------------------------------------

    @property
    def content(self) -> Content:
        return self._content

    def listed_attachments(self, repository: str) -> frozenset[str] | None:
        """Return the tags of signatures and referrers in the repository's last list; None without one."""
        return self._checks.attachment_tags.get(repository)


class _Attached(msgspec.Struct, frozen=True):
    attachments: tuple[str, ...] = ()


class _Look:
    """One look at the images of a move. ``at_last``: what cannot be fetched stays unknown."""

    def __init__(
        self, looks: Looks, host: Host, target: Target, stop: threading.Event, *, at_last: bool
    ) -> None:
        self._looks = looks
        self._host = host
        self._target = target
        self._stop = stop
        self._at_last = at_last
        self._unknown: list[str] = []

    def tag_facts(self, digest: Digest, *, fresh: bool) -> TagFacts:
        """Return what an image shows; of a ``fresh`` one, what is attached to it now is asked for."""
        self._unknown = []
        manifest = self._manifest(digest)
        if manifest is None:
            return TagFacts(attachments=None, unknown=tuple(self._unknown))
        images: dict[str, ImageFacts] = {}
        platforms: set[str] = set()
        inside: set[str] = set()
        if manifest.config is not None:
            facts, platform = self._image(manifest)
            platforms.add(platform)
            images[platform] = facts
        elif len(manifest.manifests) > _MOST_CHILDREN:
            self._unknown.append(f"{digest} lists {len(manifest.manifests)} images: not looked at")
        else:
            for child in manifest.manifests:
                kind = child.annotations.get(_REFERENCE_TYPE) if child.annotations else None
                if kind:
                    inside.add(f"{kind} in the index")
                    continue
                platform = str(child.platform) if child.platform is not None else ""
                platforms.add(platform or str(child.digest))
                found = self._manifest(child.digest)
                if found is not None and found.config is not None:
                    facts, own = self._image(found)
                    images[platform or own] = facts
        attached = self._attachments(digest, fresh=fresh)
        return TagFacts(
            manifest.config is None,
            images,
            frozenset(filter(None, platforms)),
            None if attached is None else attached | inside,
            tuple(dict.fromkeys(self._unknown)),
        )

    def _manifest(self, digest: Digest) -> Manifest | None:
        try:
            return self._looks.content.manifest(self._host, self._target, digest, self._stop)
        except Conflict:
            raise
        except (RemoteError, ContentError, InvalidConfiguration, InvalidManifest) as error:
            self._missing(f"manifest {digest}", error)
            return None

    def _image(self, manifest: Manifest) -> tuple[ImageFacts, str]:
        """Return what an image shows, and its platform."""
        base = next((manifest.annotations[name] for name in _BASE if manifest.annotations.get(name)), "")
        author = manifest.annotations.get(_AUTHORS, "")
        config = self._config(manifest.config) if manifest.config is not None else None
        if config is None:
            return ImageFacts(base=base, author=author), ""
        labels = config.settings.get("Labels")
        labels = labels if isinstance(labels, dict) else {}
        base = base or next((str(labels[name]) for name in _BASE if labels.get(name)), "")
        author = _author_of(config.raw) or author or str(labels.get(_AUTHORS) or "")
        return (
            ImageFacts(tuple(map(str, config.diff_ids)), author, config.created or "", base),
            str(config.platform),
        )

    def _config(self, descriptor: Descriptor) -> ImageConfig | None:
        if descriptor.media_type not in media_types.IMAGE_CONFIGS:
            return None  # an artifact
        try:
            raw = self._looks.content.small_blob(
                self._host, self._target, descriptor, self._stop, limit=_CONFIG
            )
            return ImageConfig.parse(raw, algorithm=descriptor.digest.algorithm)
        except Conflict:
            raise
        except (RemoteError, ContentError, InvalidConfiguration, InvalidManifest, TooLarge) as error:
            self._missing(f"config {descriptor.digest}", error)
            return None

    def _attachments(self, digest: Digest, *, fresh: bool) -> frozenset[str] | None:
        try:
            return attachments(
                self._host,
                self._target,
                digest,
                self._looks.listed_attachments(self._target.local_name),
                self._stop,
                with_tags=fresh,
            )
        except Conflict:
            raise
        except (RemoteError, ContentError, InvalidConfiguration) as error:
            self._missing(f"what is attached to {digest}", error)
            return None

    def _missing(self, what: str, error: DigestryError) -> None:
        if _is_temporary(error) and not self._at_last:
            raise Later(error) from error
        self._unknown.append(f"{what}: {_absence(error)}")


def _absence(error: DigestryError) -> str:
    if isinstance(error, RemoteError) and upstream_errors.is_gone(error):
        return "the registry does not have it any more"
    return reason_of(error)


def _is_temporary(error: DigestryError) -> bool:
    return isinstance(error, BackingOff) or (
        isinstance(error, RemoteError) and upstream_errors.is_outage(error)
    )


class _Author(msgspec.Struct, frozen=True):
    author: str | None = None


def _author_of(config: bytes) -> str:
    try:
        return msgspec.json.decode(config, type=prepared(_Author)).author or ""
    except msgspec.MsgspecError:
        return ""


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
