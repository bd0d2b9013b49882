"""Checkpoints of a log, as C2SP's ``tlog-checkpoint`` defines them: its origin, size and root as a note."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from digestry.translog.merkle import EMPTY_ROOT, HASH_SIZE, LARGEST_SIZE
from digestry.translog.notes import (
    InvalidNote,
    Note,
    Signature,
    SignerKey,
    VerifierKey,
    decode_base64,
    open_note,
)

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: its ``origin``, how many leaves it has, and the root of their tree."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text of the note."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    def sign(self, keys: Sequence[SignerKey]) -> Note:
        """Return the note, signed with each of ``keys``."""
        return Note(self.text, tuple(key.sign(self.text) for key in keys))


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint whose note was verified, with the signatures of the keys that were trusted."""

    checkpoint: Checkpoint
    note: Note
    signatures: dict[VerifierKey, Signature]


def parse_size(text: str) -> int:
    """Return a size of a log, without leading zeros. Raises :class:`InvalidNote`."""
    if not _SIZE.fullmatch(text) or int(text) > LARGEST_SIZE:
        raise InvalidNote(f"{text[:40]!r} is not the size of a log")
    return int(text)


def parse_hash(text: str) -> bytes:
    """Return the hash of a line of base64. Raises :class:`InvalidNote`."""
    try:
        content = decode_base64(text)
    except (ValueError, binascii.Error) as error:
        raise InvalidNote(f"{text[:60]!r} is not a hash in base64") from error
    if len(content) != HASH_SIZE:
        raise InvalidNote(f"a hash has {len(content)} bytes, not {HASH_SIZE}")
    return content


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint that is a note's text. Raises :class:`InvalidNote`."""
    lines = text.split("\n")
    if lines.pop() or len(lines) < 3 or not all(lines):
        raise InvalidNote("a checkpoint has three lines or more, none of them empty")
    origin, size, root, *extensions = lines
    return Checkpoint(origin, parse_size(size), parse_hash(root), tuple(extensions))


def open_checkpoint(content: bytes, origin: str, keys: Sequence[VerifierKey]) -> SignedCheckpoint:
    """Return the checkpoint of the log ``origin`` that one of its ``keys`` signed.

    Raises :class:`UnsignedNote` without such a signature, and :class:`InvalidNote`.
    """
    note, signatures = open_note(content, keys)
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != origin:
        raise InvalidNote(f"the checkpoint is of the log {checkpoint.origin}, not of {origin}")
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise InvalidNote("the checkpoint of a log without leaves has another root")
    return SignedCheckpoint(checkpoint, note, signatures)
