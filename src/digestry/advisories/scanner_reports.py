"""The base of scanners' reports: an image, and the vulnerabilities of packages in it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from digestry.advisories.statements import SEVERITIES, Document, Product, Statement, Status
from digestry.advisories.values import read_time
from digestry.model.json_values import JsonObject

MOST_FINDINGS: Final = 200_000
"""Findings of one report that are read."""

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Finding:
    """A vulnerability of one package of an image. ``package`` is its package URL, or its name and version."""

    vulnerability: str
    package: str
    aliases: tuple[str, ...] = ()
    status: Status = "affected"
    installed: str = ""
    fixed_in: str = ""
    severity: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class ScannedImage:
    """The image of a report: the names under which the scanner knew it, and its digests."""

    names: tuple[str, ...]
    digests: tuple[str, ...] = ()

    def product(self, components: tuple[str, ...]) -> Product:
        """Return the image as the product of a statement about ``components``."""
        hashes = tuple(
            (algorithm, encoded)
            for algorithm, colon, encoded in (one.partition(":") for one in self.digests)
            if colon
        )
        return Product(self.names, hashes, components)


def scanned_image(names: Iterable[str], digests: Sequence[str]) -> ScannedImage | None:
    """Return the image that a report names; None if all of ``names`` and ``digests`` are empty texts."""
    image = ScannedImage(tuple(dict.fromkeys(filter(None, names))), tuple(filter(None, digests)))
    return image if image.names or image.digests else None


def package_name(purl: str, name: str, version: str) -> str:
    """Return what a finding calls a package: its package URL, or else its name, with the version if any."""
    return purl or (f"{name}@{version}" if version else name)


def with_database(scanner: str, built: str) -> str:
    """Return the name of a scanner with the date of its database, if ``built`` begins with one."""
    return f"{scanner} (database of {built[:10]})" if _DATE.match(built) else scanner


def read_report_time(text: str) -> datetime.datetime | None:
    """Return the time of a report; None if ``text`` is none."""
    try:
        return read_time(text)
    except ValueError:
        return None


def as_document(
    report: JsonObject,
    *,
    kind: str,
    author: str,
    image: ScannedImage | None,
    at: datetime.datetime,
    findings: Sequence[Finding],
    faults: Iterable[str] = (),
) -> Document:
    """Return a report as a document with one statement for each vulnerability, its packages together.

    Without ``image`` the statements are about the image that the report is imported for.
    """
    by_vulnerability: dict[tuple[str, Status], list[Finding]] = {}
    for finding in findings:
        by_vulnerability.setdefault((finding.vulnerability, finding.status), []).append(finding)
    statements = tuple(
        _statement(name, status, several, author=author, image=image, at=at)
        for (name, status), several in by_vulnerability.items()
    )
    return Document(
        kind=kind, predicate=report, version=1, author=author, identity="", statements=statements,
        faults=tuple(faults),
    )  # fmt: skip


def _statement(
    name: str,
    status: Status,
    findings: Sequence[Finding],
    *,
    author: str,
    image: ScannedImage | None,
    at: datetime.datetime,
) -> Statement:
    packages = tuple(dict.fromkeys(finding.package for finding in findings if finding.package))
    severity = max((finding.severity for finding in findings), key=_rank)
    titles = list(dict.fromkeys(finding.title for finding in findings if finding.title))
    installed = [f"{_name(one.package)} {one.installed}" for one in findings if one.installed]
    notes = ", ".join(dict.fromkeys(installed))
    if severity:
        notes = f"{notes} ({severity})" if notes else severity
    if titles:
        notes = f"{notes}: {titles[0]}" if notes else titles[0]
    fixes = [f"{_name(one.package)} to {one.fixed_in}" for one in findings if one.fixed_in]
    return Statement(
        vulnerability=name,
        aliases=tuple(dict.fromkeys(alias for one in findings for alias in one.aliases if alias != name)),
        status=status,
        timestamp=at,
        version=1,
        author=author,
        products=(Product(components=packages) if image is None else image.product(packages),),
        raw={},
        action=f"Update {', '.join(dict.fromkeys(fixes))}." if fixes and status == "affected" else "",
        notes=notes,
        severity=severity,
    )


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1


def _name(package: str) -> str:
    """Return a package's name for people: the name in its package URL, or its other name."""
    if not package.startswith("pkg:"):
        return package.rpartition("@")[0] or package
    return package.partition("?")[0].rpartition("/")[2].partition("@")[0] or package
