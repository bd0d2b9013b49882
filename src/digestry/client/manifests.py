"""Manifests of a repository: resolve, pull, push, delete (distribution-spec, "Pulling manifests")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from digestry.blobs.verify import wrong_hash
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.responses import Response, digest_disagreement
from digestry.errors import DigestMismatch, DigestryError, InvalidManifest, ProtocolViolation, RemoteNotFound
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image, Index, Manifest, parse_manifest
from digestry.model.reference import check_tag

LARGEST_MANIFEST: Final = 16 << 20
"""The most bytes of a manifest that are read, unless a caller allows another number."""
ACCEPT: Final = {"Accept": ", ".join(sorted(media_types.MANIFESTS))}
_ASK_LATER: Final = frozenset({429, 502, 503, 504})
_NOT_FOUND: Final = 404
_AGE: Final = "Digestry-Age"  # model/age_answers.py has it too, and takes long to load
_RATE_LIMIT: Final = "RateLimit-Limit"
"""A header of registries that count pulls, which are the GETs of manifests."""


def resolve(endpoint: RepositoryEndpoint, target: str, *, limit: int = LARGEST_MANIFEST) -> Descriptor:
    """Return the descriptor of a tag or digest. See :meth:`Repository.resolve`."""
    # A registry that refuses a HEAD, or answers it without a digest, may answer a GET. HEAD comes first all
    # the same, since rate limits count pulls.
    return _head(endpoint, target)[1] or pull(endpoint, target, limit=limit).descriptor()


def find(endpoint: RepositoryEndpoint, target: str) -> Descriptor | None:
    """Return the descriptor of a tag or digest; None if there is none. See :meth:`Repository.find`."""
    status, found = _head(endpoint, target)
    if found is not None or status == _NOT_FOUND:
        return found
    try:
        return pull(endpoint, target).descriptor()
    except RemoteNotFound:
        return None


def _head(endpoint: RepositoryEndpoint, target: str) -> tuple[int, Descriptor | None]:
    """Return the status of the response to HEAD, and the descriptor in its headers, if it is there."""
    with endpoint.request("HEAD", f"manifests/{target}", headers=ACCEPT) as response:
        found = None
        if ":" not in target:
            endpoint.connection.cache.ages[endpoint.name, target] = response.headers.get(_AGE, "")
        if response.status == 200:
            found = described(response, target)
            if found is not None and ":" not in target and _RATE_LIMIT not in response.headers:
                endpoint.connection.cache.head_digests[endpoint.name, target] = found.digest
        elif response.status in _ASK_LATER:  # asking again would make it worse
            response.fail(f"find {endpoint.display_name(target)}")
        return response.status, found


def described(response: Response, target: str) -> Descriptor | None:
    """Return the descriptor in the headers of a response to HEAD; None if they are incomplete."""
    digest, size = response.digest(), response.length
    media_type = media_types.bare(response.headers.get("Content-Type", ""))
    if digest is None or size is None or media_type not in media_types.MANIFESTS:
        return None
    if ":" in target:
        expected = Digest.parse(target)
        if digest.algorithm == expected.algorithm and digest != expected:
            raise ProtocolViolation(
                f"{response.host} was asked for {expected}, and answers that it is {digest}"
            )
    return Descriptor(media_type, digest, size)


def pull(endpoint: RepositoryEndpoint, target: str, *, limit: int = LARGEST_MANIFEST) -> Image | Index:
    """Return the manifest of a tag or digest, verified. See :meth:`Repository.pull_manifest`."""
    with endpoint.request("GET", f"manifests/{target}", headers=ACCEPT) as response:
        if response.status != 200:
            response.fail(f"get {endpoint.display_name(target)}")
        return read(endpoint, response, target, limit=limit)


def read(endpoint: RepositoryEndpoint, response: Response, target: str, *, limit: int) -> Image | Index:
    """Return the manifest in the response to a GET, verified. Raises as :func:`pull` does."""
    claimed = response.digest()
    media_type = media_types.bare(response.headers.get("Content-Type", ""))
    if media_type in media_types.SCHEMA_1:
        # Said before its digest is compared: that of a signed one is not of all of its bytes.
        raise ProtocolViolation(
            f"{endpoint.display_name(target)} is a docker schema 1 manifest, which is not supported",
            hint="push the image with a newer client",
        )
    raw = response.read(limit)
    required = Digest.parse(target) if ":" in target else claimed
    for expected in {digest for digest in (required, claimed) if digest is not None}:
        found = Digest.of(raw, expected.algorithm)
        if found != expected:
            raise wrong_hash(expected, found)
    try:
        return parse_manifest(
            raw,
            media_type if media_type in media_types.MANIFESTS else None,
            algorithm=required.algorithm if required else "sha256",
        )
    except InvalidManifest as error:
        raise ProtocolViolation(
            f"{endpoint.display_name(target)}: {error.message}", hint=error.hint
        ) from error


def head_get_mismatch(endpoint: RepositoryEndpoint, tag: str) -> str:
    """Return why HEAD cannot be believed of a tag. See :meth:`Repository.head_get_mismatch`."""
    cached = endpoint.connection.cache.head_digests.get((endpoint.name, tag))
    if cached is None:
        return ""
    host = endpoint.host
    try:
        raw = pull(endpoint, tag).raw
    except RemoteNotFound:
        return f"{host} has the tag when it is asked with HEAD, and does not have it for GET"
    except DigestMismatch as error:
        return error.message
    except DigestryError:  # containerd believes HEAD, too
        return ""
    found = Digest.of(raw, cached.algorithm)
    return "" if found == cached else f"{host} says {cached} for HEAD, and gives {found} for GET"


def push(
    endpoint: RepositoryEndpoint,
    raw: bytes,
    media_type: str,
    *,
    tags: Sequence[str] = (),
    digest: Digest | None = None,
    replaces: Digest | None = None,
) -> tuple[Manifest, bool]:
    """Send a manifest under ``tags``, or under its digest only (distribution-spec, "Pushing Manifests").

    With ``replaces``, a single tag is moved only if it points there, by a registry that compares (RFC 9110,
    section 13.1.1); it refuses with 412 otherwise.

    Returns the manifest, and whether the registry keeps track of its subject's referrers. Raises
    :class:`DigestMismatch` if ``raw`` is not ``digest``'s, :class:`InvalidManifest`.
    """
    expected = digest or Digest.of(raw)
    found = Digest.of(raw, expected.algorithm)
    if found != expected:
        raise wrong_hash(expected, found)
    manifest = Manifest.parse(raw, media_type, algorithm=expected.algorithm)
    for tag in tags:
        check_tag(tag)
    if len(tags) == 1 and expected.algorithm == "sha256":
        return manifest, _put(endpoint, manifest, tags[0], replaces)[0]
    # One request for all of the tags (a part of the spec's draft). A registry that does not know it ignores
    # the query, and names no tag in its response.
    query = urlencode([("tag", tag) for tag in tags])
    knows_subject, tagged = _put(endpoint, manifest, f"{expected}?{query}" if query else str(expected))
    for tag in tags:
        if tag not in tagged:
            # Some registries take another digest than SHA-256's so; others ignore that query, too.
            query = "" if expected.algorithm == "sha256" else f"?{urlencode({'digest': str(expected)})}"
            _put(endpoint, manifest, f"{tag}{query}")
    return manifest, knows_subject


def _put(
    endpoint: RepositoryEndpoint, manifest: Manifest, target: str, replaces: Digest | None = None
) -> tuple[bool, set[str]]:
    """Send a manifest; return whether the registry knows its subject, and the tags that it says it set."""
    condition = {} if replaces is None else {"If-Match": f'"{replaces}"'}
    with endpoint.request(
        "PUT",
        f"manifests/{target}",
        headers={"Content-Type": manifest.media_type, **condition},
        body=manifest.raw,
        push=True,
    ) as response:
        if response.status not in {200, 201, 202}:
            response.fail(f"push {endpoint.display_name(target.partition('?')[0])}")
        stated = response.digest()
        if stated is not None and stated.algorithm == manifest.digest.algorithm and stated != manifest.digest:
            raise digest_disagreement(response.host, stated, manifest.digest)
        tagged = {tag.strip() for value in response.headers.getlist("OCI-Tag") for tag in value.split(",")}
        return "OCI-Subject" in response.headers, tagged


def delete(endpoint: RepositoryEndpoint, target: str) -> None:
    """Delete a tag, or the manifest of a digest. Raises :class:`RemoteNotFound`."""
    with endpoint.request("DELETE", f"manifests/{target}") as response:
        if response.status not in {200, 202, 204}:
            response.fail(f"delete {endpoint.display_name(target)}")
