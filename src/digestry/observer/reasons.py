"""Why an observation failed, in a few words that stay the same from one request to the next."""

from __future__ import annotations

from digestry.errors import (
    ContentError,
    DigestryError,
    InvalidConfiguration,
    ProtocolViolation,
    RedirectRefused,
    Refused,
    RemoteDamaged,
    RemoteNotFound,
    StorageError,
    StorageFull,
    Unauthorized,
    Unreachable,
)
from digestry.registry.pull_through import upstream_errors
from digestry.registry.pull_through.upstream_errors import BackingOff


class FalseDigest(ProtocolViolation):
    """The registry names a digest, in its answer to HEAD, that it does not have, and sends another image."""

    word = "names a digest that it does not have, and sends another image"


def reason_of(error: DigestryError) -> str:
    """Return the reason, without the registry's words or an internal address: a page may show it."""
    if isinstance(error, BackingOff | FalseDigest):
        return error.word  # of a back-off as the request said that failed: it is one gap
    match error:
        case StorageFull():
            return "no room here for the answer"
        case StorageError():
            return "this registry could not store the answer"
        case InvalidConfiguration():
            return "a file that the configuration names cannot be read"
        case RemoteDamaged():
            return "it has the manifest damaged"
        case RemoteNotFound():
            return "answers 404 without a registry's error code, which is not believed"
        case Unauthorized():
            return f"refused (answers {error.status})"
        case Refused(status=429):
            return upstream_errors.RATE_LIMITED
        case Refused():
            return f"answers {error.status}"
        case RedirectRefused():
            return "redirects to a place that is not contacted, or that refuses"
        case Unreachable():
            return upstream_errors.UNREACHABLE
        case ProtocolViolation():
            return "answers something that is no manifest or list"
        case ContentError():
            return "sends other content than its digest says"
    return upstream_errors.word(error)
