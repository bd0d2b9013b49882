"""The statements that every push runs, each built once, most of them frequent.

SQLAlchemy takes three times as long to build a short statement, and to find its compiled form, as to run it
(bench/README.md). Statements that run rarely are in the modules that use them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from digestry.catalog import damage
from digestry.catalog.frequent_statements import frequent
from digestry.catalog.observation_schema import observation_schedule
from digestry.catalog.schema import journal, links, manifests, repositories, tags, uploads

_REPOSITORY_ID: Final = select(repositories.c.id).where(repositories.c.name == bindparam("name"))
REPOSITORY_ID: Final = frequent(_REPOSITORY_ID)
LOCK_REPOSITORY: Final = frequent(_REPOSITORY_ID.with_for_update(key_share=True))
"""As before, and locked where there are several writers: they go on to refer to the row, as new links do."""

_HERE: Final = (manifests.c.repository_id == bindparam("repository"), manifests.c.deleted_at.is_(None))

HAVE_LINKS: Final = frequent(
    select(links.c.digest).where(
        links.c.repository_id == bindparam("repository"),
        links.c.digest.in_(bindparam("digests", expanding=True)),
        damage.whole(links.c.digest),
    )
)
HAVE_MANIFESTS: Final = frequent(
    select(manifests.c.digest).where(
        *_HERE,
        manifests.c.digest.in_(bindparam("digests", expanding=True)),
        damage.whole(manifests.c.digest),
    )
)
MANIFEST: Final = frequent(select(manifests).where(*_HERE, manifests.c.digest == bindparam("digest")))

POINTED: Final = frequent(
    select(tags.c.digest).where(
        tags.c.repository_id == bindparam("repository"), tags.c.name == bindparam("tag")
    )
)
OBSERVED: Final = frequent(
    select(observation_schedule.c.repository)
    .where(observation_schedule.c.repository == bindparam("repository"))
    .limit(1)
)
"""Whether the repository records what is observed in another registry."""
CREATE_TAG: Final = frequent(insert(tags))
MOVE_TAG: Final = frequent(
    update(tags)
    .where(tags.c.repository_id == bindparam("repository"), tags.c.name == bindparam("tag"))
    .values(digest=bindparam("to"), moved_at=bindparam("at"))
)
LAST_POSITION: Final = frequent(select(func.coalesce(func.max(journal.c.sequence), 0).label("position")))
LAST_ENTRY: Final = frequent(
    select(journal.c.number, journal.c.at, journal.c.hash, LAST_POSITION.scalar_subquery().label("position"))
    .where(journal.c.repository == bindparam("repository"))
    .order_by(journal.c.number.desc())
    .limit(1)
)
"""The end of a repository's chain, and the registry's last position."""
ADD_ENTRY: Final = frequent(insert(journal))

COUNT_UPLOADS: Final = frequent(select(func.count()).select_from(uploads))
COUNT_UPLOADS_OF: Final = COUNT_UPLOADS.where(uploads.c.actor == bindparam("actor"))
BEGIN_UPLOAD: Final = frequent(insert(uploads))
UPLOAD: Final = frequent(
    select(uploads).where(
        uploads.c.id == bindparam("upload"), uploads.c.repository == bindparam("repository")
    )
)
ADVANCE_UPLOAD: Final = frequent(
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
RESERVE: Final = frequent(
    update(uploads).where(uploads.c.id == bindparam("upload")).values(reserved=bindparam("to"))
)
MOST_UPLOADS: Final = (
    select(uploads.c.actor, func.count().label("held"))
    .group_by(uploads.c.actor)
    .order_by(func.count().desc(), func.min(uploads.c.updated_at))
    .limit(1)
)
"""The user with the most uploads under way; of several, the one whose upload has waited longest."""
IDLE_UPLOAD: Final = (
    select(uploads).where(uploads.c.actor == bindparam("actor")).order_by(uploads.c.updated_at).limit(1)
)
END_UPLOAD: Final = frequent(delete(uploads).where(uploads.c.id == bindparam("upload")))
END_NEW_UPLOAD: Final = frequent(
    delete(uploads).where(uploads.c.id == bindparam("upload"), uploads.c.offset == 0)
)
