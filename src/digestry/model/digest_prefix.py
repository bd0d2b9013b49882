"""The prefix of a digest, as tables print it and people write it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from digestry.errors import Ambiguous, InvalidDigest, InvalidReference, NotFound
from digestry.model.digest import ALGORITHMS, Digest, shown

SHORTEST_GIVEN: Final = 7
"""Hex digits that a person must give at the least, as Git prints them."""

_SHOWN: Final = 10
_SHAPE: Final = re.compile(rf"(?:(sha256|sha512):)?([0-9a-f]{{{SHORTEST_GIVEN},128}})", re.ASCII)


class DigestPrefix(msgspec.Struct, frozen=True):
    """Some of the first hex digits of a digest; ``algorithm`` is empty if it was not given."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> DigestPrefix:
        """Read ``[algorithm:]hex``, also a whole digest. Raises :class:`~digestry.errors.InvalidDigest`."""
        prefix = cls.read(text)
        if prefix is None:
            raise InvalidDigest(
                f"{shown(text)} is neither a digest nor the beginning of one",
                hint=f"write {SHORTEST_GIVEN} hex digits of it or more, in lower case, with or without "
                f"sha256:",
            )
        return prefix

    @classmethod
    def of_name(cls, name: str) -> DigestPrefix | None:
        """Return the prefix after the ``@`` of ``name``; None for a name without one.

        Raises :class:`~digestry.errors.InvalidReference` if that is not the beginning of a digest.
        """
        _, at, text = name.partition("@")
        if not at:
            return None
        try:
            return cls.parse(text)
        except InvalidDigest as error:
            raise InvalidReference(f"in {shown(name)}: {error.message}", hint=error.hint) from error

    @classmethod
    def read(cls, text: str) -> DigestPrefix | None:
        """Return the prefix that ``text`` is; None for other text."""
        match = _SHAPE.fullmatch(text)
        if match is None:
            return None
        prefix = cls(match[1] or "", match[2])
        return prefix if prefix.algorithms else None

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that a digest with this prefix can have."""
        return tuple(
            name
            for name, digits in ALGORITHMS.items()
            if self.algorithm in {"", name} and len(self.encoded) <= digits
        )

    @property
    def whole(self) -> Digest | None:
        """The digest, if it is all there: 64 digits without an algorithm are sha256's."""
        algorithm = self.algorithm or "sha256"
        if ALGORITHMS[algorithm] != len(self.encoded):
            return None
        return Digest(algorithm, self.encoded)

    def begins(self, digest: Digest) -> bool:
        """Return whether ``digest`` has this prefix."""
        return self.algorithm in {"", digest.algorithm} and digest.encoded.startswith(self.encoded)

    def only_match(self, digests: Iterable[Digest], place: str) -> Digest:
        """Return the only one of ``digests`` that has this prefix.

        Raises :class:`~digestry.errors.NotFound` and :class:`~digestry.errors.Ambiguous`, which name the
        ``place`` and the candidates.
        """
        found = sorted({digest for digest in digests if self.begins(digest)})
        if not found:
            raise NotFound(f"no digest begins with {self} in {place}")
        if len(found) > 1:
            listed = ", ".join(map(str, found[:_SHOWN])) + (", …" if len(found) > _SHOWN else "")
            raise Ambiguous(
                f"{self} begins several digests of {place}: {listed}", hint="write more of its digits"
            )
        return found[0]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}" if self.algorithm else self.encoded
