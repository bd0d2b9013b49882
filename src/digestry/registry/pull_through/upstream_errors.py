"""Errors of an upstream, as a word for a header and as a response for the client."""

from __future__ import annotations

import logging
import math
from typing import Final

from digestry.errors import (
    SPEC_CODES,
    AnswerTooLong,
    ContentError,
    DigestryError,
    InvalidConfiguration,
    RedirectRefused,
    Refused,
    RemoteDamaged,
    RemoteError,
    RemoteNotFound,
    StorageFull,
    Unauthorized,
    Unreachable,
)
from digestry.registry import error_responses
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.pull_through.config import MirrorConfig

log: Final = logging.getLogger("digestry.registry")

TROUBLE: Final = (RemoteError, ContentError, InvalidConfiguration)
"""The errors of requests to an upstream. InvalidConfiguration is about a password's or an authority's file.
"""

CURRENT: Final = "current"
UNREACHABLE: Final = "unreachable"
FAILING: Final = "failing"
RATE_LIMITED: Final = "rate-limited"
REFUSED: Final = "refused"
FULL: Final = "full"
"""This registry has no room to store upstream's answer."""
HELD: Final = "held"
"""Upstream's tag has moved, but a rule of this registry does not let the tag here move."""
INCOMPLETE: Final = "incomplete"
"""Upstream lists referrers that could not be fetched, so that the list here lacks them."""

STALE: Final = frozenset({UNREACHABLE, FAILING, RATE_LIMITED, REFUSED, FULL, HELD, INCOMPLETE})
"""The reasons of a mirror behind this one, which are passed on."""

_TOO_MANY: Final = 429
LONGEST_LIMIT: Final = 24 * 3600.0
"""The longest that an upstream's rate limit is obeyed, in seconds."""
_SERVER_ERROR: Final = 500


class BackingOff(RemoteError):
    """No request is sent to the upstream for another ``seconds`` seconds, because of ``word``."""

    def __init__(self, message: str, *, word: str, seconds: float) -> None:
        super().__init__(message)
        self.word = word
        self.seconds = seconds


def word(error: DigestryError) -> str:
    """Return the error as a word for the header ``Digestry-Upstream``."""
    match error:
        case BackingOff():
            return error.word
        case StorageFull():
            return FULL
        case Unreachable():
            return UNREACHABLE
        case Refused(status=429):
            return RATE_LIMITED
        case RemoteNotFound(code="") | RemoteDamaged():
            return FAILING
        case Refused() if error.status < _SERVER_ERROR:
            return REFUSED
    return FAILING


def is_gone(error: DigestryError) -> bool:
    """Return whether upstream says that it does not have the content. A 404 without a registry's error code
    comes from something before it, such as a proxy; and an upstream with damaged content does have it."""
    return isinstance(error, RemoteNotFound) and error.code != "" and not isinstance(error, RemoteDamaged)


def is_outage(error: DigestryError) -> bool:
    """Return whether the error starts a back-off."""
    if isinstance(error, Refused | RedirectRefused):
        status = error.status or 0
        return status >= _SERVER_ERROR or status == _TOO_MANY
    return isinstance(error, Unreachable)


def error_response(mirror: MirrorConfig, error: DigestryError) -> ErrorResponse:
    """Return the response for content that is not here and could not be fetched.

    It does not quote the remote server, which may be an internal one that upstream redirected to: the log
    does.
    """
    if isinstance(error, StorageFull):
        return error_responses.from_error(error)
    text = f"{mirror.host}: {_public_text(error)}"
    if not isinstance(error, BackingOff | RemoteNotFound):
        hint = f" ({error.hint})" if error.hint else ""
        log.warning("mirror %s: %s%s", mirror.host, error.message, hint)
    seconds = error.seconds if isinstance(error, BackingOff) else backoff_seconds(error)
    if word(error) == RATE_LIMITED:
        text += "; it is asked again when it allows that"
        return ErrorResponse(429, "TOOMANYREQUESTS", text, headers={"Retry-After": _seconds(seconds)})
    failed = word(error) in {UNREACHABLE, FAILING} and isinstance(error, Unreachable | Refused)
    if isinstance(error, BackingOff) or is_outage(error) or failed:
        return ErrorResponse(503, "UNAVAILABLE", text, headers={"Retry-After": _seconds(seconds)})
    if isinstance(error, RemoteNotFound):
        return ErrorResponse(404, "NAME_UNKNOWN", text)
    if isinstance(error, Unauthorized):
        return ErrorResponse(
            403, "DENIED", f"{text} (there is no such repository, or this registry may not read it)"
        )
    return ErrorResponse(502, "UNKNOWN", text)


def _public_text(error: DigestryError) -> str:
    """Return the error's text for the client."""
    match error:
        case BackingOff():
            return error.message
        case AnswerTooLong():
            return f"it sent more than the {error.limit} bytes that this registry accepts"
        case Unreachable():
            return "it cannot be reached, or does not answer in time"
        case Refused():
            code = f", {error.code}" if error.code in CODES else ""
            return f"it answers {error.status}{code}"
        case RedirectRefused(status=None):
            return "it refers to an address that this registry does not contact; its log says which"
        case RedirectRefused():
            return f"it refers to a storage service that answers {error.status}"
        case InvalidConfiguration():
            return "this registry cannot ask it as it is configured; its log says why"
        case ContentError():
            return "it sent something else than was requested; the log of this registry says more"
    return "it sent what this registry cannot use; its log says more"


CODES: Final = SPEC_CODES | {"UNAVAILABLE", "UNKNOWN"}
"""Error codes of an upstream that the response may quote."""
RATE_LIMIT_SECONDS: Final = 60.0
"""The back-off after a 429 that does not say for how long."""
SHORTEST_LIMIT: Final = 1.0
"""The shortest back-off after a 429, even if upstream allows requests at once."""
BACKOFF_SECONDS: Final = 5.0
"""The first back-off after a failure; each further failure lengthens it."""
LONGEST_BACKOFF: Final = 600.0
"""The longest back-off that an upstream which fails can ask for."""


def backoff_seconds(error: DigestryError) -> float:
    """Return the least number of seconds of the back-off after ``error``."""
    seconds = error.retry_after if isinstance(error, Refused | RedirectRefused) else None
    if word(error) == RATE_LIMITED:
        return RATE_LIMIT_SECONDS if seconds is None else max(SHORTEST_LIMIT, min(seconds, LONGEST_LIMIT))
    return BACKOFF_SECONDS if seconds is None else max(BACKOFF_SECONDS, min(seconds, LONGEST_BACKOFF))


def _seconds(value: float) -> str:
    return str(max(1, math.ceil(value)))
