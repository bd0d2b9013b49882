"""The errors of an S3 service, as digestry's. No message has a credential or a signature."""

from __future__ import annotations

from typing import Final

from urllib3.exceptions import NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as ReadTimeout

from digestry.errors import StorageBusy, StorageDenied, StorageError

_TRANSIENT: Final = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottlingException",
        "XAmzContentChecksumMismatch",
    }
)
_DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""Some of them come with the status 400."""
_HINTS: Final = {
    "AccessDenied": "check the credentials, and what their policy allows in that bucket",
    "AuthorizationHeaderMalformed": "check the region: it must be the bucket's",
    "ExpiredToken": "renew the credentials",
    "ExpiredTokenException": "renew the credentials",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "InvalidToken": "check AWS_SESSION_TOKEN",
    "NoSuchBucket": "create the bucket, or check its name",
    "PermanentRedirect": "check the endpoint and the region: the bucket is elsewhere",
    "QuotaExceeded": "make room in the store",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY and the region",
    "TokenRefreshRequired": "renew the credentials",
}


_STATUS_HINTS: Final = {
    301: _HINTS["PermanentRedirect"],
    400: "check the credentials and the region",
    403: "check the credentials, what their policy allows in that bucket, and this machine's clock",
    404: _HINTS["NoSuchBucket"],
}
"""For answers that have no code, as those to a HEAD."""
STORE_IS_UP: Final = "try again; see that the S3 store is up, and that the endpoint is its address"
_TLS: Final = "see whether the endpoint begins with http or https; AWS_CA_BUNDLE names the file of a CA"


class S3Refusal(StorageError):
    """The service answered with an error. ``status`` is its HTTP status, ``code`` the service's own word."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message, hint=_HINTS.get(code, "") if code else _STATUS_HINTS.get(status, ""))
        self.status = status
        self.code = code

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.code in _TRANSIENT or self.status in {429, 500, 502, 503, 504}

    @property
    def no_object(self) -> bool:
        """Whether the service says that there is no such object: not that there is no such bucket."""
        return self.status == 404 and self.code in {"NoSuchKey", "NotFound", ""}


class S3Denied(S3Refusal, StorageDenied):
    """The service does not accept who asks: the credentials, what they may do, or the clock."""


def refusal(action: str, where: str, status: int, code: str, text: str) -> S3Refusal:
    """Return the error for an answer to ``action``, such as ``read``, at ``where``."""
    reason = code or f"status {status}"
    shown = "".join(char if char.isprintable() else " " for char in text)[:200]
    # A service's message about a signature may repeat the signed text.
    detail = f": {shown}" if shown and code not in {"SignatureDoesNotMatch", "InvalidAccessKeyId"} else ""
    # The answer to a HEAD has no code: 400 may be a token that has expired.
    unsaid = status == 400 and not code
    denied = code in _DENIED or unsaid or (status in {401, 403} and code != "QuotaExceeded")
    kind = S3Denied if denied else S3Refusal
    return kind(f"cannot {action} {where}: the store answers {reason}{detail}", status=status, code=code)


def unavailable(action: str, where: str, reason: str, *, hint: str = STORE_IS_UP) -> StorageBusy:
    """Return the error for a service that does not answer, or is overloaded, for too long."""
    return StorageBusy(f"cannot {action} {where}: {reason}", hint=hint)


def broken(action: str, where: str, error: Exception) -> StorageBusy:
    """Return the error for a connection that could not be made, or broke."""
    if isinstance(error, NewConnectionError):
        return unavailable(action, where, "the store cannot be reached")
    if isinstance(error, SSLError):
        return unavailable(action, where, f"no TLS connection to the store can be made: {error}", hint=_TLS)
    if isinstance(error, TimeoutError | ReadTimeout):
        return unavailable(action, where, "the store does not answer in time")
    return unavailable(action, where, f"the connection to the store broke ({type(error).__name__})")


def wrong_answer(action: str, where: str, reason: str) -> StorageError:
    """Return the error for an answer that an S3 service does not give."""
    return StorageError(f"cannot {action} {where}: {reason}", hint="check that the endpoint is an S3 service")
