"""Private keys in files that sign advisories: cosign's own format, and PKCS#8, SEC 1 and PKCS#1 in PEM."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from digestry.advisories.public_keys import SMALLEST_RSA, PublicKey
from digestry.advisories.secret_box import KEY_SIZE, NONCE_SIZE, open_box
from digestry.errors import InvalidConfiguration
from digestry.model.json_values import as_object, as_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

Password: TypeAlias = Callable[[], bytes]
"""Called for the password of a key that has one."""

_COSIGN: Final = (b"ENCRYPTED SIGSTORE PRIVATE KEY", b"ENCRYPTED COSIGN PRIVATE KEY")
_LARGEST_COST: Final = 1 << 20
_LARGEST_BLOCK: Final = 32


class SigningKey:
    """A private key that signs as cosign does, and the public key to it. Nothing of it is in its repr."""

    def __init__(self, sign: Callable[[bytes], bytes], public_pem: bytes, hint: str) -> None:
        self._sign = sign
        self.public_pem = public_pem
        self.public_key = PublicKey(public_pem)
        self.hint = hint
        """By which a Sigstore bundle refers to the key: the SHA-256 of the public key (DER), in base64."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature of ``message``."""
        return self._sign(message)


def read_signing_key(pem: bytes, name: str, password: Password) -> SigningKey:
    """Return the private key in ``pem``, the content of the file ``name``.

    Raises :class:`InvalidConfiguration` for what is no such key, and for a wrong password.
    """
    try:
        return _signing(_private_key(pem, password))
    except ValueError as error:
        raise InvalidConfiguration(
            f"{name}: {error}",
            hint="write a key that `cosign generate-key-pair` made, or a private key in PEM (PKCS#8)",
        ) from error


def _private_key(pem: bytes, password: Password) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    try:
        for kind in _COSIGN:
            if b"-----BEGIN " + kind + b"-----" in pem:
                return load_der_private_key(_opened(_body(pem, kind), password), None)
        encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem or b"Proc-Type: 4,ENCRYPTED" in pem
        if b"PRIVATE KEY-----" not in pem:
            raise ValueError("it is not a private key in PEM")
        try:
            return load_pem_private_key(pem, password() if encrypted else None)
        except ValueError as error:
            why = "the password is wrong" if encrypted else "it is not a private key in PEM"
            raise ValueError(why) from error
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("it is not a private key that can be used") from error


def _body(pem: bytes, kind: bytes) -> bytes:
    """Return the content of the first block of ``kind``."""
    _, _, rest = pem.partition(b"-----BEGIN " + kind + b"-----")
    body, end, _ = rest.partition(b"-----END " + kind + b"-----")
    try:
        return base64.b64decode(b"".join(body.split()), validate=True) if end else b""
    except binascii.Error:
        return b""


def _opened(content: bytes, password: Password) -> bytes:
    """Return the key (PKCS#8, DER) in cosign's encrypted form: scrypt, and a secret box."""
    try:
        value = as_object(msgspec.json.decode(content))
    except msgspec.DecodeError:
        value = {}
    derivation, cipher = as_object(value.get("kdf")), as_object(value.get("cipher"))
    parameters = as_object(derivation.get("params"))
    cost, block, parallel = (parameters.get(name) for name in ("N", "r", "p"))
    salt, nonce, box = map(_bytes, (derivation.get("salt"), cipher.get("nonce"), value.get("ciphertext")))
    if derivation.get("name") != "scrypt" or cipher.get("name") != "nacl/secretbox" or not box:
        raise ValueError("its encryption is not cosign's (scrypt, nacl/secretbox)")
    if not (isinstance(cost, int) and isinstance(block, int) and parallel == 1 and len(nonce) == NONCE_SIZE):
        raise ValueError("the parameters of its encryption are not those of cosign")
    if not (1 < cost <= _LARGEST_COST and cost & (cost - 1) == 0 and 0 < block <= _LARGEST_BLOCK):
        raise ValueError("the parameters of its encryption are out of range")
    memory = 128 * cost * block + (1 << 20)
    key = hashlib.scrypt(password(), salt=salt, n=cost, r=block, p=1, maxmem=memory, dklen=KEY_SIZE)
    try:
        return open_box(key, nonce, box)
    except ValueError as error:
        raise ValueError("the password is wrong") from error


def _bytes(value: object) -> bytes:
    try:
        return base64.b64decode(as_text(value), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _signing(key: PrivateKeyTypes) -> SigningKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(key, Ed25519PrivateKey):
        sign: Callable[[bytes], bytes] = key.sign
    elif isinstance(key, EllipticCurvePrivateKey):
        sign = _of_curve(key)
    elif isinstance(key, RSAPrivateKey):
        sign = _of_rsa(key)
    else:
        raise ValueError("it is not an ECDSA, Ed25519 or RSA key")
    public, information = key.public_key(), PublicFormat.SubjectPublicKeyInfo
    hint = hashlib.sha256(public.public_bytes(Encoding.DER, information)).digest()
    return SigningKey(sign, public.public_bytes(Encoding.PEM, information), base64.b64encode(hint).decode())


def _of_curve(key: EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    # cosign verifies with SHA-256 whatever the curve is, unless it is told otherwise.
    return lambda message: key.sign(message, ECDSA(SHA256()))


def _of_rsa(key: RSAPrivateKey) -> Callable[[bytes], bytes]:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    if key.key_size < SMALLEST_RSA:
        raise ValueError(f"it has {key.key_size} bits, and {SMALLEST_RSA} are the least")
    return lambda message: key.sign(message, PKCS1v15(), SHA256())
