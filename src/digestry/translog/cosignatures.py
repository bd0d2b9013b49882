"""Cosignatures of witnesses, as C2SP's ``tlog-cosignature`` (Ed25519) and ``tlog-witness`` define them.

A witness is sent a checkpoint and the proof that it continues the one that the witness saw last, and answers
with lines of cosignatures.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from digestry.translog.checkpoints import parse_hash, parse_size
from digestry.translog.merkle import MOST_PROOF_HASHES
from digestry.translog.notes import (
    COSIGNATURE,
    InvalidNote,
    Note,
    Signature,
    SignerKey,
    VerifierKey,
    parse_signatures,
)

ADD_CHECKPOINT: Final = "add-checkpoint"
"""The path of the request below a witness's prefix."""
SIZE_TYPE: Final = "text/x.tlog.size"
"""The media type of the answer 409, whose body is the size that the witness saw last."""


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A cosignature that was verified: whose, and the seconds since 1970 at which it was made."""

    key: VerifierKey
    seconds: int
    signature: Signature


def cosign(text: str, key: SignerKey, seconds: int) -> Signature:
    """Return the cosignature of a checkpoint's text. ``seconds`` are since 1970."""
    if key.algorithm != COSIGNATURE:
        raise ValueError("the key is not one that cosigns")
    return key.sign(text, seconds=seconds)


def cosignatures(note: Note, keys: Iterable[VerifierKey], *, latest: int | None = None) -> list[Cosignature]:
    """Return the cosignatures of a checkpoint by witnesses' ``keys``, one a key; those of others are ignored.

    ``latest`` is the last second since 1970 that one may be of. Raises :class:`InvalidNote` for a wrong
    cosignature of one of the keys.
    """
    found = []
    for key in keys:
        for signature in note.signatures:
            if not key.made(signature):
                continue
            seconds = key.verify(note.text, signature)
            if seconds is None:
                raise InvalidNote(f"the key {key.name} is not one that cosigns")
            if latest is not None and seconds > latest:
                raise InvalidNote(f"the cosignature of {key.name} is of a time to come")
            found.append(Cosignature(key, seconds, signature))
            break
    return found


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request to a witness: the size that it saw last, the proof from there, and the checkpoint's note."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """Return the request's body."""
        lines = [f"old {self.old_size}", *(base64.b64encode(each).decode() for each in self.proof)]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.note


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """Return the request with this body. Raises :class:`InvalidNote`. The note is not parsed."""
    head, blank, note = body.partition(b"\n\n")
    if not blank:
        raise InvalidNote("the request has no empty line before the checkpoint")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidNote("the lines before the checkpoint are not ASCII") from error
    if not first.startswith("old "):
        raise InvalidNote("the first line is not old and a size")
    if len(lines) > MOST_PROOF_HASHES:
        raise InvalidNote(f"the proof has {len(lines)} hashes, and may have {MOST_PROOF_HASHES}")
    return AddCheckpoint(
        parse_size(first.removeprefix("old ")), tuple(parse_hash(line) for line in lines), note
    )


def parse_answer(body: bytes, text: str, keys: Sequence[VerifierKey]) -> list[Cosignature]:
    """Return the cosignatures of ``keys`` in a witness's answer about a checkpoint's text, each verified.

    Raises :class:`InvalidNote`, also if there is none.
    """
    try:
        lines = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidNote("the witness's answer is not UTF-8") from error
    found = cosignatures(Note(text, parse_signatures(lines)), keys)
    if not found:
        raise InvalidNote("the witness's answer has no cosignature of its key")
    return found


def origin_hash(origin: str) -> str:
    """Return the name of a log's origin in a path of a witness."""
    return hashlib.sha256(origin.encode()).hexdigest()
