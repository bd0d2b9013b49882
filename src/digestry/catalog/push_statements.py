"""The statements that every push needs, each built once.

To build a short statement, and to find its compiled form again, takes SQLAlchemy three times as long as
to run it (bench/README.md). What is asked rarely is written where it is asked.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, case, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as upsert

from digestry.catalog import damage
from digestry.catalog.schema import (
    journal,
    leases,
    links,
    manifest_references,
    manifests,
    repositories,
    tags,
    uploads,
)

REPOSITORY_ID: Final = select(repositories.c.id).where(repositories.c.name == bindparam("name"))

LINK: Final = upsert(links).on_conflict_do_nothing()

_HERE: Final = (manifests.c.repository_id == bindparam("repository"), manifests.c.deleted_at.is_(None))

HAVE_LINKS: Final = select(links.c.digest).where(
    links.c.repository_id == bindparam("repository"),
    links.c.digest.in_(bindparam("digests", expanding=True)),
    damage.whole(links.c.digest),
)
HAVE_MANIFESTS: Final = select(manifests.c.digest).where(
    *_HERE,
    manifests.c.digest.in_(bindparam("digests", expanding=True)),
    damage.whole(manifests.c.digest),
)
MANIFEST: Final = select(manifests).where(*_HERE, manifests.c.digest == bindparam("digest"))


def _store_manifest() -> Insert:
    statement = upsert(manifests)
    new = statement.excluded
    again = {
        column.name: new[column.name]
        for column in manifests.columns
        if column.name not in {"repository_id", "digest", "pushed_at"}
    }
    # Pushed again while it is there, what refers to another is as old as it was: an advisory does not
    # become the newest by being repeated. An image that is pushed again is kept as one just pushed.
    as_old = manifests.c.deleted_at.is_(None) & new.subject.is_not(None)
    return statement.on_conflict_do_update(
        index_elements=["repository_id", "digest"],
        set_={**again, "pushed_at": case((as_old, manifests.c.pushed_at), else_=new.pushed_at)},
    )


def _extend_lease() -> Insert:
    statement = upsert(leases)
    return statement.on_conflict_do_update(
        index_elements=["digest"],
        set_={"expires_at": statement.excluded.expires_at},
        where=leases.c.expires_at < statement.excluded.expires_at,
    )


STORE_MANIFEST: Final = _store_manifest()
STORE_REFERENCES: Final = upsert(manifest_references).on_conflict_do_nothing()
EXTEND_LEASE: Final = _extend_lease()

POINTED: Final = select(tags.c.digest).where(
    tags.c.repository_id == bindparam("repository"), tags.c.name == bindparam("tag")
)
CREATE_TAG: Final = insert(tags)
MOVE_TAG: Final = (
    update(tags)
    .where(tags.c.repository_id == bindparam("repository"), tags.c.name == bindparam("tag"))
    .values(digest=bindparam("to"), moved_at=bindparam("at"))
)
LAST_ENTRY: Final = (
    select(journal.c.sequence, journal.c.at, journal.c.hash).order_by(journal.c.sequence.desc()).limit(1)
)
ADD_ENTRY: Final = insert(journal)

COUNT_UPLOADS: Final = select(func.count()).select_from(uploads)
COUNT_UPLOADS_OF: Final = COUNT_UPLOADS.where(uploads.c.actor == bindparam("actor"))
BEGIN_UPLOAD: Final = insert(uploads)
UPLOAD: Final = select(uploads).where(
    uploads.c.id == bindparam("upload"), uploads.c.repository == bindparam("repository")
)
ADVANCE_UPLOAD: Final = (
    update(uploads)
    .where(uploads.c.id == bindparam("upload"))
    .values(
        offset=bindparam("to"),
        reserved=bindparam("to"),
        digest=bindparam("known"),
        boot=bindparam("run"),
        updated_at=bindparam("at"),
    )
)
RESERVE: Final = update(uploads).where(uploads.c.id == bindparam("upload")).values(reserved=bindparam("to"))
MOST_UPLOADS: Final = (
    select(uploads.c.actor, func.count().label("held"))
    .group_by(uploads.c.actor)
    .order_by(func.count().desc(), func.min(uploads.c.updated_at))
    .limit(1)
)
"""Who has the most uploads under way; of several, whoever has let one wait the longest."""
IDLE_UPLOAD: Final = (
    select(uploads).where(uploads.c.actor == bindparam("actor")).order_by(uploads.c.updated_at).limit(1)
)
END_UPLOAD: Final = delete(uploads).where(uploads.c.id == bindparam("upload"))
