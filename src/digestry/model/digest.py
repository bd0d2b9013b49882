"""The digest, the identity of content: ``algorithm:hex`` of exact bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final, Protocol

from digestry.errors import InvalidDigest

ALGORITHMS: Final[dict[str, int]] = {"sha256": 64, "sha512": 128}
"""The algorithms that are accepted, and how many hex digits each has (image-spec, descriptor.md)."""

_HASHERS: Final[dict[str, Callable[..., Hasher]]] = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
_SHAPE: Final = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})", re.ASCII)
_GRAMMAR: Final = r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+"
_SHOWN: Final = 80


class Hasher(Protocol):
    """The part of a ``hashlib`` object that digestry uses."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def shown(text: object) -> str:
    """Return ``text`` as an error message quotes it: escaped, and cut when it is long."""
    quoted = repr(text)
    if len(quoted) <= _SHOWN:
        return quoted
    length = len(text) if isinstance(text, str) else len(quoted)
    return f"{quoted[:_SHOWN]}… ({length} characters)"


class Digest:
    """A content digest, ``sha256`` or ``sha512``. Immutable, hashable, ordered as its text is.

    Made by :meth:`parse` from text, or by :meth:`of` from bytes. Every digest is a valid one.
    """

    __slots__ = ("_text", "algorithm", "encoded")

    algorithm: str
    encoded: str

    def __init__(self, algorithm: str, encoded: str) -> None:
        text = f"{algorithm}:{encoded}"
        if not _SHAPE.fullmatch(text):
            raise _complaint(text)
        object.__setattr__(self, "algorithm", algorithm)
        object.__setattr__(self, "encoded", encoded)
        object.__setattr__(self, "_text", text)

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse ``text``, and return the digest.

        Raises :class:`~digestry.errors.InvalidDigest`, which says what is wrong.
        """
        if not isinstance(text, str):
            raise InvalidDigest(f"a digest must be a string, not {type(text).__name__}")
        if _SHAPE.fullmatch(text) is None:
            raise _complaint(text)
        new = _new(cls)
        _set_algorithm(new, text[:6])  # both have names of six characters
        _set_encoded(new, text[7:])
        _set_text(new, text)
        return new

    @classmethod
    def of(cls, content: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
        """Return the digest of ``content``."""
        hasher = new_hasher(algorithm)
        hasher.update(content)
        return cls(algorithm, hasher.hexdigest())

    def hasher(self) -> Hasher:
        """Return a new hasher of this digest's algorithm."""
        return new_hasher(self.algorithm)

    def hash_of(self, content: bytes | bytearray | memoryview) -> str:
        """Return the hash of ``content`` in hex, by this digest's algorithm; its own is :attr:`encoded`."""
        return _HASHERS[self.algorithm](content).hexdigest()

    @property
    def short(self) -> str:
        """The first twelve hex digits, as docker shows an ID. For people only: it identifies nothing."""
        return self.encoded[:12]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Digest cannot be changed ({name!r})")

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Digest({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and self._text == other._text

    def __lt__(self, other: Digest) -> bool:
        return self._text < other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[Digest], tuple[str, str]]:
        return Digest, (self.algorithm, self.encoded)

    _text: str


# Thousands of digests are made while a command lists images: these are faster than object.__setattr__.
_new: Final = object.__new__
_set_algorithm: Final = vars(Digest)["algorithm"].__set__
_set_encoded: Final = vars(Digest)["encoded"].__set__
_set_text: Final = vars(Digest)["_text"].__set__


def new_hasher(algorithm: str) -> Hasher:
    """Return a new hasher of ``algorithm``.

    Raises :class:`~digestry.errors.InvalidDigest` for one that is not accepted.
    """
    if algorithm not in ALGORITHMS:
        raise InvalidDigest(
            f"digest algorithm {shown(algorithm)} is not supported",
            hint=f"use one of: {', '.join(ALGORITHMS)}",
        )
    return _HASHERS[algorithm]()


def _complaint(text: str) -> InvalidDigest:
    algorithm, colon, encoded = text.partition(":")
    if not colon:
        return InvalidDigest(
            f"digest {shown(text)} has no algorithm", hint="write it as sha256:<64 hex digits>"
        )
    if algorithm not in ALGORITHMS:
        what = "is not supported" if re.fullmatch(_GRAMMAR, text, re.ASCII) else "is not one"
        return InvalidDigest(
            f"digest algorithm {shown(algorithm)} {what}", hint=f"use one of: {', '.join(ALGORITHMS)}"
        )
    wanted = ALGORITHMS[algorithm]
    if len(encoded) != wanted:
        return InvalidDigest(
            f"a {algorithm} digest has {wanted} hex digits, {shown(text)} has {len(encoded)}"
        )
    return InvalidDigest(f"digest {shown(text)} is not in lower-case hex")
