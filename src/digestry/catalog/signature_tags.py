"""Tags of signatures, and of other referrers from clients that know no API for them.

Each new signature replaces the one manifest that such a tag points to by a larger one.
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import Connection, select

from digestry.catalog.schema import manifests

# distribution-spec, "Referrers Tag Schema": both parts may be cut, the second at 64 characters.
_TAG: Final = re.compile(r"(sha256|sha512)-([0-9a-f]{64}|[0-9a-f]{128})(?:\.sig|\.att|\.sbom)?", re.ASCII)


def is_about(tag: str) -> bool:
    """Return whether a tag's name is that of a collection of signatures or attestations of a manifest."""
    return _TAG.fullmatch(tag) is not None


def names(tag: str, digest: str) -> bool:
    """Return whether a tag's name contains ``digest``: then the tag belongs to that manifest."""
    found = _TAG.fullmatch(tag)
    return found is not None and digest.startswith(f"{found[1]}:{found[2]}")


def has_subject(connection: Connection, repository: int, tag: str) -> bool:
    """Return whether ``tag`` is about a manifest that the repository has."""
    found = _TAG.fullmatch(tag)
    if found is None:
        return False
    subject = f"{found[1]}:{found[2]}"
    about = select(manifests.c.digest).where(
        manifests.c.repository_id == repository,
        manifests.c.digest >= subject,
        manifests.c.digest < subject + "g",  # whatever begins with it
        manifests.c.deleted_at.is_(None),
    )
    return connection.execute(about.limit(1)).first() is not None
