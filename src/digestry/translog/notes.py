"""Signed notes, as C2SP's ``signed-note`` defines them: a text, and lines of signatures.

Keys are Ed25519: of the type that signs the text itself, and of the type that cosigns checkpoints with a time
(``tlog-cosignature``). Signatures of other types are kept, and verified by nobody here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from digestry.errors import ContentError

ED25519: Final = 0x01
"""The type of a key that signs a note's text."""
COSIGNATURE: Final = 0x04
"""The type of a key that cosigns checkpoints with the time."""

MOST_SIGNATURES: Final = 64
"""A note with more signatures is refused."""
LARGEST_NOTE: Final = 1 << 20
"""A larger note, in bytes, is refused."""

_DASH: Final = "— "
_KEY_SIZE: Final = 32
_SIGNATURE_SIZE: Final = 64
_TIMED: Final = struct.Struct(">Q")
_LATEST: Final = (1 << 63) - 1
_ID: Final = re.compile(r"[0-9a-f]{8}")
_PRIVATE: Final = ("PRIVATE", "KEY")


class InvalidNote(ContentError):
    """A note, or a line or key of one, that breaks the format, or whose signature is wrong."""


class UnsignedNote(InvalidNote):
    """A note without a signature of a key that is trusted."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of a note: the key's name and ID, and the signature's bytes, which include the time of a
    cosignature."""

    name: str
    key_id: int
    signature: bytes

    @property
    def line(self) -> str:
        """The line of a note, with its end."""
        content = struct.pack(">I", self.key_id) + self.signature
        return f"{_DASH}{self.name} {base64.b64encode(content).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends with the end of a line, and its signatures."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return f"{self.text}\n{''.join(signature.line for signature in self.signatures)}"

    def encode(self) -> bytes:
        """Return the note's bytes."""
        return str(self).encode()


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public part of a key. Its text is the *vkey* ``name+id+base64``."""

    name: str
    algorithm: int
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.algorithm in {ED25519, COSIGNATURE} and len(self.public) != _KEY_SIZE:
            raise InvalidNote(f"the key {self.name} has {len(self.public)} bytes, not {_KEY_SIZE}")

    @property
    def key_id(self) -> int:
        """The number by which signatures name the key, with the key's name."""
        return key_id(self.name, self.algorithm, self.public)

    def __str__(self) -> str:
        content = bytes([self.algorithm]) + self.public
        return f"{self.name}+{self.key_id:08x}+{base64.b64encode(content).decode()}"

    @property
    def is_known(self) -> bool:
        """Whether signatures of this type of key can be verified here."""
        return self.algorithm in {ED25519, COSIGNATURE}

    def made(self, signature: Signature) -> bool:
        """Return whether a signature says that it is of this key."""
        return signature.name == self.name and signature.key_id == self.key_id

    def verify(self, text: str, signature: Signature) -> int | None:
        """Verify a signature of a note's text; return the seconds since 1970 at which a cosignature was made.

        Raises :class:`InvalidNote`.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if not self.is_known:
            raise InvalidNote(f"signatures of the key {self.name} cannot be verified: it is of another type")
        content, message, seconds = signature.signature, text.encode(), None
        if self.algorithm == COSIGNATURE:
            seconds, content, message = _timed(text, signature)
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(content, message)
        except (InvalidSignature, ValueError) as error:
            raise InvalidNote(f"the signature of {self.name} is wrong") from error
        return seconds


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A key that signs. Its text is ``PRIVATE+KEY+name+id+base64``, as Go's ``note`` writes it."""

    name: str
    algorithm: int
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.algorithm not in {ED25519, COSIGNATURE} or len(self.seed) != _KEY_SIZE:
            raise InvalidNote(f"the private key {self.name} is not one of Ed25519")

    @classmethod
    def new(cls, name: str, algorithm: int = ED25519) -> SignerKey:
        """Make a key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(name, algorithm, Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def verifier(self) -> VerifierKey:
        """The public part."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        return VerifierKey(self.name, self.algorithm, public)

    def __str__(self) -> str:
        content = bytes([self.algorithm]) + self.seed
        number = self.verifier.key_id
        return f"{'+'.join(_PRIVATE)}+{self.name}+{number:08x}+{base64.b64encode(content).decode()}"

    def sign(self, text: str, *, seconds: int = 0) -> Signature:
        """Sign a note's text; ``seconds`` since 1970 is the time of a cosignature."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        number = self.verifier.key_id
        if self.algorithm == COSIGNATURE:
            signed = key.sign(_timed_message(text, seconds))
            return Signature(self.name, number, _TIMED.pack(seconds) + signed)
        return Signature(self.name, number, key.sign(text.encode()))


def key_id(name: str, algorithm: int, public: bytes) -> int:
    """Return the ID of a key: the beginning of a hash of its name, type and bytes."""
    content = name.encode() + b"\n" + bytes([algorithm]) + public
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big")


def check_name(name: str) -> None:
    """Raise :class:`InvalidNote` for a text that cannot be the name of a key."""
    if not name or "+" in name or any(character.isspace() or character < " " for character in name):
        raise InvalidNote(
            f"{name!r} is not the name of a key",
            hint="a name has no spaces and no plus sign, such as registry.example.com/log",
        )


def parse_verifier_key(text: str) -> VerifierKey:
    """Return the key of a *vkey*. Raises :class:`InvalidNote`."""
    name, number, content = _key_parts(text.split("+", 2), "a verifier key is NAME+ID+BASE64")
    key = VerifierKey(name, content[0], content[1:])
    if key.is_known and key.key_id != number:
        raise InvalidNote(f"the key {name} has the ID {key.key_id:08x}, and not {number:08x}")
    return key


def parse_signer_key(text: str) -> SignerKey:
    """Return the key of a text as :class:`SignerKey` has it. Raises :class:`InvalidNote`."""
    parts = text.split("+", 4)
    form = "a private key is PRIVATE+KEY+NAME+ID+BASE64"
    if tuple(parts[:2]) != _PRIVATE:
        raise InvalidNote(f"it is not a private key: {form}")
    name, number, content = _key_parts(parts[2:], form)
    key = SignerKey(name, content[0], content[1:])
    if key.verifier.key_id != number:
        raise InvalidNote(
            f"the private key {name} has the ID {key.verifier.key_id:08x}, and not {number:08x}"
        )
    return key


def parse_note(content: bytes) -> Note:
    """Return the note with these bytes. Raises :class:`InvalidNote`. No signature is verified."""
    if len(content) > LARGEST_NOTE:
        raise InvalidNote(f"the note has {len(content)} bytes, and may have {LARGEST_NOTE}")
    try:
        whole = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidNote("the note is not UTF-8") from error
    if any(character < " " and character != "\n" for character in whole):
        raise InvalidNote("the note has a control character")
    text, blank, lines = whole.rpartition("\n\n")
    if not blank or not lines:
        raise InvalidNote("the note has no signatures after an empty line")
    return Note(text + "\n", parse_signatures(lines))


def parse_signatures(lines: str) -> tuple[Signature, ...]:
    """Return the signatures of a note's lines, each with its end. Raises :class:`InvalidNote`."""
    if not lines.endswith("\n"):
        raise InvalidNote("the last line of the note has no end")
    found = lines[:-1].split("\n")
    if len(found) > MOST_SIGNATURES:
        raise InvalidNote(f"the note has {len(found)} signatures, and may have {MOST_SIGNATURES}")
    return tuple(_parse_signature(line) for line in found)


