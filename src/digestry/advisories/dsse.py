"""DSSE envelopes (secure-systems-lab/dsse, protocol 1.0): a payload and the signatures of it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from digestry.model import media_types
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

MEDIA_TYPE: Final = "application/vnd.dsse.envelope.v1+json"
MOST_SIGNATURES: Final = 8
"""Of one envelope. Further ones are not looked at."""

_URL_SAFE: Final = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Envelope:
    """The payload of an envelope, its type, and the signatures, none of them verified."""

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...] = ()

    @property
    def message(self) -> bytes:
        """The bytes that are signed: the pre-authentication encoding (PAE) of type and payload."""
        return pre_authentication_encoding(self.payload_type, self.payload)


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the encoding of a payload and its type that is signed in their place."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def read_envelope(value: JsonObject) -> Envelope:
    """Return the envelope that a JSON object with a ``payload`` is.

    Signatures that are not base64 are left out. Raises ``ValueError`` if the payload is not base64.
    """
    payload = _decoded(value["payload"])
    if payload is None:
        raise ValueError("its envelope's payload is not base64")
    entries = as_list(value.get("signatures"))[:MOST_SIGNATURES]
    signatures = [_decoded(as_object(entry).get("sig")) for entry in entries]
    return Envelope(as_text(value.get("payloadType")), payload, tuple(filter(None, signatures)))


def make_envelope(payload: bytes, signature: bytes) -> JsonObject:
    """Return the envelope of an in-toto statement with one signature of it, as JSON."""
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": media_types.IN_TOTO,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }


def _decoded(value: object) -> bytes | None:
    """Return base64, in the standard alphabet or the URL-safe one, padded or not; None for anything else."""
    text = as_text(value).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
