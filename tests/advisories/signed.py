"""Keys that tests sign with, and the envelopes that they make."""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from digestry.advisories.dsse import pre_authentication_encoding
from digestry.advisories.signing_keys import SigningKey, read_signing_key
from digestry.model import media_types

RECORDED = Path(__file__).parent / "recorded"
PASSWORD = b"correct-horse"
_CURVES = {
    "P-224": ec.SECP224R1(), "P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1(),
}  # fmt: skip


@functools.cache
def private_key(kind: str) -> Any:
    """A private key: ``P-256``, ``RSA-2048``, ``Ed25519`` …, the same each time; ``P-256 b`` is another."""
    curves = {
        "P-256": ec.SECP256R1(),
        "P-384": ec.SECP384R1(),
        "P-521": ec.SECP521R1(),
        "P-224": ec.SECP224R1(),
    }
    name = kind.partition(" ")[0]
    if name in curves:
        return ec.generate_private_key(curves[name])
    if name == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=int(name.removeprefix("RSA-")))


def pem(kind: str, *, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes | None = None) -> bytes:
    """The private key as PEM."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    content: bytes = private_key(kind).private_bytes(Encoding.PEM, form, encryption)
    return content


@functools.cache
def signing_key(kind: str) -> SigningKey:
    return read_signing_key(pem(kind), kind, lambda: b"")


def enveloped(
    value: Any,
    *keys: SigningKey,
    payload_type: str = media_types.IN_TOTO,
    **more: Any,
) -> dict[str, Any]:
    """A DSSE envelope around a JSON value, signed with each of ``keys``."""
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    message = pre_authentication_encoding(payload_type, payload)
    signatures = [{"sig": base64.b64encode(key.sign(message)).decode()} for key in keys]
    return {
        "payload": base64.b64encode(payload).decode(), "payloadType": payload_type,
        "signatures": signatures, **more,
    }  # fmt: skip
