"""The removal of tags that no rule of retention keeps, each with its entry in the journal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, Row

from digestry.catalog import tag_moves
from digestry.catalog.database import Database
from digestry.catalog.expired_tags import (
    ExpiredTag,
    TagColumns,
    find_expired_tags,
    is_attachment,
    seen_running,
    tags_of,
)
from digestry.catalog.journal import Origin
from digestry.catalog.removals import Batch, Removals, Removed, Stayed
from digestry.catalog.retention_rules import Retention
from digestry.catalog.schema import tags as tag_rows
from digestry.catalog.tag_moves import Expected, RepositoryKey, Rules, TagChanged, TagRefused
from digestry.catalog.transactions import retried
from digestry.errors import NotFound

_TAGS: Final = 20
"""Tags that one transaction deletes: each takes some statements, and a push waits for no longer than that."""
ACTOR: Final = "digestry"
"""The actor in the journal for a tag that no rule keeps."""


class ExpiredTagRemoval:
    """Deletes a catalog's expired tags under ``retention``. ``lease`` is in microseconds."""

    def __init__(
        self, database: Database, rules: Rules, retention: Retention, removals: Removals, *, lease: int
    ) -> None:
        self._database = database
        self._rules = rules
        self._retention = retention
        self._removals = removals
        self._lease = lease

    def drop(self, key: RepositoryKey) -> Iterator[Batch]:
        """Delete, each with its journal entry, the tags that a rule covers and no longer keeps."""
        rules = [rule for rule in self._retention.rules if rule.about(key.name)]
        if not rules:
            return
        now = self._rules.now()
        seen_running = self._tag_runs(key, now)
        found = find_expired_tags(self._database, key, rules, seen_running, now, lease=self._lease)
        while expired := list(itertools.islice(found, _TAGS)):
            yield self._drop(key, expired)

    def _tag_runs(self, key: RepositoryKey, now: int) -> ColumnElement[bool]:
        return seen_running(tag_rows.c.digest, key, self._retention, now, beside=tag_rows.c.name)

    @retried
    def _drop(self, key: RepositoryKey, expired: Sequence[ExpiredTag]) -> Batch:
        with self._removals.writing(key, {due.digest for due in expired}) as connection:
            query = tags_of(key, self._tag_runs(key, self._rules.now()))
            names = [due.tag for due in expired]
            rows = {row.name: row for row in connection.execute(query.where(tag_rows.c.name.in_(names)))}
            return [self._drop_one(connection, key, due, rows.get(due.tag)) for due in expired]

    def _drop_one(
        self, connection: Connection, key: RepositoryKey, due: ExpiredTag, row: Row[*TagColumns] | None
    ) -> Removed | Stayed:
        """Delete a tag whose ``row`` is read again, in the transaction of ``connection``."""
        moved = "it was moved meanwhile"
        if row is None or row.moved_at != due.moved_at:
            # Also if it came back to the same digest: it did so now.
            return Stayed("tag", key.name, due.tag, moved)
        held = {
            "it was seen running meanwhile": row.seen_running,
            "its image was pushed again meanwhile": row.pushed_at != due.pushed_at,
            "somebody asked for it meanwhile": row.checked_at != due.checked_at,
            "it is observed in another registry": row.observed,
            "what it is attached to was pushed meanwhile": row.attached and is_attachment(due.tag),
        }
        for why in filter(held.get, held):
            return Stayed("tag", key.name, due.tag, why)
        origin = Origin(actor=ACTOR, address="", client="retention")
        expected = Expected(any_of=frozenset([due.digest]))
        try:
            # These errors come before it changes anything.
            tag_moves.drop(connection, self._rules, key, due.tag, origin=origin, expected=expected)
        except TagRefused as error:
            return Stayed("tag", key.name, due.tag, error.message)
        except (TagChanged, NotFound):
            return Stayed("tag", key.name, due.tag, moved)
        return Removed("tag", key.name, due.tag, due.why)
