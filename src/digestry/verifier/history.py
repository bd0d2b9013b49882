"""The verification of a repository's history, or of one tag's, against the registry's log."""

from __future__ import annotations

from digestry.client.repository import Repository
from digestry.client.transparency_log import TransparencyLog
from digestry.errors import NotFound, RemoteError
from digestry.verifier.log_view import LogVerifier
from digestry.verifier.repository_check import (
    MOST_SCANNED,
    RepositoryReport,
    check_completeness,
    check_events,
    check_not_less,
    check_numbers,
    opened_entries,
)


def verify_history(
    verifier: LogVerifier, repository: Repository, tag: str | None = None, *, most: int = MOST_SCANNED
) -> RepositoryReport:
    """Return what the log says about the history that a registry shows of a repository, or of a tag.

    At most ``most`` entries of the log are read to find whether it is complete; the next call reads on.
    Raises as :meth:`LogVerifier.view` does, :class:`NotFound`, and
    :class:`~digestry.errors.ContentError` for tiles and bundles that are not of the log's tree.
    """
    name = repository.reference.repository
    log = TransparencyLog(repository.connection, repository.reference.host)
    view = verifier.view(log)
    report = RepositoryReport(view, name, tag)
    # The history is read last: whatever the log has, it has as well.
    report.opened = opened_entries(view, name, log.openings(name, tag=tag), report.problems)
    events = repository.journal(tag)
    if events is None:
        raise RemoteError(f"{log.host} has a log, and shows no journal of {name}")
    check_events(report, events, verifier.now())
    if tag is None:
        check_numbers(report)
    check_not_less(report)
    if not (events or report.opened or report.problems):
        next(repository.tags(), None)  # a repository that is not there, or is not shown, says so
        of = repository.reference if tag is None else repository.reference.with_tag(tag)
        raise NotFound(
            f"the journal of {log.host} has nothing about {of}", hint="check the name: digestry tags"
        )
    check_completeness(report, whole=tag is None, most=most)
    return report
