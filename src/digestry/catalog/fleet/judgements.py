"""The verdicts on the fleet's images: which images are to be judged, and the audit's judgement of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from digestry.catalog import clock, dialect
from digestry.catalog.database import Database
from digestry.catalog.fleet.image_relations import relate_images
from digestry.catalog.fleet.images import verdict_of
from digestry.catalog.fleet_schema import (
    fleet_image_digests,
    fleet_image_vulnerabilities,
    fleet_images,
)
from digestry.catalog.job_states import Fence
from digestry.catalog.schema import (
    advisory_statements,
    journal,
    manifest_references,
    manifests,
    repositories,
)
from digestry.catalog.transactions import retried
from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.digest import Digest
from digestry.model.fleet import ImageReport
from digestry.model.fleet_answers import FleetVerdict
from digestry.model.json_types import prepared

UNJUDGED: Final = "unjudged"

_EACH: Final = 500
_RECORDED: Final = 100
"""Verdicts that one transaction stores."""
_reports: Final = msgspec.json.Decoder(prepared(ImageReport), dec_hook=decode_hook)
_encoder: Final = msgspec.json.Encoder(enc_hook=encode_hook)

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ReportedImage:
    """An image that agents reported, by its ``number``, and the digests that it is known by so far."""

    number: int
    report: ImageReport
    digests: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one image. ``statuses`` has the worst status of each vulnerability; ``digests`` the
    digests that the registry's graph adds, with their kinds. ``digest`` tells most, of ``kind``."""

    number: int
    verdict: FleetVerdict
    statuses: Mapping[str, str]
    digests: Mapping[str, str]
    digest: str | None = None
    kind: str = "unknown"


