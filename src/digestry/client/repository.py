"""One repository of one registry: its manifests, blobs, tags and history (OCI distribution-spec 1.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from digestry.blobs.bounded_read import SMALL
from digestry.client import blobs, manifests
from digestry.client.connection import Connection
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.manifests import LARGEST_MANIFEST
from digestry.errors import InvalidManifest, ProtocolViolation
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Image, Index
from digestry.model.reference import Reference

if TYPE_CHECKING:
    import datetime

    from digestry.blobs.ingests import Ingest
    from digestry.client.blob_upload import Outcome
    from digestry.client.tag_removal import DigestTags
    from digestry.model.age_answers import AgeOverrideRequest, OverrideEntry, PassedOver, TagAge
    from digestry.model.digest_prefix import DigestPrefix
    from digestry.model.history import Holders, Restored, TagEvent, TagSpan
    from digestry.model.image_parts import LayerImages
    from digestry.model.sightings import SightingsOf

Progress = Callable[[int], None]
"""Called with the number of bytes that have arrived or left since the last call. An exception that it raises
ends the transfer."""


class Repository:
    """A repository. Thread-safe.

    A ``target`` is a tag, or a digest as text. Every method may raise :class:`~digestry.errors.Unreachable`,
    :class:`~digestry.errors.Unauthorized`, :class:`~digestry.errors.Refused` and
    :class:`~digestry.errors.ProtocolViolation`; each names the others that it raises. A method returns None,
    where it says so, for a registry without the needed extension, such as the journal or the tag history.
    """

    def __init__(self, connection: Connection, reference: Reference) -> None:
        self.connection = connection
        self.endpoint = RepositoryEndpoint(connection, reference)
        self.reference = self.endpoint.repository

    def expect(self, requests: int) -> None:
        """Prepare for so many requests at the same time: if the registry is far away, connections are
        opened ahead, beside the next request. Sends none.
        """
        self.connection.transport.expect(self.endpoint.host, requests)

    @property
    def is_far(self) -> bool:
        """Whether the registry is known to be so far away that two requests at once are faster than two in
        a row. Only one that was told to :meth:`expect` requests is."""
        return self.connection.transport.is_far(self.endpoint.host)

    # -- manifests ----------------------------------------------------------------------------

    def resolve(self, target: str, *, limit: int = LARGEST_MANIFEST) -> Descriptor:
        """Return the descriptor of a tag or digest.

        Costs one HEAD. If its response is incomplete, the manifest is pulled, of at most ``limit`` bytes.
        Raises :class:`~digestry.errors.RemoteNotFound`.
        """
        return manifests.resolve(self.endpoint, target, limit=limit)

    def find(self, target: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest; None if the registry does not have it.

        Costs one HEAD, whose 404 is believed. If its response is incomplete, the manifest is pulled.
        """
        return manifests.find(self.endpoint, target)

    def pull_manifest(self, target: str, *, limit: int = LARGEST_MANIFEST) -> Image | Index:
        """Return the image or index that a tag or digest points to, verified.

        Its bytes, at most ``limit``, match the requested digest, and the one that the registry claims. Raises
        :class:`~digestry.errors.RemoteNotFound` and :class:`~digestry.errors.DigestMismatch`.
        """
        return manifests.pull(self.endpoint, target, limit=limit)

    def pull_config(self, image: Image) -> ImageConfig:
        """Return the config of ``image``, verified.

        Raises :class:`~digestry.errors.RemoteNotFound`, :class:`~digestry.errors.DigestMismatch`,
        :class:`~digestry.errors.TooLarge`, and :class:`~digestry.errors.ProtocolViolation` for content that
        is not an image's config.
        """
        raw = self.read_blob(image.config)
        try:
            return ImageConfig.parse(raw, algorithm=image.config.digest.algorithm)
        except InvalidManifest as error:
            name = self.endpoint.display_name(str(image.digest))
            raise ProtocolViolation(f"{name}: {error.message}", hint=error.hint) from error

    def push_manifest(
        self,
        raw: bytes,
        media_type: str,
        *,
        tags: Sequence[str] = (),
        digest: Digest | None = None,
        replaces: Digest | None = None,
    ) -> Digest:
        """Push the bytes of a manifest, under ``tags`` or under its digest only, and return its digest.

        If it has a subject and the registry does not keep track of referrers, the subject's referrers tag is
        extended (distribution-spec, "Pushing Manifests with Subject"). With ``replaces``, a registry that can
        compare moves a single tag only if it points there; otherwise it refuses with 412. Raises
        :class:`~digestry.errors.DigestMismatch` if ``raw`` is not ``digest``'s,
        :class:`~digestry.errors.InvalidManifest`.
        """
        manifest, knows_subject = manifests.push(
            self.endpoint, raw, media_type, tags=tags, digest=digest, replaces=replaces
        )
        if manifest.subject is not None and not knows_subject:
            from digestry.client import referrers

            referrers.add_to_referrers_tag(self.endpoint, manifest)
        return manifest.digest

    def delete(self, target: str) -> None:
        """Delete a tag, or the manifest of a digest. Raises :class:`~digestry.errors.RemoteNotFound`.

        A manifest with a subject also leaves the list at its subject's referrers tag (distribution-spec,
        "Deleting Manifests").
        """
        if ":" not in target:
            manifests.delete(self.endpoint, target)
            return
        from digestry.client import manifest_removal

        manifest_removal.delete_manifest(self.endpoint, Digest.parse(target))

    def delete_tag(self, tag: str) -> bool:
        """Delete a tag, and keep its manifest; return False if the registry deletes digests only.

        Raises :class:`~digestry.errors.RemoteNotFound`.
        """
        from digestry.client import tag_removal

        return tag_removal.delete_tag(self.endpoint, tag)

    def tags_now(self, digest: Digest) -> DigestTags:
        """Return the tags that point to ``digest`` now.

        In a registry without that query, each of its tags is resolved.
        """
        from digestry.client import tag_removal

        return tag_removal.tags_now(self.endpoint, digest)

    def tags(
        self, on_invalid: Callable[[str], None] | None = None, *, pace: Callable[[], None] | None = None
    ) -> Iterator[str]:
        """Yield all tags, in the registry's order.

        ``on_invalid`` is called with a sentence about each entry that cannot be a tag; such an entry is left
        out. ``pace`` is called before each page after the first. Raises
        :class:`~digestry.errors.RemoteNotFound` while iterating.
        """
        from digestry.client import tags

        return tags.list_tags(self.endpoint, on_invalid, pace)

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Return the manifests that refer to ``digest`` as their subject (distribution-spec, "Listing
        Referrers").

        In a registry without that endpoint, the referrers tag is read.
        """
        from digestry.client import referrers

        return referrers.list_referrers(self.endpoint, digest, artifact_type)

    # -- blobs --------------------------------------------------------------------------------

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the repository has a blob."""
        return blobs.has_blob(self.endpoint, digest)

    def describe_blob(self, digest: Digest) -> Descriptor:
        """Return the descriptor of a blob, with its size as the registry says it.

        Raises :class:`~digestry.errors.RemoteNotFound`.
        """
        from digestry.client import blob_stream

        return blob_stream.describe_blob(self.endpoint, digest)

    def stream_blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield the bytes of a blob of any size, verified. After a broken connection the transfer continues.

        The last bytes are held back until all were checked. Raises :class:`~digestry.errors.RemoteNotFound`,
        :class:`~digestry.errors.DigestMismatch` and :class:`~digestry.errors.SizeMismatch` while iterating.
        """
        from digestry.client import blob_stream

        return blob_stream.stream_blob(self.endpoint, descriptor)

    def read_blob(self, descriptor: Descriptor, *, limit: int = SMALL) -> bytes:
        """Return the bytes of a small blob, verified.

        Raises :class:`~digestry.errors.TooLarge` if its declared size is above ``limit`` bytes,
        :class:`~digestry.errors.RemoteNotFound`, :class:`~digestry.errors.DigestMismatch`,
        :class:`~digestry.errors.SizeMismatch`.
        """
        return blobs.read_blob(self.endpoint, descriptor, limit=limit)

    def pull_blob(self, descriptor: Descriptor, sink: Ingest, progress: Progress | None = None) -> None:
        """Stream a blob into ``sink`` and commit it. After a broken connection the transfer continues.

        Raises :class:`~digestry.errors.RemoteNotFound`, :class:`~digestry.errors.DigestMismatch`,
        :class:`~digestry.errors.SizeMismatch`, and the sink's errors. The sink's owner aborts it then.
        """
        from digestry.client import blob_download

        blob_download.pull_blob(self.endpoint, descriptor, sink, progress)

    def push_blob(
        self,
        descriptor: Descriptor,
        source: Callable[[], BinaryIO],
        *,
        mount_from: str | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        """Make the repository have a blob, and return how: it was there, it was mounted, or it was sent.

        ``mount_from`` is a repository of the same registry that may have it. ``source`` opens the bytes anew
        for each attempt; they are verified while they are sent. For damaged ones, raises
        :class:`~digestry.errors.DigestMismatch` or :class:`~digestry.errors.SizeMismatch`.
        """
        from digestry.client import blob_upload

        return blob_upload.push_blob(self.endpoint, descriptor, source, mount_from, progress)

    # -- history ------------------------------------------------------------------------------

    def tag_history(self, tag: str) -> list[TagEvent] | None:
        """Return where ``tag`` has pointed, newest first (draft in distribution-spec#606).

        None if the registry keeps no history.
        """
        from digestry.client import tag_history

        return tag_history.tag_history(self.endpoint, tag)

    def journal(
        self,
        tag: str | None = None,
        *,
        limit: int | None = None,
        since: datetime.datetime | None = None,
        until: datetime.datetime | None = None,
    ) -> list[TagEvent] | None:
        """Return the journal of this repository, or of one ``tag``, newest first.

        At most ``limit`` entries, from ``since`` to ``until``, both inclusive. None if the registry keeps no
        journal.
        """
        from digestry.client import journal

        return journal.journal(self.endpoint, tag, limit, since, until)

    def tag_at(self, tag: str, at: datetime.datetime) -> TagSpan | None:
        """Return the digest that ``tag`` pointed to at a time, with its span, from the journal or else the
        tag history.

        None if the registry keeps neither. Raises :class:`~digestry.errors.RemoteNotFound` if there was no
        such tag then.
        """
        from digestry.client import past_tags

        return past_tags.tag_at(self.endpoint, tag, at)

    def tags_at(self, at: datetime.datetime) -> list[TagSpan] | None:
        """Return the tags that existed at a time.

        None if the registry has no such query, or no such repository.
        """
        from digestry.client import past_tags

        return past_tags.tags_at(self.endpoint, at)

    def restore(self, tag: str, to: Digest | datetime.datetime) -> Restored | None:
        """Point ``tag`` back at a digest that it had, or at the one that it had at a time.

        None if the registry cannot do that, or has no such repository. Raises
        :class:`~digestry.errors.RemoteNotFound` if the tag never existed, or the manifest is gone.
        """
        from digestry.client import past_tags

        return past_tags.restore(self.endpoint, tag, to)

    def tag_age(self, tag: str, seconds: int | None) -> TagAge | None:
        """Return what ``tag`` resolves to if a digest must have stood under it for ``seconds``, and why; with
        None, for as long as the registry's own rule says.

        None if the registry does not know that: it keeps no journal. Raises
        :class:`~digestry.errors.RemoteNotFound` if there is no such tag.
        """
        from digestry.client import ages

        return ages.tag_age(self.endpoint, tag, seconds)

    def age_overrides(self, *, ended: bool = False) -> tuple[OverrideEntry, ...] | None:
        """Return the overrides of minimum ages that are in force, the newest first; with ``ended`` the others
        too. None if the registry has no such thing."""
        from digestry.client import ages

        return ages.overrides(self.endpoint, ended=ended)

    def allow_young(self, wanted: AgeOverrideRequest) -> OverrideEntry | None:
        """Let a digest through before its minimum age. None if the registry has no such thing."""
        from digestry.client import ages

        return ages.allow(self.endpoint, wanted)

    def revoke_young(self, number: int, reason: str) -> OverrideEntry | None:
        """End an override. None if the registry has no such thing."""
        from digestry.client import ages

        return ages.revoke(self.endpoint, number, reason)

    def tags_for_digest(
        self, digest: Digest, limit: int | None = None, *, layers: bool = False
    ) -> list[TagSpan] | None:
        """Return each span of a tag at ``digest``, or at an index that holds it, newest first.

        At most ``limit`` of them. With ``layers`` the digest may be a layer's: then they are spans at the
        images with it. None if the registry has no such query.
        """
        from digestry.client import digest_queries

        return digest_queries.tags_for_digest(self.endpoint, digest, limit, layers=layers)

    def holders(self, digest: Digest) -> Holders | None:
        """Return the manifests that hold ``digest``. None if the registry has no such query."""
        from digestry.client import digest_queries

        return digest_queries.holders(self.endpoint, digest)

    def images_with_layer(self, layer: Digest, *, limit: int = 100) -> LayerImages | None:
        """Return up to ``limit`` images of the repository that have ``layer``, those with the fewest layers
        first. None if the registry has no such query."""
        from digestry.client import digest_queries

        return digest_queries.images_with_layer(self.endpoint, layer, limit)

    def sightings(self, digest: Digest, *, limit: int = 100) -> SightingsOf | None:
        """Return where ``digest`` was seen running, the ``limit`` latest of the places.

        None if the registry keeps no sightings.
        """
        from digestry.client import sightings

        return sightings.sightings_of(self.endpoint, digest, limit)

    def find_digest(self, prefix: DigestPrefix) -> Digest:
        """Return the one digest that begins with ``prefix``, of all that the repository has or had.

        In a registry without that query, only the digests that its tags point to now are searched. Raises
        :class:`~digestry.errors.NotFound` and :class:`~digestry.errors.Ambiguous`.
        """
        from digestry.client import prefix_search

        return prefix_search.find_in_repository(self.endpoint, prefix)

    # -- doubts -------------------------------------------------------------------------------

    def staleness(self, target: str) -> str:
        """Return why a pull-through registry's answer for ``target`` may differ from its upstream now.

        It is the registry's own words about a tag that was resolved, or a digest whose referrers were listed
        (docs/mirror.md). Empty if the answer is current, or if the registry has no upstream.
        """
        status = self.connection.cache.upstream_status.get((self.endpoint.name, target), "")
        return "" if status.partition(";")[0].strip() in {"", "current"} else status

    def passed_over(self, tag: str) -> PassedOver | None:
        """Return where a tag that was resolved points, if the registry's minimum age has a pull by it get an
        older digest, or none; None if it points to what a pull gets (docs/min-age.md)."""
        from digestry.model.age_answers import read_header

        return read_header(self.connection.cache.ages.get((self.endpoint.name, tag), ""))

    def head_get_mismatch(self, tag: str) -> str:
        """Return how a GET contradicts the HEAD of a resolved tag; empty if it does not.

        Sends no request to a registry that counts GETs as pulls.
        """
        return manifests.head_get_mismatch(self.endpoint, tag)

    def __repr__(self) -> str:
        return f"Repository({str(self.reference)!r})"
