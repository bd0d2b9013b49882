"""The proof that what a tag points to now is its last entry in the registry's log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from digestry.client.repository import Repository
from digestry.client.transparency_log import TransparencyLog
from digestry.errors import LogContradiction, RemoteNotFound, Unproven
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.model.timestamps import rfc3339
from digestry.verifier.aged_proof import check_aged
from digestry.verifier.leaves import LoggedEntry
from digestry.verifier.log_view import LogVerifier, LogView
from digestry.verifier.repository_check import (
    MOST_SCANNED,
    Completeness,
    RepositoryReport,
    check_completeness,
    check_not_less,
    opened_entries,
    remembered,
)

_PAUSES: Final = (0.3, 0.7, 1.5, 3.0, 5.0)
"""Seconds between looks at a log that does not have the tag's last move yet; it should take one second."""
_OF_THE_PAST: Final = 3
"""So many of these for a move of the past, which seldom was a second ago."""


@dataclass(frozen=True, slots=True)
class ProvenTag:
    """What a tag points to, with the entry that says so, and the log that the entry is in."""

    digest: Digest
    entry: LoggedEntry
    view: LogView
    completeness: Completeness


class TagProver:
    """Proves what tags point to now. ``verifier`` keeps what was seen. Thread-safe."""

    def __init__(
        self, verifier: LogVerifier, *, most: int = MOST_SCANNED, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._verifier = verifier
        self._most = most
        self._sleep = sleep

    def __call__(self, repository: Repository, reference: Reference, digest: Digest) -> None:
        """Raise unless ``reference`` may mean ``digest``: see :meth:`prove` and :meth:`prove_digest`."""
        if reference.tag is not None and reference.digest is None:
            self.prove(repository, reference.tag, digest)
        else:
            self.prove_digest(repository, digest)

    def prove(self, repository: Repository, tag: str, digest: Digest) -> ProvenTag:
        """Return the proof that ``tag`` points to ``digest`` now, which the registry said; or that it did,
        if the registry serves that for a minimum age: see :mod:`.aged_proof`.

        Raises :class:`LogContradiction` if the log says another thing, :class:`Unproven` if it does not say
        it, or not all of it could be read, and as :meth:`LogVerifier.view` does.
        """
        name = f"{repository.reference.name}:{tag}"
        log = TransparencyLog(repository.connection, repository.reference.host)
        for pause in (*_PAUSES, None):
            report = self._last_of(log, repository, tag)
            last = report.last
            if last is not None and last.entry.to_digest == digest:
                return ProvenTag(digest, last, report.view, report.completeness)
            if last is not None and (earlier := self._aged(log, repository, tag, digest, report)) is not None:
                return ProvenTag(digest, earlier, report.view, report.completeness)
            if pause is None:
                raise self._unproven(name, digest, last, report.view)
            if _digest_of(repository, tag) != digest:
                raise Unproven(f"{name} moved while it was verified", hint="try again")
            self._sleep(pause)
        raise AssertionError("the last pause is None")

    def prove_digest(self, repository: Repository, digest: Digest) -> LoggedEntry:
        """Return the latest entry in the log by which a tag of the repository came to ``digest``.

        One that is not signed yet is waited for. Raises :class:`Unproven` if there is none, and as
        :meth:`LogVerifier.view` does.
        """
        found = self._latest(repository, None, digest)
        if found is not None:
            return found
        raise Unproven(
            f"no tag of {repository.reference.name} ever pointed to {digest}, by the log of"
            f" {repository.reference.host}",
            hint="an image of an index has no entry of its own: pull by the index's digest, or by a tag",
        )

    def prove_past(self, repository: Repository, tag: str, digest: Digest) -> LoggedEntry:
        """Return the latest entry in the log by which ``tag`` came to ``digest``.

        One that is not signed yet is waited for. Raises :class:`Unproven` if there is none, and as
        :meth:`LogVerifier.view` does.
        """
        found = self._latest(repository, tag, digest)
        if found is not None:
            return found
        raise Unproven(
            f"{repository.reference.name}:{tag} never pointed to {digest}, by the log of"
            f" {repository.reference.host}"
        )

    def _latest(self, repository: Repository, tag: str | None, digest: Digest) -> LoggedEntry | None:
        """Return the latest entry by which ``tag``, or any tag for None, came to ``digest``; None if the log
        has none, a moment later either."""
        log = TransparencyLog(repository.connection, repository.reference.host)
        name = repository.reference.repository
        for pause in (*_PAUSES[:_OF_THE_PAST], None):
            view = self._verifier.view(log)
            for entry in reversed(opened_entries(view, name, log.openings(name, tag=tag))):
                if entry.entry.to_digest == digest and tag in {None, entry.entry.tag}:
                    return entry
            if pause is not None:
                self._sleep(pause)
        return None

    def _aged(
        self,
        log: TransparencyLog,
        repository: Repository,
        tag: str,
        digest: Digest,
        report: RepositoryReport,
    ) -> LoggedEntry | None:
        age = repository.tag_age(tag, None)
        if age is None or not age.least_seconds or age.stood is None or age.stood.digest != digest:
            return None
        last = report.last
        if last is None or age.current is None or last.entry.to_digest != age.current:
            return None
        # A client that was here before asks for the entries since then alone.
        entries = opened_entries(report.view, report.repository, log.openings(report.repository, tag=tag))
        found = check_aged(f"{repository.reference.name}:{tag}", tag, age, entries)
        self._verifier.tell(
            f"{repository.reference.name}:{tag} points to {age.current} by the log of {log.host}, since"
            f" {rfc3339(last.entry.at)}; {age.reason}"
        )
        return found

    def _last_of(self, log: TransparencyLog, repository: Repository, tag: str) -> RepositoryReport:
        """Return the report with the tag's entries, of which all later ones were looked for."""
        view = self._verifier.view(log)
        name = repository.reference.repository
        report = RepositoryReport(view, name, tag, first=remembered(view, name).last.get(tag, 0))
        report.opened = opened_entries(view, name, log.openings(name, tag=tag, first=report.first))
        check_not_less(report)
        check_completeness(report, whole=False, most=self._most)
        if report.problems:
            raise LogContradiction(
                report.problems[0], hint="the registry does not show what its log has; nothing was used"
            )
        if not report.completeness.known and report.completeness.scanned < view.size:
            raise Unproven(
                f"whether {repository.reference.name}:{tag} moved later is not known: "
                f"{report.completeness.reason}",
                hint=f"digestry log verify {repository.reference.name} reads on, once or several times",
            )
        return report

    @staticmethod
    def _unproven(name: str, digest: Digest, last: LoggedEntry | None, view: LogView) -> Exception:
        if last is None:
            return Unproven(f"the log of {view.host} has no entry about {name}, which points to {digest}")
        if last.entry.to_digest is None:
            says = f"was deleted at {rfc3339(last.entry.at)}"
        else:
            says = f"points to {last.entry.to_digest} since {rfc3339(last.entry.at)}"
        return LogContradiction(
            f"{view.host} says that {name} points to {digest}, and its log that it {says}",
            hint="the content was not used",
        )


def _digest_of(repository: Repository, tag: str) -> Digest | None:
    try:
        return repository.resolve(tag).digest
    except RemoteNotFound:
        return None
