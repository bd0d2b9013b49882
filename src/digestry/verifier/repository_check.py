"""The check of a repository's history against the log: is each shown entry in it, and all of it shown?"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from digestry.errors import LogContradiction
from digestry.model.history import TagEvent
from digestry.model.timestamps import rfc3339
from digestry.translog.entries import Entry, InvalidEntry, Opening, Sealed, open_leaf, parse_leaf
from digestry.translog.merkle import leaf_hash
from digestry.translog.tiles import Tile, bundles_of, check_bundle, decode_bundle
from digestry.verifier.leaves import LoggedEntry, leaf_of
from digestry.verifier.log_view import LogView
from digestry.verifier.seen_logs import SeenRepository

MOST_SCANNED: Final = 200_000
"""Entries of the log that are read at a time to find whether the history is complete."""
GRACE: Final = datetime.timedelta(seconds=30)
"""A registry has this long to put an entry into its log; it should take a second."""
_TOGETHER: Final = 16

State = Literal["included", "pending", "missing", "different"]
"""Of a shown entry: it is in the log; is too new for it; should be in it and is not; is another one in it."""


@dataclass(frozen=True, slots=True)
class CheckedEntry:
    """An entry that the registry shows, or, with ``shown`` false, that its log has and its history does not.

    ``index`` is its place in the log, from 0.
    """

    event: TagEvent
    state: State
    index: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether the history is complete. ``known`` is false with the ``reason``; ``scanned`` is up to where the
    log's entries were read."""

    known: bool
    reason: str = ""
    scanned: int = 0


_NOTHING_READ: Final = Completeness(known=False, reason="nothing was read")


