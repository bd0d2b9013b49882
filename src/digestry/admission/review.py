"""The wire forms of admission.k8s.io/v1: an AdmissionReview's request, and the response to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from digestry.admission.pod_templates import Kind
from digestry.errors import InvalidConfiguration
from digestry.model.json_types import prepared
from digestry.model.json_values import JsonObject, as_object

API_VERSION: Final = "admission.k8s.io/v1"
LONGEST_WARNING: Final = 256
"""Characters: API servers cut longer ones."""
MOST_WARNINGS: Final = 4096
"""Characters of all warnings together: API servers drop what is more."""
LONGEST_MESSAGE: Final = 8192
"""Characters of the reason of a denial."""
LONGEST_ANNOTATION: Final = 8192
"""Characters of an audit annotation."""


class _GroupKind(msgspec.Struct, frozen=True):
    group: str = ""
    version: str = ""
    kind: str = ""


class _User(msgspec.Struct, frozen=True):
    username: str = ""


class _Request(msgspec.Struct, frozen=True, rename="camel"):
    uid: str
    kind: _GroupKind
    operation: str
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    object: Any = None
    old_object: Any = None
    dry_run: bool | None = None
    user_info: _User = _User()


class _Review(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    request: _Request


_decoder: Final = msgspec.json.Decoder(prepared(_Review))


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """What an API server asks. ``object`` is empty for a deletion, ``old`` is None for a creation."""

    uid: str
    kind: Kind
    operation: str
    subresource: str
    name: str
    namespace: str
    object: JsonObject
    old: JsonObject | None = None
    dry_run: bool = False
    user: str = ""

    @property
    def title(self) -> str:
        """The object as kubectl names it."""
        name = self.name or as_object(self.object.get("metadata")).get("generateName") or "-"
        return f"{self.kind[1].lower()}/{name}"


def decode_review(body: bytes) -> AdmissionRequest:
    """Return the request in an AdmissionReview. Raises :class:`InvalidConfiguration` for anything else."""
    try:
        review = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfiguration(f"this is not an AdmissionReview: {error}") from error
    if review.kind != "AdmissionReview" or review.api_version != API_VERSION:
        raise InvalidConfiguration(
            f"{API_VERSION} AdmissionReview is understood, and this is {review.api_version} {review.kind}",
            hint='the webhook configuration must have admissionReviewVersions: ["v1"]',
        )
    request = review.request
    if request.operation in {"CREATE", "UPDATE"} and not isinstance(request.object, dict):
        raise InvalidConfiguration(f"the request to {request.operation} has no object")
    return AdmissionRequest(
        request.uid,
        (request.kind.group, request.kind.kind),
        request.operation,
        request.sub_resource,
        request.name,
        request.namespace,
        as_object(request.object),
        request.old_object if isinstance(request.old_object, dict) else None,
        bool(request.dry_run),
        request.user_info.username,
    )


def encode_response(
    uid: str,
    *,
    allowed: bool,
    message: str = "",
    warnings: Iterable[str] = (),
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """Return the AdmissionReview that answers request ``uid``. Texts are cut to what the API allows.

    There is never a patch in it.
    """
    response: dict[str, Any] = {"uid": uid, "allowed": allowed}
    if not allowed:
        response["status"] = {
            "metadata": {},
            "status": "Failure",
            "message": _cut(message, LONGEST_MESSAGE),
            "reason": "Forbidden",
            "code": 403,
        }
    shown = fitting(warnings)
    if shown:
        response["warnings"] = shown
    if annotations:
        response["auditAnnotations"] = {
            key: _cut(value, LONGEST_ANNOTATION) for key, value in annotations.items()
        }
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response})


def whole_items(items: Iterable[Any]) -> tuple[str, int]:
    """Return the first of ``items`` as a JSON list that is no longer than an annotation may be, and how many
    are left out."""
    every = [msgspec.json.encode(item).decode() for item in items]
    room = LONGEST_ANNOTATION - 2
    shown: list[str] = []
    for text in every:
        room -= len(text) + 1
        if room < 0:
            break
        shown.append(text)
    return f"[{','.join(shown)}]", len(every) - len(shown)


def fitting(warnings: Iterable[str]) -> list[str]:
    """Return ``warnings`` as API servers pass them on: each short, and not too many; the last one says how
    many are left out."""
    every = [_cut(_line(text), LONGEST_WARNING) for text in warnings]
    room = MOST_WARNINGS - 100
    shown: list[str] = []
    for text in every:
        room -= len(text)
        if room < 0:
            shown.append(f"and {len(every) - len(shown)} more: the webhook's log has them all")
            break
        shown.append(text)
    return shown


def _line(text: str) -> str:
    """Return ``text`` in one line of printable characters: warnings become HTTP headers."""
    return "".join(character if character.isprintable() else " " for character in text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