@dataclass(frozen=True, slots=True)
class TagMoves:
    """The moves of tags after a position of the journal: their repositories, the digests that tags left and
    came to, and the last position."""

    last: int
    repositories: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest that refers to ``subject``, and whether it was deleted."""

    repository: str
    digest: str
    subject: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class StatementRow:
    """One statement of an advisory about ``subject``. ``stated_at`` is in microseconds since 1970."""

    vulnerability: str
    repository: str
    subject: str
    advisory: str
    status: str
    stated_at: int


class FleetJudgements:
    """The judgements of the images that agents reported. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- which images -------------------------------------------------------------------------------

    def unjudged(self, *, limit: int) -> list[int]:
        """Return images that have no verdict yet, the latest reported first."""
        query = select(fleet_images.c.number).where(fleet_images.c.state == UNJUDGED)
        with self._database.read() as connection:
            return list(
                connection.execute(query.order_by(fleet_images.c.number.desc()).limit(limit)).scalars()
            )

    def every(self) -> list[int]:
        """Return all images, the latest reported first."""
        query = select(fleet_images.c.number).order_by(fleet_images.c.number.desc())
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def touched(self, names: Collection[str], digests: Collection[str]) -> set[int]:
        """Return the images of these repositories, and those that are known by one of ``digests``."""
        found: set[int] = set()
        with self._database.read() as connection:
            for some in _parts(sorted(names)):
                query = select(fleet_images.c.number).where(fleet_images.c.repository.in_(some))
                found.update(connection.execute(query).scalars())
            for some in _parts(sorted(digests)):
                known = select(fleet_image_digests.c.image).where(fleet_image_digests.c.digest.in_(some))
                found.update(connection.execute(known).scalars())
        return found

    def of_same_code(self, numbers: Collection[int]) -> set[int]:
        """Return ``numbers``, and the images that share a config or a manifest with one of them."""
        mine, other = fleet_image_digests.alias(), fleet_image_digests.alias()
        found = set(numbers)
        with self._database.read() as connection:
            for some in _parts(sorted(numbers)):
                query = (
                    select(other.c.image)
                    .join_from(mine, other, other.c.digest == mine.c.digest)
                    .where(mine.c.image.in_(some), mine.c.kind != "layer")
                    .distinct()
                )
                found.update(connection.execute(query).scalars())
        return found

    def reports(self, numbers: Collection[int]) -> list[ReportedImage]:
        """Return these images as agents reported them."""
        found = []
        with self._database.read() as connection:
            for some in _parts(sorted(numbers)):
                known: dict[int, set[str]] = {}
                query = select(fleet_image_digests).where(fleet_image_digests.c.image.in_(some))
                for row in connection.execute(query):
                    known.setdefault(row.image, set()).add(row.digest)
                images = select(fleet_images.c.number, fleet_images.c.document)
                found += [
                    ReportedImage(
                        row.number, _reports.decode(row.document), frozenset(known.get(row.number, ()))
                    )
                    for row in connection.execute(images.where(fleet_images.c.number.in_(some)))
                ]
        return found

    # -- what changed -------------------------------------------------------------------------------

    def tag_moves(self, after: int) -> TagMoves:
        """Return the moves of tags after the position ``after`` of the journal."""
        query = select(
            journal.c.sequence, journal.c.repository, journal.c.from_digest, journal.c.to_digest
        ).where(journal.c.sequence > after)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(journal.c.sequence)).all()
        digests = {digest for row in rows for digest in (row.from_digest, row.to_digest) if digest}
        last = rows[-1].sequence if rows else after
        return TagMoves(last, frozenset(row.repository for row in rows), frozenset(digests))

    def last_move(self) -> int:
        """Return the last position of the journal."""
        query = select(journal.c.sequence).where(journal.c.sequence.is_not(None))
        with self._database.read() as connection:
            return connection.execute(query.order_by(journal.c.sequence.desc()).limit(1)).scalar() or 0

    def referrers(self, since: int) -> list[Referrer]:
        """Return what refers to something and was pushed or deleted at the time ``since`` or later
        (microseconds since 1970)."""
        query = (
            select(repositories.c.name, manifests.c.digest, manifests.c.subject, manifests.c.deleted_at)
            .join_from(manifests, repositories, repositories.c.id == manifests.c.repository_id)
            .where(
                manifests.c.subject.is_not(None),
                (manifests.c.pushed_at >= since) | (manifests.c.deleted_at >= since),
            )
        )
        with self._database.read() as connection:
            return [
                Referrer(row.name, row.digest, row.subject, row.deleted_at is not None)
                for row in connection.execute(query)
            ]

    def layers(self, images: Iterable[tuple[str, Digest]]) -> dict[tuple[str, Digest], list[str]]:
        """Return the layers of manifests, which are named by repository and digest, in no order."""
        found: dict[tuple[str, Digest], list[str]] = {}
        wanted = sorted({(name, str(digest)) for name, digest in images})
        with self._database.read() as connection:
            for some in _parts(wanted):
                keys = dialect.of(connection).bulk_keys(some, str)
                query = (
                    select(keys.first, keys.second, manifest_references.c.child)
                    .join_from(keys.table, repositories, repositories.c.name == keys.first)
                    .join(
                        manifest_references,
                        (manifest_references.c.repository_id == repositories.c.id)
                        & (manifest_references.c.parent == keys.second),
                    )
                    .where(manifest_references.c.role == "layer")
                )
                for name, parent, child in connection.execute(query):
                    found.setdefault((name, Digest.parse(parent)), []).append(child)
        return found

    # -- verdicts -----------------------------------------------------------------------------------

    def record(self, judgements: Sequence[Judgement], *, at: int, fence: Fence | None = None) -> None:
        """Store verdicts, in one transaction for some of them: no other writer waits long.

        Raises :class:`Conflict` if the ``fence`` of the process is no longer held.
        """
        ordered = sorted(judgements, key=lambda judgement: judgement.number)
        for start in range(0, len(ordered), _RECORDED):
            self._record(ordered[start : start + _RECORDED], at, fence)

    @retried
    def _record(self, judgements: Sequence[Judgement], at: int, fence: Fence | None) -> None:
        numbers = [judgement.number for judgement in judgements]
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            rows = {
                row.number: row
                for row in connection.execute(
                    select(fleet_images.c.number, fleet_images.c.verdict, fleet_images.c.home).where(
                        fleet_images.c.number.in_(numbers)
                    )
                )
            }
            there = [judgement for judgement in judgements if judgement.number in rows]
            _change_verdicts(connection, there, {number: row.verdict for number, row in rows.items()}, at)
            connection.execute(
                update(fleet_images).where(fleet_images.c.number.in_(numbers)).values(judged_at=at)
            )
            _replace_vulnerabilities(connection, there)
            # Images may have been pushed since they were reported.
            relate_images(connection, sorted(number for number, row in rows.items() if not row.home), at)
            _add_digests(connection, there)

    # -- statements ---------------------------------------------------------------------------------

    def stated_advisories(self) -> set[tuple[str, str]]:
        """Return the advisories whose statements are recorded, each as repository and digest."""
        query = select(advisory_statements.c.repository, advisory_statements.c.advisory).distinct()
        with self._database.read() as connection:
            return {(row.repository, row.advisory) for row in connection.execute(query)}

    @retried
    def replace_statements(
        self,
        subjects: Collection[tuple[str, str]],
        rows: Sequence[StatementRow],
        *,
        fence: Fence | None = None,
    ) -> None:
        """Store ``rows`` in place of all statements about ``subjects``, each a repository and a digest."""
        values = [
            {
                "vulnerability": row.vulnerability,
                "repository": row.repository,
                "subject": row.subject,
                "advisory": row.advisory,
                "status": row.status,
                "stated_at": row.stated_at,
            }
            for row in rows
        ]
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            for name, subject in sorted(subjects):
                connection.execute(
                    delete(advisory_statements).where(
                        advisory_statements.c.subject == subject, advisory_statements.c.repository == name
                    )
                )
            if values:
                connection.execute(insert(advisory_statements), values)