@dataclass(slots=True)
class RepositoryReport:
    """The result of a check. ``problems`` are sentences; without any, everything that was asked is proven."""

    view: LogView
    repository: str
    tag: str | None
    first: int = 0
    """The index from which on the registry was asked for entries."""
    entries: list[CheckedEntry] = field(default_factory=list)
    opened: list[LoggedEntry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    completeness: Completeness = _NOTHING_READ

    @property
    def last(self) -> LoggedEntry | None:
        """The last entry in the log that was opened."""
        return self.opened[-1] if self.opened else None


def opened_entries(
    view: LogView, repository: str, shown: Iterable[Opening], problems: list[str] | None = None
) -> list[LoggedEntry]:
    """Return the entries that ``shown`` opens and that are in the log, by rising index.

    What the registry opens and the log does not have is a sentence in ``problems``, or without them raises
    :class:`LogContradiction`. Openings of entries after the checkpoint are left out.
    """
    found: list[LoggedEntry] = []
    for opening in shown:
        if opening.index >= view.size:
            break  # they come by rising index
        try:
            if opening.index < 0 or (found and opening.index <= found[-1].index):
                raise InvalidEntry(f"the openings of {repository} are not in the log's order")
            leaf = leaf_of(opening)
            if leaf_hash(leaf) != view.tiles.leaf(opening.index):
                raise InvalidEntry(f"entry {opening.index} of the log is another one than {view.host} shows")
            opened = open_leaf(leaf, opening)
            if opened.entry.repository != repository:
                raise InvalidEntry(
                    f"entry {opening.index} of the log is of {opened.entry.repository}, not {repository}"
                )
            numbers = [each.entry.number for each in found[-1:]] + [opened.entry.number]
            if len(numbers) == 2 and None not in numbers and numbers[0] >= numbers[1]:  # type: ignore[operator]
                raise InvalidEntry(f"entry {opening.index} of the log has a number that came before")
        except InvalidEntry as error:
            if problems is None:
                raise LogContradiction(error.message) from error
            problems.append(error.message)
        else:
            found.append(LoggedEntry(opening, opened))
    return found


def check_events(report: RepositoryReport, events: Sequence[TagEvent], now: datetime.datetime) -> None:
    """Compare the entries that the registry shows (newest first) with those in the log."""
    logged = {opened.entry.at: opened for opened in report.opened}
    for event in events:
        opened = logged.pop(event.at, None)
        if opened is None:
            late = now - event.at > GRACE
            report.entries.append(CheckedEntry(event, "missing" if late else "pending"))
            if late:
                report.problems.append(f"the history has {described(event)}, and the log does not have it")
            continue
        field_ = different_field(event, opened)
        report.entries.append(
            CheckedEntry(event, "different" if field_ else "included", opened.index, field_)
        )
        if field_:
            report.problems.append(
                f"the history has {described(event)}, and entry {opened.index} of the log another {field_}"
            )
    for opened in logged.values():
        report.problems.append(
            f"entry {opened.index} of the log ({opened.entry.tag} {opened.entry.event} at"
            f" {rfc3339(opened.entry.at)}) is not in the history that {report.view.host} shows"
        )


def different_field(event: TagEvent, opened: LoggedEntry) -> str:
    """Return the name of a field in which an entry of the history is not the log's; empty without one."""
    entry, rest = opened.entry, opened.rest
    pairs: list[tuple[str, object, object]] = [
        ("repository", event.repository, entry.repository),
        ("tag", event.tag, entry.tag),
        ("event", event.event, entry.event),
        ("from_digest", event.from_digest, entry.from_digest),
        ("to_digest", event.to_digest, entry.to_digest),
        ("media_type", event.media_type, entry.media_type),
        ("size", event.size, entry.size),
        ("number", event.number, entry.number),
        ("not_before", event.not_before, entry.not_before),
    ]
    if rest is not None and not event.withheld:
        pairs += [
            ("actor", event.actor, rest.actor),
            ("address", event.address, rest.address),
            ("client", event.client, rest.client),
            ("sequence", event.sequence, rest.sequence),
            ("previous_hash", event.previous_hash, rest.previous_hash),
            ("hash", event.hash, rest.hash),
            ("reason", event.reason, rest.reason),
        ]
    return next((name for name, shown, logged in pairs if shown != logged), "")


def described(event: TagEvent) -> str:
    """Return an entry of the history as messages name it."""
    return f"{event.tag} {event.event} at {rfc3339(event.at)}"


# -- all of it? --------------------------------------------------------------------------------


def check_numbers(report: RepositoryReport) -> None:
    """Add a problem for each gap in the numbers of a repository's entries, all of which were opened."""
    before = 0
    for opened in report.opened:
        number = opened.entry.number
        if number is None:
            continue
        if number != before + 1:
            missing = f"{before + 1}" if number == before + 2 else f"{before + 1} to {number - 1}"
            report.problems.append(
                f"{report.view.host} does not show entry {missing} of {report.repository}, before entry"
                f" {opened.index} of the log"
            )
        before = number


def check_completeness(report: RepositoryReport, *, whole: bool, most: int = MOST_SCANNED) -> None:
    """Find whether the log has entries of the repository in clear that were not shown.

    With ``whole`` all of the log is read, at most ``most`` entries at a time, and the next call continues
    there; else what follows the last entry that was shown.
    """
    view = report.view
    seen = remembered(view, report.repository)
    shown = {opened.index for opened in report.opened}
    last = report.opened[-1].index if report.opened else -1
    begin = seen.scanned if whole or last < seen.scanned else last + 1
    end = min(view.size, begin + most)
    positions = dict(seen.positions)
    last_sealed = seen.last_sealed
    for index, entry in scan(view, begin, end, report.repository):
        if entry is None:
            last_sealed = max(last_sealed, index)
        else:
            positions[index] = entry.tag
    hidden = [
        index
        for index, tag in sorted(positions.items())
        if index >= report.first and index not in shown and report.tag in {None, tag}
    ]
    what = report.repository if report.tag is None else f"{report.repository}:{report.tag}"
    report.problems += [
        f"{view.host} does not show entry {index} of its log, which is about {what}" for index in hidden
    ]
    if not report.problems:
        scanned = end if begin <= seen.scanned else seen.scanned
        if scanned == seen.scanned:
            positions, last_sealed = seen.positions, seen.last_sealed
        newest = {opened.entry.tag: opened.index for opened in report.opened}
        _remember(
            view,
            SeenRepository(
                seen.repository, seen.origin, scanned, positions, last_sealed, {**seen.last, **newest}
            ),
        )
    if end < view.size:
        reason = f"entries {end} to {view.size - 1} of the log were not read yet"
        report.completeness = Completeness(known=False, reason=reason, scanned=end)
    elif last_sealed > last:
        reason = f"entries of the log up to {last_sealed} are sealed, and may be of it"
        report.completeness = Completeness(known=False, reason=reason, scanned=end)
    else:
        report.completeness = Completeness(known=True, scanned=end)


def check_not_less(report: RepositoryReport) -> None:
    """Add a problem for each tag of which the registry showed a later entry before."""
    newest = {opened.entry.tag: opened.index for opened in report.opened}
    for tag, index in remembered(report.view, report.repository).last.items():
        if report.tag in {None, tag} and newest.get(tag, -1) < index:
            report.problems.append(
                f"{report.view.host} showed entry {index} of its log as the last one of"
                f" {report.repository}:{tag}, and shows it no more"
            )


def remembered(view: LogView, repository: str) -> SeenRepository:
    """Return what was verified of a repository before."""
    seen = view.records.read_repository(repository)
    if seen is None or seen.origin != view.checkpoint.origin:
        return SeenRepository(repository, view.checkpoint.origin)
    return seen


def _remember(view: LogView, seen: SeenRepository) -> None:
    with view.records.locked():
        now = remembered(view, seen.repository)
        last = dict(now.last)
        for tag, index in seen.last.items():
            last[tag] = max(index, last.get(tag, -1))
        best = seen if seen.scanned >= now.scanned else now
        view.records.write_repository(msgspec.structs.replace(best, last=last))


def scan(view: LogView, begin: int, end: int, repository: str) -> Iterator[tuple[int, Entry | None]]:
    """Yield the index of each leaf from ``begin`` to before ``end`` that is sealed (None), or that is an
    entry of ``repository`` in clear.

    Every bundle is verified. Raises :class:`~digestry.translog.tiles.InvalidTile` for one that is not what
    its leaves are.
    """
    # Not as a list: a registry may sign any size.
    bundles = itertools.takewhile(lambda bundle: bundle.first < end, bundles_of(view.size, since=begin))
    while some := list(itertools.islice(bundles, _TOGETHER)):
        contents = view.log.fetch(some)
        for bundle in some:
            entries = decode_bundle(bundle, contents[bundle])
            check_bundle(bundle, entries, view.tiles.hashes(Tile(0, bundle.index, bundle.width)))
            for index, content in enumerate(entries, bundle.first):
                if begin <= index < end:
                    yield from _of_repository(index, content, repository)


def _of_repository(index: int, content: bytes, repository: str) -> Iterator[tuple[int, Entry | None]]:
    try:
        found = parse_leaf(content)
    except InvalidEntry:
        return  # of a format to come: nothing is known of it
    if isinstance(found, Sealed):
        yield index, None
    elif found.repository == repository:
        yield index, found
