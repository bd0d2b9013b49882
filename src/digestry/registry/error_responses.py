"""Error responses, and the one mapping from errors to them.

The codes are those of the distribution-spec ("Error Codes"), which clients know.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, TypedDict

from digestry.catalog.blob_links import UnknownRepository
from digestry.catalog.manifest_rows import MissingContent
from digestry.catalog.quotas import OverQuota
from digestry.catalog.tag_moves import Observed, TagChanged, TagRefused
from digestry.catalog.transactions import OutcomeUnknown, TransactionUndone
from digestry.errors import (
    CallerError,
    Conflict,
    ContentError,
    DigestMismatch,
    DigestryError,
    Forbidden,
    InvalidDigest,
    InvalidManifest,
    InvalidReference,
    NotFound,
    SizeMismatch,
    StorageBusy,
    StorageDenied,
    StorageFull,
    TooLarge,
    TooMany,
)
from digestry.model.digest import Digest, shown
from digestry.registry.quarantine import HEALS

log: Final = logging.getLogger("digestry.registry")


class ErrorResponse(DigestryError):
    """An error response: HTTP status, code, message, and headers.

    ``reason`` is for the metrics, where the status does not say it: one of a few words.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        detail: object = None,
        headers: Mapping[str, str] | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        """Return the JSON of distribution-spec, "Error Codes"."""
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.detail is not None:
            error["detail"] = self.detail
        return {"errors": [error]}


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class BrokenOff(Exception):
    """Raised to end a response in the middle: the server then breaks the connection."""


class ClientSilent(ErrorResponse):
    """The client sent nothing for so long that its request is abandoned, and its resources are released."""

    def __init__(self, message: str) -> None:
        super().__init__(408, "SIZE_INVALID", message)


def blob_unknown(digest: Digest, name: str) -> ErrorResponse:
    return ErrorResponse(
        404, "BLOB_UNKNOWN", f"blob {digest} is not in repository {name}", detail={"digest": str(digest)}
    )


def manifest_unknown(target: str, name: str) -> ErrorResponse:
    return ErrorResponse(
        404,
        "MANIFEST_UNKNOWN",
        f"manifest {target} is not in repository {name}",
        detail={"reference": target},
    )


def blob_damaged(digest: Digest, name: str) -> ErrorResponse:
    text = f"blob {digest} of repository {name} is damaged here, and not served ({HEALS})"
    return ErrorResponse(404, "BLOB_UNKNOWN", text, detail={"digest": str(digest), "damaged": True})


def manifest_damaged(target: str, name: str) -> ErrorResponse:
    text = f"manifest {target} of repository {name} is damaged here, and not served ({HEALS})"
    return ErrorResponse(404, "MANIFEST_UNKNOWN", text, detail={"reference": target, "damaged": True})


def name_unknown(name: str) -> ErrorResponse:
    return ErrorResponse(
        404, "NAME_UNKNOWN", f"repository {name} is not known to this registry", detail={"name": name}
    )


def upload_unknown(upload_id: str, name: str) -> ErrorResponse:
    return ErrorResponse(
        404,
        "BLOB_UPLOAD_UNKNOWN",
        f"upload {shown(upload_id)} of repository {name} is not known: finished, cancelled, or never begun",
    )


def bad_parameter(name: str, value: str, wanted: str) -> ErrorResponse:
    return ErrorResponse(400, "UNSUPPORTED", f"parameter {name}={shown(value)} is not valid: {wanted}")


def not_allowed(method: str, allowed: str) -> ErrorResponse:
    return ErrorResponse(405, "UNSUPPORTED", f"{method} is not supported here", headers={"Allow": allowed})


def not_found(path: str) -> ErrorResponse:
    return ErrorResponse(
        404, "UNSUPPORTED", f"there is nothing at {shown(path)}: the registry's API is under /v2/"
    )


_REFUSALS: Final[tuple[tuple[type[DigestryError], int, str], ...]] = (
    (MissingContent, 400, "MANIFEST_BLOB_UNKNOWN"),
    (InvalidDigest, 400, "DIGEST_INVALID"),
    (DigestMismatch, 400, "DIGEST_INVALID"),
    (InvalidReference, 400, "NAME_INVALID"),
    (InvalidManifest, 400, "MANIFEST_INVALID"),
    (TooLarge, 413, "SIZE_INVALID"),
    (SizeMismatch, 400, "SIZE_INVALID"),
    (TooMany, 429, "TOOMANYREQUESTS"),
    (OverQuota, 403, "DENIED"),
    (Forbidden, 403, "DENIED"),
    (NotFound, 404, "NAME_UNKNOWN"),
    (TagChanged, 412, "PRECONDITION_FAILED"),
    (TagRefused, 409, "DENIED"),
    (Observed, 405, "UNSUPPORTED"),
    (Conflict, 409, "DENIED"),
    (CallerError, 400, "UNSUPPORTED"),
    (ContentError, 400, "UNSUPPORTED"),
)
"""The status and the code of errors that are not the registry's; the first that fits holds."""


def from_error(error: DigestryError) -> ErrorResponse:
    """Return the answer for ``error``.

    An error of the registry's own storage is logged, and the answer only names it: the message of a disk or a
    database is for the operator.
    """
    if isinstance(error, ErrorResponse):
        return error
    if isinstance(error, UnknownRepository):
        return name_unknown(error.name)
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    for kind, status, code in _REFUSALS:
        if isinstance(error, kind):
            return ErrorResponse(status, code, text, **_particulars(error))
    log.error("%s: %s", type(error).__name__, text)
    match error:
        case StorageFull():
            text = "the registry's disk is full; what is stored can be pulled, and nothing of it is lost"
            return ErrorResponse(507, "UNAVAILABLE", text)
        case OutcomeUnknown():
            there = "the change was made" if error.committed else "the change may have been made"
            text = f"the connection to the registry's catalog broke while it was changed; {there}: look at it"
            return ErrorResponse(503, "UNAVAILABLE", text, headers={"Retry-After": "5"})
        case TransactionUndone():
            text = "the registry's catalog is busy; nothing was changed, and the same can be tried again"
            return ErrorResponse(503, "UNAVAILABLE", text, headers={"Retry-After": "5"})
        case StorageBusy():
            text = "the registry's catalog or store is busy; the request was not carried out: try again"
            return ErrorResponse(503, "UNAVAILABLE", text, headers={"Retry-After": "5"})
        case StorageDenied():
            text = (
                "the registry's store refuses the registry; its log says why; the request can be tried again"
            )
            return ErrorResponse(503, "UNAVAILABLE", text, headers={"Retry-After": "5"}, reason="store")
    return ErrorResponse(500, "UNKNOWN", "the registry's storage failed; its log says why")


class _Particulars(TypedDict, total=False):
    """The headers and detail of an error's answer, beside its status, code and text."""

    detail: object
    headers: Mapping[str, str]
    reason: str


def _particulars(error: DigestryError) -> _Particulars:
    """Return the headers and detail of an error's answer, beside its status, code and text."""
    match error:
        case MissingContent():
            return {"detail": [{"digest": digest} for digest in error.digests[:50]]}
        case TooLarge():
            return {"detail": {"limit": error.limit}}
        case TooMany():
            return {"headers": {"Retry-After": "5"}}
        case OverQuota():
            return {"reason": "quota"}
        case TagChanged():
            return {"detail": {"tag": error.tag, "digest": error.digest}}
        case TagRefused():
            return {"detail": {"tag": error.tag, "digest": error.digest}, "reason": "immutable"}
    return {}
