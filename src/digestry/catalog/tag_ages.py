"""The ages of digests under their tags, as the journal and the observations have them (docs/adr/0033).

A digest is text here, and times are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from msgspec import structs
from sqlalchemy import Connection, func, select

from digestry.catalog import age_overrides, repository_rows, signature_tags
from digestry.catalog.age_overrides import AgeOverride
from digestry.catalog.age_policy import AgePolicy, AgeRule
from digestry.catalog.database import Database
from digestry.catalog.observation_schema import observations
from digestry.catalog.schema import journal, manifest_references, manifests
from digestry.model.age_answers import Basis
from digestry.model.digest import Digest
from digestry.model.history import MIRROR
from digestry.model.resolution import Resolution
from digestry.model.resolution import TagState as StateOfTag
from digestry.model.tag_age import (
    AgedTag,
    ObservedSpan,
    TagMove,
    TagRecord,
    decide,
    from_moves,
    from_observations,
)

MOST_ENTRIES: Final = 10_000
"""So many of a tag's last moves, and of its last spans of observations, count."""
_MOST_HOLDERS: Final = 2000
"""So many manifests that hold a digest are looked at, those that are here for longest first, and of each so
many tags."""
_CHUNK: Final = 400


@dataclass(frozen=True, slots=True)
class TagState:
    """What a tag resolves to, with what that is known by."""

    aged: AgedTag
    record: TagRecord
    basis: Basis


@dataclass(frozen=True, slots=True)
class DigestState:
    """Whether a digest may be served by itself. ``why`` not: ``young``, or ``unknown``: no tag is known that
    it came with; or ``many``: of too many manifests that hold it, none that was looked at is old enough.
    ``tag`` is one that it is too young under. ``lasting``: it will not become false."""

    allowed: bool
    lasting: bool = True
    why: Literal["", "young", "unknown", "many"] = ""
    tag: str = ""
    aged: AgedTag | None = None
    basis: Basis = "journal"


