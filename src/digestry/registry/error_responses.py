"""What the registry answers when it cannot do what it was asked: one mapping from error to status.

The codes are those of the distribution-spec ("Error Codes"), which clients know.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from digestry.catalog.blob_links import UnknownRepository
from digestry.catalog.catalog import MissingContent
from digestry.catalog.quotas import OverQuota
from digestry.catalog.tag_moves import TagChanged, TagRefused
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
    StorageFull,
    TooLarge,
    TooMany,
)
from digestry.model.digest import Digest, shown
from digestry.registry.quarantine import HEALS

log: Final = logging.getLogger("digestry.registry")


class ErrorResponse(DigestryError):
    """An answer that is an error: HTTP status, code, message, and headers that go with it.

    ``reason`` is for the metrics, where the status does not say it: one of a few words.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        detail: Any = None,
        headers: Mapping[str, str] | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON of distribution-spec, "Error Codes"."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.detail is not None:
            error["detail"] = self.detail
        return {"errors": [error]}


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class BrokenOff(Exception):
    """Ends an answer that has begun without its end: the server breaks the connection then."""


class ClientSilent(ErrorResponse):
    """The client sent nothing for so long that its request is given up, and what it held let go."""

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


def from_error(error: DigestryError) -> ErrorResponse:
    """The answer for ``error``. Anything that is the registry's own fault is logged, and only
    named: what a disk or a database says is for the operator."""
    if isinstance(error, ErrorResponse):
        return error
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    match error:
        case MissingContent():
            lacking = [{"digest": digest} for digest in error.digests[:50]]
            return ErrorResponse(400, "MANIFEST_BLOB_UNKNOWN", text, detail=lacking)
        case UnknownRepository():
            return name_unknown(error.name)
        case InvalidDigest() | DigestMismatch():
            return ErrorResponse(400, "DIGEST_INVALID", text)
        case InvalidReference():
            return ErrorResponse(400, "NAME_INVALID", text)
        case InvalidManifest():
            return ErrorResponse(400, "MANIFEST_INVALID", text)
        case TooLarge():
            return ErrorResponse(413, "SIZE_INVALID", text, detail={"limit": error.limit})
        case SizeMismatch():
            return ErrorResponse(400, "SIZE_INVALID", text)
        case TooMany():
            return ErrorResponse(429, "TOOMANYREQUESTS", text, headers={"Retry-After": "5"})
        case OverQuota():
            return ErrorResponse(403, "DENIED", text, reason="quota")
        case Forbidden():
            return ErrorResponse(403, "DENIED", text)
        case NotFound():
            return ErrorResponse(404, "NAME_UNKNOWN", text)
        case TagChanged():
            detail = {"tag": error.tag, "digest": error.digest}
            return ErrorResponse(412, "PRECONDITION_FAILED", text, detail=detail)
        case TagRefused():
            detail = {"tag": error.tag, "digest": error.digest}
            return ErrorResponse(409, "DENIED", text, detail=detail, reason="immutable")
        case Conflict():
            return ErrorResponse(409, "DENIED", text)
        case CallerError() | ContentError():
            return ErrorResponse(400, "UNSUPPORTED", text)
    log.error("%s: %s", type(error).__name__, text)
    match error:
        case StorageFull():
            text = "the registry's disk is full; what is stored can be pulled, and nothing of it is lost"
            return ErrorResponse(507, "UNAVAILABLE", text)
        case StorageBusy():
            text = "the registry's catalog is busy; nothing was changed, and the same can be tried again"
            return ErrorResponse(503, "UNAVAILABLE", text, headers={"Retry-After": "5"})
    return ErrorResponse(500, "UNKNOWN", "the registry's storage failed; its log says why")
