"""Public keys in PEM, and the signatures that they verify: ECDSA, Ed25519 and RSA, as cosign makes them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

SMALLEST_RSA: Final = 2048
"""In bits, of a modulus."""

_MOST_REMEMBERED: Final = 64
_Verify: TypeAlias = Callable[[bytes, bytes], None]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public key in ``pem``. Raises ``ValueError``, which says why, if it is none that can be used.

    The kind of the key alone decides how it verifies: nothing that comes with a signature is believed.
    """

    pem: bytes

    def __post_init__(self) -> None:
        _checks(self.pem)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether ``signature`` is this key's, of ``message``."""
        from cryptography.exceptions import InvalidSignature

        for verify in _checks(self.pem):
            try:
                verify(signature, message)
            except (InvalidSignature, ValueError):
                continue
            return True
        return False


@functools.lru_cache(_MOST_REMEMBERED)
def _checks(pem: bytes) -> tuple[_Verify, ...]:
    """Return the ways in which the key in ``pem`` may have signed."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY-----" in pem:
        raise ValueError("it is a private key, and a public one is required")
    if b"-----BEGIN CERTIFICATE-----" in pem:
        raise ValueError("it is a certificate, and a public key is required")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("it is not a public key in PEM") from error
    if isinstance(key, Ed25519PublicKey):
        return (key.verify,)
    if isinstance(key, EllipticCurvePublicKey):
        return _of_curve(key)
    if isinstance(key, RSAPublicKey):
        return _of_rsa(key)
    raise ValueError("it is not an ECDSA, Ed25519 or RSA key")


def _of_curve(key: EllipticCurvePublicKey) -> tuple[_Verify, ...]:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

    hashes: dict[str, HashAlgorithm] = {"secp256r1": SHA256(), "secp384r1": SHA384(), "secp521r1": SHA512()}
    own = hashes.get(key.curve.name)
    if own is None:
        raise ValueError(f"its curve, {key.curve.name}, is not P-256, P-384 or P-521")

    def check(algorithm: HashAlgorithm) -> _Verify:
        return lambda signature, message: key.verify(signature, message, ECDSA(algorithm))

    # cosign 2 hashes with SHA-256 whatever the curve is; cosign 3 with the curve's own.
    return tuple(check(hashes[name]) for name in dict.fromkeys((key.curve.name, "secp256r1")))


def _of_rsa(key: RSAPublicKey) -> tuple[_Verify, ...]:
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.hashes import SHA256

    if key.key_size < SMALLEST_RSA:
        raise ValueError(f"it has {key.key_size} bits, and {SMALLEST_RSA} are the least")
    hashed = SHA256()
    pss = padding.PSS(padding.MGF1(hashed), padding.PSS.AUTO)
    return (
        lambda signature, message: key.verify(signature, message, padding.PKCS1v15(), hashed),
        lambda signature, message: key.verify(signature, message, pss, hashed),
    )
