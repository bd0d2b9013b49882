"""Tags that collect what is about a manifest: signatures, and referrers of clients that know no API for them.

Each new signature replaces the one manifest that such a tag points to by a larger one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, select

from digestry.catalog.schema import manifest_references, manifests

# distribution-spec, "Referrers Tag Schema": both parts may be cut, the second at 64 characters.
_TAG: Final = re.compile(r"(sha256|sha512)-([0-9a-f]{64}|[0-9a-f]{128})(?:\.sig|\.att|\.sbom)?", re.ASCII)


def grows(connection: Connection, repository: int, tag: str, current: str, refers: Collection[str]) -> bool:
    """Return whether ``tag`` is about a manifest that is here, and loses nothing by what ``refers`` to these.

    ``current`` is the manifest that it points to.
    """
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
    if connection.execute(about.limit(1)).first() is None:
        return False
    return parts(connection, repository, current) <= set(refers)


def parts(connection: Connection, repository: int, digest: str) -> set[str]:
    """Return what a manifest of the repository lists: its layers, or its manifests."""
    query = select(manifest_references.c.child).where(
        manifest_references.c.repository_id == repository,
        manifest_references.c.parent == digest,
        manifest_references.c.role != "config",
    )
    return set(connection.execute(query).scalars())
