"""The referrers of a manifest: the registry's list, or the fallback tag of the specification.

Distribution-spec, "Listing Referrers", "Referrers Tag Schema", "Pushing Manifests with Subject".
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from digestry.client import manifests
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.paging import pages
from digestry.errors import InvalidManifest, ProtocolViolation, Refused, RemoteDamaged, RemoteNotFound
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest, encode

_LARGEST_LIST: Final = 16 << 20
_LONGEST_HEX: Final = 64
_MOST_TRIES: Final = 12
_MOST_REFUSALS: Final = 4
_UNKNOWN: Final = frozenset({"MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"})
_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 5.0
"""Seconds; some registries show for a moment what a tag pointed to before."""


def fallback_tag(digest: Digest) -> str:
    """Return the tag that lists the referrers of ``digest`` ("Referrers Tag Schema")."""
    return f"{digest.algorithm}-{digest.encoded[:_LONGEST_HEX]}"


def list_referrers(
    endpoint: RepositoryEndpoint, digest: Digest, artifact_type: str | None
) -> list[Descriptor]:
    """Return the referrers of ``digest``. See :meth:`Repository.referrers`."""
    query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
    filters = frozenset({"artifacttype"} if artifact_type else ())
    found: list[Descriptor] = []
    for number, response in enumerate(pages(endpoint, f"referrers/{digest}{query}")):
        if response.status in {404, 405} and number == 0:
            found = list(_by_tag(endpoint, digest))
            break
        if response.status != 200:
            response.fail(f"list what refers to {endpoint.display_name(str(digest))}")
        try:
            page = Manifest.parse(response.read(_LARGEST_LIST), media_types.OCI_INDEX)
        except InvalidManifest as error:
            raise ProtocolViolation(f"{response.host} sent no list of referrers: {error.message}") from error
        if _filters(response.headers.get("OCI-Filters-Applied") or "") - filters:
            raise ProtocolViolation(f"{response.host} left some of what refers to {digest} out of its list")
        response.entries = len(page.manifests)
        found += page.manifests
    if artifact_type is None:
        return found
    # Filtered here in any case: it costs nothing, and a filter that was "applied" is a claim.
    return [entry for entry in found if entry.artifact_type == artifact_type]


def _filters(applied: str) -> frozenset[str]:
    """Return the names in ``OCI-Filters-Applied``."""
    return frozenset(name.strip().lower() for name in applied.split(",")) - {""}


def _by_tag(endpoint: RepositoryEndpoint, digest: Digest) -> tuple[Descriptor, ...]:
    tag = fallback_tag(digest)
    try:
        listing = manifests.pull(endpoint, tag)
    except RemoteDamaged:
        raise
    except RemoteNotFound:
        return ()
    if listing.digest == digest:
        return ()  # `cosign copy` and `cosign load` leave the image itself there, which lists nothing
    if not listing.is_index:
        raise ProtocolViolation(f"{endpoint.display_name(tag)} should list referrers, but is an image")
    return listing.manifests


def add_to_referrers_tag(endpoint: RepositoryEndpoint, manifest: Manifest) -> None:
    """Add ``manifest`` to its subject's referrers tag, for a registry without the endpoint.

    Raises :class:`ProtocolViolation` if that tag is no list of referrers ("Pushing Manifests with Subject"),
    or if other clients write it all the time.
    """
    assert manifest.subject is not None  # noqa: S101 - the caller has looked
    subject = manifest.subject.digest
    _change_list(endpoint, subject, lambda: _added(endpoint, subject, manifest))


def _added(
    endpoint: RepositoryEndpoint, subject: Digest, manifest: Manifest
) -> tuple[dict[str, Any], str] | None:
    """Return the list with ``manifest`` and its media type; None if it is there already."""
    tag = fallback_tag(subject)
    # Any: the index of another tool keeps the fields that it has.
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}
    try:
        present = manifests.pull(endpoint, tag)
    except RemoteNotFound:
        pass
    else:
        if present.digest == subject:
            # The image's own index is no list either: an entry in it would look like one of its platforms.
            name = endpoint.display_name(tag)
            raise ProtocolViolation(
                f"{name} should list referrers, but is the image itself, as `cosign copy` leaves it",
                hint=f"this registry needs that tag for the list; delete it: digestry rm {name}",
            )
        if not present.is_index:
            raise ProtocolViolation(f"{endpoint.display_name(tag)} should list referrers, but is an image")
        index = msgspec.json.decode(present.raw)
    if any(entry.get("digest") == str(manifest.digest) for entry in index["manifests"]):
        return None
    entry: dict[str, object] = {
        "mediaType": manifest.media_type,
        "digest": str(manifest.digest),
        "size": manifest.size,
    }
    if manifest.artifact_type:
        entry["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        entry["annotations"] = manifest.annotations
    index["manifests"].append(entry)
    return index, media_types.OCI_INDEX


def remove_from_referrers_tag(
    endpoint: RepositoryEndpoint, subject: Digest, referrer: Digest
) -> Digest | None:
    """Take ``referrer`` out of the list at the referrers tag of ``subject``.

    Returns the digest of the list that the tag pointed to before; None if ``referrer`` was not in it. Raises
    :class:`ProtocolViolation` if other clients write it all the time.
    """
    replaced: list[Digest] = []

    def removed() -> tuple[dict[str, Any], str] | None:
        try:
            present = manifests.pull(endpoint, fallback_tag(subject))
        except RemoteNotFound:
            return None
        if not present.is_index or present.digest == subject:
            return None
        # Any: as above.
        index: dict[str, Any] = msgspec.json.decode(present.raw)
        kept = [entry for entry in index["manifests"] if entry.get("digest") != str(referrer)]
        if len(kept) == len(index["manifests"]):
            return None
        index["manifests"] = kept
        replaced.append(present.digest)
        return index, present.media_type

    _change_list(endpoint, subject, removed)
    return replaced[-1] if replaced else None


def _change_list(
    endpoint: RepositoryEndpoint, subject: Digest, change: Callable[[], tuple[dict[str, Any], str] | None]
) -> None:
    """Put the list that ``change`` makes of the present one under the referrers tag of ``subject``, until it
    has nothing more to change.

    Registries do not compare before they move a tag: of two clients that extend a list at once, one
    overwrites the other's. Each therefore looks again, after as long as the other may have needed.
    """
    tag = fallback_tag(subject)
    refused = 0
    gone: set[str] = set()
    for number in range(_MOST_TRIES):
        began = time.monotonic()
        changed = change()
        if changed is None:
            return
        index, media_type = changed
        index["manifests"] = [entry for entry in index["manifests"] if entry.get("digest") not in gone]
        try:
            manifests.push(endpoint, encode(index), media_type, tags=[tag])
        except Refused as error:
            # Another client deleted what the list still names. Registries refuse such a list, so that nobody
            # can take out the entry of one while there is another.
            refused += 1
            if error.code not in _UNKNOWN or refused == _MOST_REFUSALS:
                raise
            listed = {str(entry.get("digest")) for entry in index["manifests"]}
            gone |= {digest for digest in listed if manifests.find(endpoint, digest) is None}
        took = time.monotonic() - began
        # Not all who met each other here look again at the same moment.
        pause = max(took * random.uniform(1.5, 3), _PAUSE * 2**number)  # noqa: S311 - no secret
        time.sleep(min(_LONGEST_PAUSE, pause))
    raise ProtocolViolation(
        f"{endpoint.display_name(tag)} lists what refers to {subject}, and other clients overwrote it "
        f"{_MOST_TRIES} times",
        hint="try again when they are done: what they wrote is in the list, and this may be missing in it",
    )