def verified(note: Note, keys: Iterable[VerifierKey]) -> dict[VerifierKey, Signature]:
    """Return the signatures of trusted ``keys``, each verified; those of others are ignored.

    Raises :class:`InvalidNote` for a wrong signature of one of the keys.
    """
    found: dict[VerifierKey, Signature] = {}
    for key in keys:
        for signature in note.signatures:
            if key.made(signature):
                key.verify(note.text, signature)
                found.setdefault(key, signature)
    return found


def open_note(content: bytes, keys: Sequence[VerifierKey]) -> tuple[Note, dict[VerifierKey, Signature]]:
    """Return a note that one of ``keys`` signed, and the signatures of all of them.

    Raises :class:`UnsignedNote` without any, and :class:`InvalidNote`.
    """
    note = parse_note(content)
    found = verified(note, keys)
    if not found:
        named = ", ".join(sorted({key.name for key in keys})) or "nobody"
        raise UnsignedNote(f"the note has no signature of a trusted key: {named} is trusted")
    return note, found


def decode_base64(text: str) -> bytes:
    """Return the bytes of a text in the one base64 that there is of them. Raises ``ValueError``."""
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:
        raise ValueError("it has bits that are ignored")
    return content


def _parse_signature(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise InvalidNote("a line of a signature is an em dash, a name and a base64")
    check_name(name)
    try:
        content = decode_base64(encoded)
    except (ValueError, binascii.Error) as error:
        raise InvalidNote(f"the signature of {name} is not base64") from error
    if len(content) <= 4:
        raise InvalidNote(f"the signature of {name} is too short")
    return Signature(name, int.from_bytes(content[:4], "big"), content[4:])


def _key_parts(parts: Sequence[str], form: str) -> tuple[str, int, bytes]:
    if len(parts) != 3 or not _ID.fullmatch(parts[1]):
        raise InvalidNote(f"it is not a key: {form}")
    try:
        content = decode_base64(parts[2])
    except (ValueError, binascii.Error) as error:
        raise InvalidNote(f"the key {parts[0]} is not base64") from error
    if len(content) < 2:
        raise InvalidNote(f"the key {parts[0]} is too short")
    return parts[0], int(parts[1], 16), content


def _timed(text: str, signature: Signature) -> tuple[int, bytes, bytes]:
    if len(signature.signature) != _TIMED.size + _SIGNATURE_SIZE:
        raise InvalidNote(f"the cosignature of {signature.name} has a wrong length")
    (seconds,) = _TIMED.unpack_from(signature.signature)
    if seconds > _LATEST:
        raise InvalidNote(f"the cosignature of {signature.name} has an impossible time")
    return seconds, signature.signature[_TIMED.size :], _timed_message(text, seconds)


def _timed_message(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()
