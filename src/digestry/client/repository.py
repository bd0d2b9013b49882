"""One repository of one registry (OCI distribution-spec 1.1)."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, BinaryIO, Final, NoReturn
from urllib.parse import urlencode, urlsplit

import msgspec

from digestry.blobs.protocols import SMALL, Ingest
from digestry.blobs.verify import Verifier, wrong_hash
from digestry.client import blob_download, blob_upload, history, manifests, referrers, sightings
from digestry.client.paging import pages
from digestry.client.responses import Response, escaped
from digestry.client.session import Session
from digestry.client.transport import Body, Call
from digestry.errors import InvalidManifest, InvalidReference, ProtocolViolation, TooLarge
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, shown
from digestry.model.history import Holders, Restored, TagEvent, TagSpan
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference, check_tag
from digestry.model.sightings import SightingsOf

LARGEST_MANIFEST: Final = 16 << 20
_MIRRORED: Final = ("/manifests", "/referrers")
_TAGS_PAGE: Final = 1000
_TAGS_BODY: Final = 16 << 20
_LIMITED: Final = 429
_OUTAGES: Final = frozenset({502, 503, 504})
_LIMIT_TOLD: Final = "RateLimit-Limit"
"""A header of registries that count pulls, which are the GETs of manifests."""
_UNTOLD_BY_HEAD: Final = frozenset({400, 403, 405, 500, 501})
ACCEPT: Final = {"Accept": ", ".join(sorted(media_types.MANIFESTS))}
Progress = Callable[[int], None]
"""Told how many more bytes have arrived or left. What it raises ends the transfer."""


class _TagList(msgspec.Struct):
    tags: Annotated[list[Any], msgspec.Meta(max_length=1_000_000)] | None = None


class Repository:
    """Thread-safe. Every method may raise :class:`Unreachable`, :class:`Unauthorized`,
    :class:`Refused` and :class:`ProtocolViolation`; others are named where they may come.
    """

    def __init__(self, session: Session, reference: Reference) -> None:
        self.session = session
        self.reference = reference
        name = reference.repository
        self._pull = (f"repository:{name}:pull",)
        self._push = (f"repository:{name}:pull,push",)
        self._delete = (f"repository:{name}:delete",)

    # -- asking -------------------------------------------------------------------------------

    def url(self, path: str) -> str:
        """The address of ``path`` (``manifests/…``) in this repository."""
        base = self.session.transport.base(self.reference.host)
        return f"{base}/v2/{self.reference.repository}/{path}"

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        push: bool = False,
        scopes: Sequence[str] = (),
        repeatable: bool = True,
    ) -> Response:
        """Sends one request about this repository; ``path`` may be a whole address.

        ``scopes`` are token scopes beside this repository's own. The answer may have any status.
        """
        url = path if "://" in path else self.url(path)
        own = self._delete if method == "DELETE" else self._push if push else self._pull
        call = Call(method, url, headers or {}, body, repeatable)
        response = self.session.send(self.reference.host, call, (*own, *scopes))
        upstream = response.headers.get("Digestry-Upstream")
        if upstream is not None:
            what, _, target = urlsplit(url).path.rpartition("/")
            if what.endswith(_MIRRORED):
                self.session.upstream_status[self.reference.name, target] = escaped(upstream)
        return response

    def display_name(self, target: str) -> str:
        """``target`` of this repository as messages name it."""
        return f"{self.reference.name}{'@' if ':' in target else ':'}{target}"

    # -- manifests ----------------------------------------------------------------------------

    def resolve(self, target: str, *, limit: int = LARGEST_MANIFEST) -> Descriptor:
        """What a tag or digest points to, as the registry says. Raises :class:`RemoteNotFound`.

        ``limit`` is as for :meth:`pull_manifest`, which is asked if the registry does not say it otherwise.
        """
        with self.request("HEAD", f"manifests/{target}", headers=ACCEPT) as response:
            if response.status == 200:
                digest, size = response.digest(), response.length
                kind = media_types.bare(response.headers.get("Content-Type", ""))
                if digest is not None and size is not None and kind in media_types.MANIFESTS:
                    _check_asked(target, digest, response)
                    if ":" not in target and _LIMIT_TOLD not in response.headers:
                        self.session.head_digests[self.reference.name, target] = digest
                    return Descriptor(kind, digest, size)
            elif response.status == _LIMITED or response.status in _OUTAGES:  # asking again makes it worse
                response.fail(f"find {self.display_name(target)}")
        # What a HEAD was refused, or answered without a digest, a GET may tell: HEAD comes first all the
        # same, since limits count pulls.
        return self.pull_manifest(target, limit=limit).descriptor()

    def pull_manifest(self, target: str, *, limit: int = LARGEST_MANIFEST) -> Manifest:
        """The manifest or index of a tag or digest.

        Its bytes, of which no more than ``limit`` are read, were checked against the digest asked for, or
        the one the registry claims. Raises :class:`RemoteNotFound` and :class:`DigestMismatch`.
        """
        with self.request("GET", f"manifests/{target}", headers=ACCEPT) as response:
            if response.status != 200:
                response.fail(f"get {self.display_name(target)}")
            claimed = response.digest()
            kind = media_types.bare(response.headers.get("Content-Type", ""))
            raw = response.read(limit)
        wanted = Digest.parse(target) if ":" in target else claimed
        for expected in {digest for digest in (wanted, claimed) if digest is not None}:
            found = Digest.of(raw, expected.algorithm)
            if found != expected:
                raise wrong_hash(expected, found)
        try:
            return Manifest.parse(
                raw,
                kind if kind in media_types.MANIFESTS else None,
                algorithm=wanted.algorithm if wanted else "sha256",
            )
        except InvalidManifest as error:
            raise ProtocolViolation(
                f"{self.display_name(target)}: {error.message}", hint=error.hint
            ) from error

    def push_manifest(
        self, raw: bytes, media_type: str, *, tags: Sequence[str] = (), digest: Digest | None = None
    ) -> Digest:
        """Sends a manifest under ``tags``, or without any under its digest only; returns its digest.

        If it has a subject and the registry knows no referrers, the subject's referrers tag is
        extended (distribution-spec, "Pushing Manifests with Subject"). Raises
        :class:`DigestMismatch` if ``raw`` is not ``digest``'s, :class:`InvalidManifest`.
        """
        return manifests.push(self, raw, media_type, tags, digest)

    def delete(self, target: str) -> None:
        """Deletes a tag, or the manifest of a digest. Raises :class:`RemoteNotFound`."""
        with self.request("DELETE", f"manifests/{target}") as response:
            if response.status not in {200, 202, 204}:
                response.fail(f"delete {self.display_name(target)}")

    def tags(self, odd: Callable[[str], None] | None = None) -> Iterator[str]:
        """All tags, in the registry's order. Raises :class:`RemoteNotFound` while iterating.

        What is listed but cannot be a tag, so that nobody can ask for it, is left out; ``odd`` is told.
        """
        first = f"tags/list?{urlencode({'n': _TAGS_PAGE})}"
        for response in pages(self, first):
            if response.status != 200:
                response.fail(f"list the tags of {self.reference.name}")
            page: _TagList = response.json(_TagList, _TAGS_BODY)
            response.entries = len(page.tags or ())
            for tag in page.tags or ():
                try:
                    if not isinstance(tag, str):
                        raise InvalidReference(f"{shown(str(tag))} is no text")
                    yield check_tag(tag)
                except InvalidReference as error:
                    if odd is not None:
                        odd(f"the registry lists what is no tag: {error.message}")

    # -- blobs --------------------------------------------------------------------------------

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has this blob."""
        with self.request("HEAD", f"blobs/{digest}") as response:
            if response.status in {200, 404}:
                return response.status == 200
            if response.status not in _UNTOLD_BY_HEAD:
                response.fail(f"look for blob {digest} in {self.reference.name}")
        # Storage may have signed its address for GET alone.
        with self.request("GET", f"blobs/{digest}", headers={"Range": "bytes=0-0"}) as response:
            return response.status in {200, 206}

    def read_blob(self, descriptor: Descriptor, *, limit: int = SMALL) -> bytes:
        """A small blob, verified. Raises :class:`TooLarge` if it is declared above ``limit`` bytes,
        :class:`RemoteNotFound`, :class:`DigestMismatch`, :class:`SizeMismatch`."""
        if descriptor.size > limit:
            raise TooLarge(
                f"{descriptor.digest} of {self.reference.name} has {descriptor.size} bytes, "
                f"more than the {limit} that are read at once",
                limit=limit,
            )
        with self.request("GET", f"blobs/{descriptor.digest}") as response:
            if response.status != 200:
                response.fail(f"get blob {descriptor.digest} of {self.reference.name}")
            if response.encoding and response.length != descriptor.size:
                response.decode(of_gzip=descriptor.media_type.endswith("gzip"))
            verifier = Verifier(descriptor.digest, descriptor.size)
            parts: list[bytes] = []
            for chunk in response.chunks(min(1 << 20, descriptor.size + 1)):
                verifier.update(chunk)
                parts.append(chunk)
        verifier.finish()
        return b"".join(parts)

    def pull_blob(self, descriptor: Descriptor, sink: Ingest, progress: Progress | None = None) -> None:
        """Streams a blob into ``sink`` and commits that; a broken connection is taken up again.

        Raises :class:`RemoteNotFound`, :class:`DigestMismatch`, :class:`SizeMismatch`, and what
        the sink raises. The sink is not aborted then: that is its owner's part.
        """
        blob_download.fetch(self, descriptor, sink, progress)

    def push_blob(
        self,
        descriptor: Descriptor,
        source: Callable[[], BinaryIO],
        *,
        mount_from: str | None = None,
        progress: Progress | None = None,
    ) -> blob_upload.Outcome:
        """Makes the repository have a blob: it is there, is mounted from the repository
        ``mount_from`` of the same registry, or is sent; says which.

        ``source`` opens the bytes anew for each attempt. They are verified while they are sent:
        raises :class:`DigestMismatch` or :class:`SizeMismatch` if they are damaged.
        """
        return blob_upload.push_blob(self, descriptor, source, mount_from, progress)

    # -- relations and history ----------------------------------------------------------------

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """What refers to ``digest`` as its subject (distribution-spec, "Listing Referrers").

        A registry without that endpoint is asked for the referrers tag instead.
        """
        return referrers.listed(self, digest, artifact_type)

    def tag_history(self, tag: str) -> list[TagEvent] | None:
        """Where ``tag`` has pointed, newest first, by the draft in distribution-spec#606; None if
        the registry keeps no history."""
        return history.tag_history(self, tag)

    def journal(
        self,
        tag: str | None = None,
        *,
        limit: int | None = None,
        since: datetime.datetime | None = None,
        until: datetime.datetime | None = None,
    ) -> list[TagEvent] | None:
        """The journal of this repository, or of one ``tag``, newest first; at most ``limit``
        entries, from ``since`` to ``until``. None if the registry keeps none."""
        return history.journal(self, tag, limit, since, until)

    def tag_at(self, tag: str, at: datetime.datetime) -> TagSpan | None:
        """What ``tag`` pointed to at a time; also from a registry that has only the draft's tag
        history. None if it keeps no history at all; :class:`RemoteNotFound` if there was no such tag."""
        return history.tag_at(self, tag, at)

    def tags_at(self, at: datetime.datetime) -> list[TagSpan] | None:
        """The tags that there were at a time; None if the registry cannot be asked that, or has no
        such repository."""
        return history.tags_at(self, at)

    def tags_for_digest(self, digest: Digest, limit: int | None = None) -> list[TagSpan] | None:
        """Each time that a tag came to ``digest``, or to what holds it, newest first; the first
        ``limit``, if given. None if the registry cannot be asked that."""
        return history.tags_for_digest(self, digest, limit)

    def restore(self, tag: str, wanted: Digest | datetime.datetime) -> Restored | None:
        """Points ``tag`` back at a digest that it had, or at what it had at a time; None if the
        registry cannot, or has no such repository. Raises :class:`RemoteNotFound` if the tag never
        was there, or the manifest is gone."""
        return history.restore(self, tag, wanted)

    def holders(self, digest: Digest) -> Holders | None:
        """Which manifests hold ``digest``; None if the registry cannot be asked that."""
        return history.holders(self, digest)

    def sightings(self, digest: Digest, *, limit: int = 100) -> SightingsOf | None:
        """Where ``digest`` was seen running, the ``limit`` latest of the places; None if the registry
        keeps no sightings."""
        return sightings.of(self, digest, limit)

    def __repr__(self) -> str:
        return f"Repository({str(self.reference)!r})"


def _check_asked(target: str, digest: Digest, response: Response) -> None:
    if ":" not in target:
        return
    wanted = Digest.parse(target)
    if digest.algorithm == wanted.algorithm and digest != wanted:
        _mixed_up(response, wanted, digest)


def _mixed_up(response: Response, wanted: Digest, digest: Digest) -> NoReturn:
    raise ProtocolViolation(f"{response.host} was asked for {wanted}, and answers that it is {digest}")
