"""What is attached to an image in another registry: signatures, attestations and other referrers."""

from __future__ import annotations

import threading
from typing import Final

from digestry.errors import RemoteNotFound
from digestry.model.digest import Digest
from digestry.observer.hosts import Host
from digestry.registry.observed_targets import Target

_COSIGN: Final = {"sig": "cosign signature", "att": "cosign attestation", "sbom": "cosign SBOM"}
_DIGITS: Final = 64
_LIMIT: Final = 4 << 20


def attachments(
    host: Host,
    target: Target,
    digest: Digest,
    listed: frozenset[str] | None,
    stop: threading.Event,
    *,
    with_tags: bool,
) -> frozenset[str]:
    """Return the kinds of what is attached to an image: artifact types of its referrers, and what cosign puts
    under tags.

    ``listed`` are such tags in the repository's last list; ``with_tags`` they are asked for as well, since
    that list may be from before. Raises the errors of an upstream.
    """
    host.require_turn(stop)
    try:
        with host.mirror.requesting():
            found = host.mirror.upstream.referrers(target.upstream_name, digest)
    except RemoteNotFound:
        found = ()
    kinds = {one.artifact_type or one.media_type for one in found}
    start = f"{digest.algorithm}-{digest.encoded[:_DIGITS]}"
    for suffix, kind in _COSIGN.items():
        tag = f"{start}.{suffix}"
        if (listed is not None and tag in listed) or (with_tags and _exists(host, target, tag, stop)):
            kinds.add(kind)
    return frozenset(kinds)


def _exists(host: Host, target: Target, tag: str, stop: threading.Event) -> bool:
    host.require_turn(stop)
    try:
        with host.mirror.requesting():
            host.mirror.upstream.check(target.upstream_name, tag, "", _LIMIT)
    except RemoteNotFound as error:
        if error.code == "":
            raise
        return False
    return True
