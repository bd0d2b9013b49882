"""The exit codes of all commands, and the mapping from errors to them."""

from __future__ import annotations

from typing import Final

from digestry.errors import (
    CallerError,
    ContentError,
    DigestryError,
    NotFound,
    RemoteError,
    RemoteNotFound,
    StorageError,
    TooYoung,
)

OK: Final = 0
FINDINGS: Final = 1
USAGE: Final = 2
REMOTE: Final = 3
NOT_FOUND: Final = 4
CONTENT: Final = 5
STORAGE: Final = 6
INTERNAL: Final = 70
INTERRUPTED: Final = 130
UNREAD: Final = 141

EPILOG: Final = """\
\b
Exit codes:
  0    done; an audit found nothing vulnerable
  1    an audit or a verification found something; no digest is old enough
  2    wrong usage or invalid input
  3    a registry or an engine did not answer, or refused;
       an audit could not see something
  4    the image, tag or digest that was named is not there
  5    content does not match its digest or size; it was not used
  6    this machine's disk or database failed
  70   a defect in digestry: please report it
  130  interrupted
  141  whoever read the output left before its end
"""

_FAMILIES: Final[tuple[tuple[type[DigestryError], int], ...]] = (
    # The first that fits decides: narrower ones before their families.
    (TooYoung, FINDINGS),
    (NotFound, NOT_FOUND),
    (RemoteNotFound, NOT_FOUND),
    (CallerError, USAGE),
    (RemoteError, REMOTE),
    (ContentError, CONTENT),
    (StorageError, STORAGE),
)


def of(error: DigestryError) -> int:
    """Return the exit code for ``error``."""
    return next((code for family, code in _FAMILIES if isinstance(error, family)), INTERNAL)
