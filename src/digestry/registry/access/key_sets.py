"""JSON Web Key Sets (RFC 7517) of outside issuers: the keys that can verify signatures here.

A set often has keys for other uses, of other forms, or of unknown curves. Those are left out, with a line in
the log; the others are used.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from digestry.model.digest import shown
from digestry.model.json_types import prepared

Key = ECKey | OKPKey | RSAKey

_MOST_KEYS: Final = 500
_LARGEST_RSA: Final = 8192  # bits; larger ones take milliseconds for each token that a client sends
_SMALLEST_RSA: Final = 2048
_LARGEST_EXPONENT: Final = 64
_EDWARDS: Final = frozenset({"Ed25519", "Ed448"})
_NAMES: Final = {"RS256": {"RS256"}, "ES256": {"ES256"}, "EdDSA": {"EdDSA", *_EDWARDS}}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key, its algorithm, and its name, if it has one."""

    key: Key
    algorithm: str
    kid: str | None


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of a set, and the reason for each key that was left out."""

    keys: tuple[PublicKey, ...]
    left_out: tuple[str, ...] = ()

    def fitting(self, algorithm: str, kid: str | None) -> list[PublicKey]:
        """Return the keys that may have signed a token with this header. A key without a name fits any."""
        return [
            key
            for key in self.keys
            if key.algorithm == algorithm and (kid is None or key.kid is None or key.kid == kid)
        ]


class _Set(msgspec.Struct):
    keys: list[msgspec.Raw]


class _Jwk(msgspec.Struct):
    """The parts of a key that are read (RFC 7517, section 4; RFC 7518, section 6), none of them private."""

    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    key_ops: list[str] | None = None
    crv: str = ""
    n: str = ""
    e: str = ""
    x: str = ""
    y: str = ""


class _LeftOut(Exception):
    """The key cannot be used here; the text says why."""


def parse(raw: bytes) -> KeySet:
    """Return the keys of a document. Raises ValueError if it is no key set, or has no usable key."""
    try:
        entries = msgspec.json.decode(raw, type=prepared(_Set)).keys
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError("it is no JSON Web Key Set") from error
    keys: list[PublicKey] = []
    left_out: list[str] = []
    for number, entry in enumerate(entries[:_MOST_KEYS], 1):
        try:
            keys.append(_key(entry))
        except _LeftOut as reason:
            left_out.append(f"key {number} {reason}")
    if len(entries) > _MOST_KEYS:
        left_out.append(f"all keys after the first {_MOST_KEYS}")
    if not keys:
        why = f": {'; '.join(left_out[:3])}" if left_out else ""
        raise ValueError(f"it has no keys that can be used{why}")
    return KeySet(tuple(keys), tuple(left_out))


def _key(entry: msgspec.Raw) -> PublicKey:
    try:
        found = msgspec.json.decode(entry, type=prepared(_Jwk))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _LeftOut("is not of the form of a JSON Web Key") from None
    name = "" if found.kid is None else f"({shown(found.kid)}) "
    if found.use not in {None, "sig"} or "verify" not in (found.key_ops or ["verify"]):
        raise _LeftOut(f"{name}is not for signatures")
    algorithm, members = _members(found, name)
    if found.alg is not None and found.alg not in _NAMES[algorithm]:
        raise _LeftOut(f"{name}is for {shown(found.alg)}, which is not taken here")
    # Any: joserfc types import_key for each class by itself.
    kind: Any = {"RS256": RSAKey, "ES256": ECKey, "EdDSA": OKPKey}[algorithm]
    try:
        key: Key = kind.import_key({"kty": found.kty, **members})
        key.public_key  # noqa: B018 - reads it: only now what is no key shows
    except (ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm, JoseError):
        raise _LeftOut(f"{name}cannot be read") from None
    return PublicKey(key, algorithm, found.kid)


def _members(found: _Jwk, name: str) -> tuple[str, dict[str, str]]:
    """Return the key's algorithm and its public members."""
    match found.kty:
        case "RSA":
            size, exponent = _bits(found.n), _bits(found.e)
            if not _SMALLEST_RSA <= size <= _LARGEST_RSA or exponent > _LARGEST_EXPONENT:
                raise _LeftOut(f"{name}is an RSA key of {size} bits")
            return "RS256", {"n": found.n, "e": found.e}
        case "EC" if found.crv == "P-256":
            return "ES256", {"crv": found.crv, "x": found.x, "y": found.y}
        case "OKP" if found.crv in _EDWARDS:
            return "EdDSA", {"crv": found.crv, "x": found.x}
        case "EC" | "OKP":
            raise _LeftOut(f"{name}is of the curve {shown(found.crv)}, which is not taken here")
    # A shared secret ("oct") does not prove who signed.
    raise _LeftOut(f"{name}is of the type {shown(found.kty)}, which is not taken here")


def _bits(text: str) -> int:
    """Return the bit length of a base64url number without padding."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return 0
    return int.from_bytes(raw).bit_length()
