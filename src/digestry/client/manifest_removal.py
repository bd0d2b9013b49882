"""The deletion of a manifest, and of what a list of referrers says of it."""

from __future__ import annotations

from typing import Final

from digestry.client import manifests
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.referrers import add_to_referrers_tag, fallback_tag, remove_from_referrers_tag
from digestry.client.tag_removal import tags_now
from digestry.errors import ContentError, ProtocolViolation, Refused, RemoteError, RemoteNotFound
from digestry.model.digest import Digest

_CONFLICT: Final = 409


def delete_manifest(endpoint: RepositoryEndpoint, digest: Digest) -> None:
    """Delete the manifest of ``digest``, and its entry of its subject's referrers tag.

    The entry goes where the tag has one ("Deleting Manifests"): a list that names what is not there makes
    the subject look damaged. Raises :class:`RemoteNotFound`, and the errors of the list's update, after the
    manifest was deleted.
    """
    try:
        manifest = manifests.pull(endpoint, str(digest))
    except (RemoteNotFound, ProtocolViolation, ContentError):
        manifest = None  # what is damaged can be deleted all the same
    if manifest is None or manifest.subject is None:
        manifests.delete(endpoint, str(digest))
        return
    subject = manifest.subject.digest
    try:
        manifests.delete(endpoint, str(digest))
    except Refused as error:
        # digestry's registry deletes nothing that an index lists, and the list is one, before and after the
        # tag moves away from it.
        old = remove_from_referrers_tag(endpoint, subject, digest) if error.status == _CONFLICT else None
        if old is None:
            raise
        try:
            if not tags_now(endpoint, old).tags:
                manifests.delete(endpoint, str(old))
            manifests.delete(endpoint, str(digest))
        except RemoteError:
            add_to_referrers_tag(endpoint, manifest)
            raise
        return
    try:
        remove_from_referrers_tag(endpoint, subject, digest)
    except RemoteError as error:
        tag = endpoint.display_name(fallback_tag(subject))
        error.hint = f"{digest} was deleted, and {tag} still lists it"
        raise
