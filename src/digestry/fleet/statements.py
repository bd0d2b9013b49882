"""The statements of all advisories in the registry, in the form that the catalog finds them by."""

from __future__ import annotations

from collections.abc import Iterable

from digestry.advisories.attachments import read_advisories
from digestry.audit.registry_queries import RegistryQueries
from digestry.catalog import clock
from digestry.catalog.fleet.judgements import StatementRow
from digestry.model.digest import Digest
from digestry.model.reference import Reference


def read_statements(
    queries: RegistryQueries, host: str, subjects: Iterable[tuple[str, str]]
) -> list[StatementRow]:
    """Return what is stated about ``subjects``, each a repository of the registry ``host`` and a digest.

    A vulnerability has a row for each of its names. Superseded statements are left out.
    """
    found: dict[tuple[str, str, str, str], StatementRow] = {}
    for name, subject in subjects:
        digest = Digest.parse(subject)
        for advisory in read_advisories(queries, Reference(host, name), [digest]).current():
            statement = advisory.statement
            for vulnerability in dict.fromkeys((statement.vulnerability, *statement.aliases)):
                key = vulnerability, name, subject, str(advisory.referrer)
                row = StatementRow(*key, statement.status, clock.from_datetime(statement.timestamp))
                found.setdefault(key, row)
    return list(found.values())