class TagAges:
    """The ages of a registry's digests. Thread-safe; it only reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tag(self, repository: str, tag: str, rule: AgeRule, now: int) -> TagState:
        """Return what a tag resolves to under ``rule``."""
        with self._database.read() as connection:
            return _Reader(connection, repository, now).tag(tag, rule)

    def digest(
        self, repository: str, digest: str, policy: AgePolicy, now: int, *, mirrored: bool
    ) -> DigestState:
        """Return whether a manifest or blob may be served by its digest: if a tag has or had it, or what
        holds it, for long enough, or without a minimum age.

        What never came with a tag is served, unless the repository is a mirror's: there its age is unknown.
        """
        with self._database.read() as connection:
            return _Reader(connection, repository, now).digest(digest, policy, mirrored=mirrored)

    def with_served(self, answer: Resolution, policy: AgePolicy, now: int) -> Resolution:
        """Return an answer with what pulls by its tags get, where a minimum age makes that another digest."""
        aged = [
            (state.tag, rule)
            for state in answer.tags
            if state.target is not None and not signature_tags.is_about(state.tag)
            if (rule := policy.rule(answer.repository, state.tag)).age
        ]
        if not aged:
            return answer
        served = self.served(answer.repository, aged, now)
        covered = {tag for tag, _ in aged}
        states = tuple(
            _with_served(state, served.get(state.tag)) if state.tag in covered else state
            for state in answer.tags
        )
        return structs.replace(answer, tags=states)

    def served(self, repository: str, tags: Iterable[tuple[str, AgeRule]], now: int) -> dict[str, str]:
        """Return the digests that tags resolve to, by tag. A tag that resolves to none is left out."""
        with self._database.read() as connection:
            return served(connection, repository, tags, now)


def _with_served(state: StateOfTag, digest: str | None) -> StateOfTag:
    if digest is None:
        return structs.replace(state, refused=True)
    if state.target is None or digest == str(state.target.digest):
        return state
    return structs.replace(state, served=Digest.parse(digest))


def served(
    connection: Connection, repository: str, tags: Iterable[tuple[str, AgeRule]], now: int
) -> dict[str, str]:
    """Return the digests that some tags of a repository resolve to under their rules, by tag."""
    reader = _Reader(connection, repository, now)
    found = ((tag, reader.tag(tag, rule).aged.chosen) for tag, rule in tags)
    return {tag: standing.digest for tag, standing in found if standing is not None}


@dataclass(slots=True)
class _Reader:
    """The reads about one repository in one transaction."""

    connection: Connection
    repository: str
    now: int
    _overrides: Sequence[AgeOverride] | None = None
    _states: dict[tuple[str, int], TagState] = field(default_factory=dict)

    def tag(self, tag: str, rule: AgeRule) -> TagState:
        key = tag, rule.age
        found = self._states.get(key)
        if found is None:
            record, basis = self._record(tag)
            aged = decide(record, rule.age, self.now, let_through=lambda one: self._why(tag, one.digest))
            if aged.let_through and aged.chosen is not None:
                by = self._override(tag, aged.chosen.digest)
                aged = replace(aged, advisory="" if by is None else by.advisory)
            found = self._states[key] = TagState(aged, record, basis)
        return found

    def _record(self, tag: str) -> tuple[TagRecord, Basis]:
        entries = (
            select(journal.c.at, journal.c.to_digest, journal.c.actor, journal.c.not_before)
            .where(journal.c.repository == self.repository, journal.c.tag == tag)
            .order_by(journal.c.at.desc())
            .limit(MOST_ENTRIES)
        )
        rows = self.connection.execute(entries).all()
        moves = [TagMove(row.at, row.to_digest, row.not_before) for row in reversed(rows)]
        seen = (
            select(observations.c.digest, observations.c.first_at, observations.c.last_at)
            .where(
                observations.c.repository == self.repository,
                observations.c.tag == tag,
                observations.c.outcome == "seen",
            )
            .order_by(observations.c.number.desc())
            .limit(MOST_ENTRIES)
        )
        spans = [
            ObservedSpan(row.digest, row.first_at, row.last_at)
            for row in reversed(self.connection.execute(seen).all())
        ]
        if spans or any(row.actor.startswith(MIRROR) for row in rows):
            current = moves[-1].digest if moves else None
            return from_observations(current, moves, spans, self.now), "observations"
        return from_moves(moves, self.now), "journal"

    def _why(self, tag: str, digest: str) -> str:
        override = self._override(tag, digest)
        return "" if override is None else override.reason

    def _override(self, tag: str, digest: str) -> AgeOverride | None:
        if self._overrides is None:
            self._overrides = age_overrides.in_force(self.connection, self.repository, self.now)
        for override in self._overrides:
            if override.lets_through(tag, digest, self.now):
                return override
        return None

    # -- by digest -----------------------------------------------------------------------------

    def digest(self, digest: str, policy: AgePolicy, *, mirrored: bool) -> DigestState:
        row = repository_rows.find(self.connection, self.repository)
        if row is None:
            return DigestState(not mirrored, lasting=False, why="unknown" if mirrored else "")
        refused: DigestState | None = None
        seen = {digest}
        frontier = [digest]
        looked = 0
        while frontier:
            following: dict[str, None] = {}
            for one in frontier:
                if looked == _MOST_HOLDERS:
                    return DigestState(False, lasting=False, why="many")
                looked += 1
                if self._override("", one) is not None:
                    return DigestState(True, lasting=False)
                for tag in self._tags_of(one, observed=mirrored):
                    if signature_tags.is_about(tag):
                        # It goes with the manifest that it is about.
                        algorithm, _, value = tag.partition("-")
                        following[f"{algorithm}:{value.partition('.')[0]}"] = None
                        continue
                    state = self._under(tag, one, policy)
                    if state.allowed:
                        return state
                    refused = refused or state
            following.update(dict.fromkeys(self._holders_of(row, frontier)))
            frontier = [one for one in following if one not in seen]
            seen.update(frontier)
        if refused is not None:
            return refused
        return DigestState(not mirrored, lasting=False, why="unknown" if mirrored else "")

    def _under(self, tag: str, digest: str, policy: AgePolicy) -> DigestState:
        rule = policy.rule(self.repository, tag)
        if not rule.age:
            return DigestState(True)
        state = self.tag(tag, rule)
        if state.record.standing(digest).age >= rule.age:
            return DigestState(True)
        if self._override(tag, digest) is not None:
            return DigestState(True, lasting=False)
        return DigestState(False, lasting=False, why="young", tag=tag, aged=state.aged, basis=state.basis)

    def _tags_of(self, digest: str, *, observed: bool) -> list[str]:
        """Return the tags that pointed to ``digest``, those that did first at the beginning: these are the
        most likely to be old enough."""
        query = (
            select(journal.c.tag)
            .where(journal.c.repository == self.repository, journal.c.to_digest == digest)
            .order_by(journal.c.at)
            .limit(_MOST_HOLDERS)
        )
        found = list(dict.fromkeys(self.connection.execute(query).scalars()))
        if found or not observed:
            return found
        # Seen in the other registry, where a rule here did not let the tag move.
        seen = (
            select(observations.c.tag)
            .where(observations.c.repository == self.repository, observations.c.digest == digest)
            .distinct()
        )
        return list(self.connection.execute(seen.limit(_MOST_HOLDERS)).scalars())

    def _holders_of(self, row: int, digests: Sequence[str]) -> list[str]:
        """Return what lists one of ``digests``, or has it as a config or layer, and what it refers to as its
        subject: what has been here for longest first, which is the most likely to be old enough."""
        found: list[tuple[int, str]] = []
        parent, subject = manifests.alias("parent"), manifests.alias("subject")
        for start in range(0, len(digests), _CHUNK):
            some = digests[start : start + _CHUNK]
            parents = (
                select(parent.c.pushed_at, parent.c.digest)
                .select_from(
                    manifest_references.join(
                        parent,
                        (parent.c.repository_id == row) & (parent.c.digest == manifest_references.c.parent),
                    )
                )
                .where(manifest_references.c.repository_id == row, manifest_references.c.child.in_(some))
                .order_by(parent.c.pushed_at)
            )
            subjects = (
                select(func.coalesce(subject.c.pushed_at, manifests.c.pushed_at), manifests.c.subject)
                .select_from(
                    manifests.outerjoin(
                        subject,
                        (subject.c.repository_id == row) & (subject.c.digest == manifests.c.subject),
                    )
                )
                .where(
                    manifests.c.repository_id == row,
                    manifests.c.digest.in_(some),
                    manifests.c.subject.is_not(None),
                )
            )
            for query in (parents.limit(_MOST_HOLDERS + 1), subjects):
                found += [(int(at), name) for at, name in self.connection.execute(query)]
        return [name for _, name in sorted(found)]