def _change_verdicts(
    connection: Connection, judgements: Sequence[Judgement], before: Mapping[int, str | None], at: int
) -> None:
    for judgement in judgements:
        stored, state = before[judgement.number], judgement.verdict.state
        known = None if stored is None else verdict_of(stored, state)
        since = clock.to_datetime(at) if known is None or known.state != state else known.since
        verdict = _encoder.encode(msgspec.structs.replace(judgement.verdict, since=since)).decode()
        if verdict == stored:
            continue
        digest = {} if judgement.digest is None else {"digest": judgement.digest, "kind": judgement.kind}
        connection.execute(
            update(fleet_images)
            .where(fleet_images.c.number == judgement.number)
            .values(state=judgement.verdict.state, verdict=verdict, **digest)
        )


def _replace_vulnerabilities(connection: Connection, judgements: Sequence[Judgement]) -> None:
    table = fleet_image_vulnerabilities
    before: dict[int, dict[str, str]] = {}
    query = select(table).where(table.c.image.in_([judgement.number for judgement in judgements]))
    for row in connection.execute(query):
        before.setdefault(row.image, {})[row.vulnerability] = row.status
    after = {one.number: _statuses_after(before.get(one.number, {}), one) for one in judgements}
    changed = [one for one in judgements if before.get(one.number, {}) != after[one.number]]
    if not changed:
        return
    connection.execute(delete(table).where(table.c.image.in_([judgement.number for judgement in changed])))
    rows = [
        {"vulnerability": vulnerability, "image": judgement.number, "status": status}
        for judgement in changed
        for vulnerability, status in sorted(after[judgement.number].items())
    ]
    if rows:
        connection.execute(insert(table), rows)


def _statuses_after(before: Mapping[str, str], judgement: Judgement) -> dict[str, str]:
    """Return the worst status of each vulnerability. What was affected stays so while the verdict is not
    known, as when an advisory cannot be read: otherwise a question about it would find that nothing is."""
    after = dict(judgement.statuses)
    if judgement.verdict.state == "unknown":
        return {name: status for name, status in before.items() if status == "affected"} | after
    return after


def _add_digests(connection: Connection, judgements: Sequence[Judgement]) -> None:
    table = fleet_image_digests
    query = select(table).where(table.c.image.in_([judgement.number for judgement in judgements]))
    known: dict[tuple[int, str], str] = {
        (row.image, row.digest): row.kind for row in connection.execute(query)
    }
    new: list[dict[str, Any]] = []
    for judgement in judgements:
        for digest, kind in sorted(judgement.digests.items()):
            before = known.get((judgement.number, digest))
            if before is None:
                new.append({"image": judgement.number, "digest": digest, "kind": kind})
            elif kind not in {before, "unknown"}:
                here = (table.c.image == judgement.number) & (table.c.digest == digest)
                connection.execute(update(table).where(here).values(kind=kind))
    if new:
        connection.execute(insert(table), new)


def _parts(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), _EACH):
        yield items[start : start + _EACH]
