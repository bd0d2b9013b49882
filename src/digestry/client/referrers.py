"""The referrers of a manifest: the registry's list, or the fallback tag of the specification.

Distribution-spec, "Listing Referrers", "Referrers Tag Schema", "Pushing Manifests with Subject".
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from digestry.client import manifests
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.paging import pages
from digestry.errors import InvalidManifest, ProtocolViolation, RemoteDamaged, RemoteNotFound
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest, encode

_LARGEST_LIST: Final = 16 << 20
_LONGEST_HEX: Final = 64


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

    Raises :class:`ProtocolViolation` if that tag is no list of referrers ("Pushing Manifests with Subject").
    """
    assert manifest.subject is not None  # noqa: S101 - the caller has looked
    tag = fallback_tag(manifest.subject.digest)
    # Any: the index of another tool keeps the fields that it has.
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}
    try:
        present = manifests.pull(endpoint, tag)
    except RemoteNotFound:
        pass
    else:
        if present.digest == manifest.subject.digest:
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
        return
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
    manifests.push(endpoint, encode(index), media_types.OCI_INDEX, tags=[tag])


def remove_from_referrers_tag(
    endpoint: RepositoryEndpoint, subject: Digest, referrer: Digest
) -> Digest | None:
    """Take ``referrer`` out of the list at the referrers tag of ``subject``.

    Returns the digest of the list that the tag pointed to before; None if ``referrer`` was not in it.
    """
    tag = fallback_tag(subject)
    try:
        present = manifests.pull(endpoint, tag)
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
    manifests.push(endpoint, encode(index), present.media_type, tags=[tag])
    return present.digest
