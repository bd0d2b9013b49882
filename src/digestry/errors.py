"""The errors that digestry raises on purpose: one root, and families by who is to blame.

``registry/error_responses.py`` maps an error to an HTTP status, and ``cli/exit_codes.py`` to an exit code. A
message says what was wrong and where; ``hint`` says what to do about it.
"""

from __future__ import annotations

from typing import Final

SPEC_CODES: Final = frozenset(
    {
        "BLOB_UNKNOWN",
        "DENIED",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "TOOMANYREQUESTS",
        "UNAUTHORIZED",
        "UNSUPPORTED",
    }
)
"""Error codes of the distribution-spec for reads: a server that sends one is a registry."""


class DigestryError(Exception):
    """The root of every error that digestry raises on purpose.

    ``hint`` is one sentence for a person: what to do now. It may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


# -- the caller is to blame: the request cannot be carried out --------------------------------------


class CallerError(DigestryError):
    """The request itself is wrong; asking again in the same words cannot help."""


class InvalidDigest(CallerError):
    """Not ``algorithm:hex`` of a supported algorithm (OCI image-spec, descriptor.md, "Digests")."""


class InvalidReference(CallerError):
    """Not ``host[:port]/repository[:tag][@digest]``."""


class InvalidManifest(CallerError):
    """Bytes that are not a manifest, an index or a config that digestry knows."""


class InvalidConfiguration(CallerError):
    """A setting, option or file of the user's that cannot be used."""


class TooLarge(CallerError):
    """More bytes than a limit allows; ``limit`` is that limit in bytes."""

    def __init__(self, message: str, *, limit: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class NotFound(CallerError):
    """The named object does not exist."""


class Ambiguous(CallerError):
    """The given name matches several objects; the message lists them."""


class Conflict(CallerError):
    """The object was changed, or is locked, so that the request cannot be carried out now."""


class Forbidden(CallerError):
    """The caller has no right to the requested action."""


class TooMany(CallerError):
    """The caller does too much at once; a later request may succeed."""


# -- somebody else's service is to blame -------------------------------------------------------


class RemoteError(DigestryError):
    """A registry, an engine or a helper did not carry out a request."""


class Unreachable(RemoteError):
    """No answer: refused, timed out, no such host, or the connection broke."""


class Refused(RemoteError):
    """The remote answered with a refusal. ``status`` is its HTTP status, ``code`` its error code,
    ``retry_after`` the seconds after which it allows another request, if it states them."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        hint: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class Unauthorized(Refused):
    """The remote requires credentials, or refuses those that it was given (401, 403)."""


class RemoteNotFound(Refused):
    """The remote does not have it (404)."""


class RemoteDamaged(RemoteNotFound):
    """The remote has it, damaged, and does not give it out (404, as a digestry registry says it)."""


class TooYoung(RemoteError):
    """No digest has stood under a tag for the minimum age that was asked for."""


class ProtocolViolation(RemoteError):
    """The remote's answer breaks its own protocol, so that nothing in it can be trusted."""


class AnswerTooLong(ProtocolViolation):
    """The remote's answer has more than ``limit`` bytes, which is the most that is read of it."""

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class RedirectRefused(ProtocolViolation):
    """The remote redirects to another host, which refuses or must not be contacted: that says nothing about
    the remote's own content. ``status`` is the other host's answer; None if it was not contacted."""

    def __init__(
        self, message: str, *, status: int | None = None, hint: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after = retry_after


# -- the content is to blame: bytes that do not match their description -------------------------


class ContentError(DigestryError):
    """Bytes that do not match their digest, size or format. They are never used."""


class DigestMismatch(ContentError):
    """The bytes hash to something else."""


class SizeMismatch(ContentError):
    """More or fewer bytes than declared."""


class LogContradiction(ContentError):
    """A registry's transparency log contradicts what it signed before, or what the registry says.

    ``evidence`` is the directory in which both sides are kept; empty if nothing was signed twice.
    """

    def __init__(self, message: str, *, hint: str = "", evidence: str = "") -> None:
        super().__init__(message, hint=hint)
        self.evidence = evidence


class Unproven(ContentError):
    """What a registry says is not proven by its transparency log, which does not contradict it either."""


# -- this machine's storage is to blame --------------------------------------------------------


class StorageError(DigestryError):
    """The disk or the database failed, or has invalid content."""


class StorageFull(StorageError):
    """There is no room for more; stored content is whole, and can be read."""


class StorageDenied(StorageError):
    """The store refuses this server, such as for its credentials; nothing is wrong with the request."""


class StorageBusy(StorageError):
    """Somebody else holds the database for too long; later it may be free."""
