"""Pushing manifests: by tag, by several tags, by digest (distribution-spec, "Pushing Manifests")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from digestry.blobs.verify import wrong_hash
from digestry.client import referrers
from digestry.client.responses import complain_digest
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.reference import check_tag

if TYPE_CHECKING:
    from digestry.client.repository import Repository


def push(
    repository: Repository, raw: bytes, media_type: str, tags: Sequence[str], digest: Digest | None
) -> Digest:
    """See :meth:`Repository.push_manifest`."""
    wanted = digest or Digest.of(raw)
    found = Digest.of(raw, wanted.algorithm)
    if found != wanted:
        raise wrong_hash(wanted, found)
    manifest = Manifest.parse(raw, media_type, algorithm=wanted.algorithm)
    for tag in tags:
        check_tag(tag)
    if len(tags) == 1 and wanted.algorithm == "sha256":
        subject_known = _put(repository, manifest, tags[0])[0]
    else:
        # One request for all of them (a part of the spec's draft); a registry that does not know it
        # ignores the query, and names no tag in its answer.
        query = urlencode([("tag", tag) for tag in tags])
        subject_known, made = _put(repository, manifest, f"{wanted}?{query}" if query else str(wanted))
        for tag in tags:
            if tag not in made:
                _put(repository, manifest, tag)
    if manifest.subject is not None and not subject_known:
        referrers.extend_tag(repository, manifest)
    return wanted


def _put(repository: Repository, manifest: Manifest, target: str) -> tuple[bool, set[str]]:
    """Sends it; says whether the registry knows its subject, and which tags it says it has set."""
    with repository.request(
        "PUT",
        f"manifests/{target}",
        headers={"Content-Type": manifest.media_type},
        body=manifest.raw,
        push=True,
    ) as response:
        if response.status not in {200, 201, 202}:
            response.fail(f"push {repository.display_name(target.partition('?')[0])}")
        said = response.digest()
        if said is not None and said.algorithm == manifest.digest.algorithm and said != manifest.digest:
            raise complain_digest(response.host, said, manifest.digest)
        made = {tag.strip() for value in response.headers.getlist("OCI-Tag") for tag in value.split(",")}
        return "OCI-Subject" in response.headers, made
