"""JUnit XML: one suite, with a test case for each thing that was looked at."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from xml.sax.saxutils import escape, quoteattr

from digestry.model.text import printable

Outcome = Literal["passed", "failure", "error", "skipped"]
_DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'


@dataclass(frozen=True, slots=True)
class Case:
    """A test case. ``kind`` and ``message`` are of one that did not pass, and so are ``details``; ``output``
    is what is known of it."""

    group: str
    name: str
    outcome: Outcome = "passed"
    kind: str = ""
    message: str = ""
    details: Sequence[str] = ()
    output: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many test cases there are, and how many of them did not pass."""

    tests: int
    failures: int
    errors: int
    skipped: int


def counted(cases: Sequence[Case]) -> Counts:
    """Return the counts of ``cases``."""
    found = collections.Counter(one.outcome for one in cases)
    return Counts(len(cases), found["failure"], found["error"], found["skipped"])


def write_suite(name: str, counts: Counts, cases: Iterable[Case]) -> Iterator[str]:
    """Yield the document, in pieces: the counts come before the ``cases``."""
    attributes = f'tests="{counts.tests}" failures="{counts.failures}" errors="{counts.errors}"'
    yield f"{_DECLARATION}<testsuites name={_attribute(name)} {attributes}>\n"
    yield f'<testsuite name={_attribute(name)} {attributes} skipped="{counts.skipped}">\n'
    yield from map(_case, cases)
    yield "</testsuite>\n</testsuites>\n"


def _case(case: Case) -> str:
    head = f'<testcase classname={_attribute(case.group)} name={_attribute(case.name)} time="0">'
    return f"{head}{_result(case)}{_output(case)}</testcase>\n"


def _result(case: Case) -> str:
    if case.outcome == "passed":
        return ""
    if case.outcome == "skipped":
        return f"<skipped message={_attribute(case.message)}/>"
    about = f"type={_attribute(case.kind)} message={_attribute(case.message)}"
    return f"<{case.outcome} {about}>{_lines(case.details)}</{case.outcome}>"


def _output(case: Case) -> str:
    return f"<system-out>{_lines(case.output)}</system-out>" if case.output else ""


def _attribute(text: str) -> str:
    return quoteattr(printable(text))


def _lines(lines: Sequence[str]) -> str:
    # Characters that XML 1.0 does not allow (section 2.2) are not printable either.
    return "\n".join(escape(printable(line)) for line in lines if line)
