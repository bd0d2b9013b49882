"""Proofs that are verified offline, as C2SP's ``tlog-proof`` defines them.

A proof has the index of an entry, the audit path to the root, the log's checkpoint with its signatures, and,
if need be, further data.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from digestry.translog.checkpoints import SignedCheckpoint, open_checkpoint, parse_hash, parse_size
from digestry.translog.merkle import MOST_PROOF_HASHES, leaf_hash, verify_inclusion
from digestry.translog.notes import InvalidNote, VerifierKey, decode_base64

SUFFIX: Final = ".tlog-proof"
_HEADER: Final = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof of the entry ``index``: the audit path, and the bytes of the checkpoint's note. ``extra`` is
    not authenticated."""

    index: int
    path: tuple[bytes, ...]
    note: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """Return the proof's bytes."""
        lines = [_HEADER]
        if self.extra is not None:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += [base64.b64encode(each).decode() for each in self.path]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.note

    def verify(self, entry: bytes, origin: str, keys: Sequence[VerifierKey]) -> SignedCheckpoint:
        """Return the checkpoint of the log ``origin`` that ``entry`` is in.

        Raises :class:`InvalidNote` for a checkpoint that is not valid, :class:`InvalidProof` if the entry is
        not in the log.
        """
        signed = open_checkpoint(self.note, origin, keys)
        found = signed.checkpoint
        verify_inclusion(leaf_hash(entry), self.index, found.size, found.root, self.path)
        return signed


def parse_proof(content: bytes) -> Proof:
    """Return the proof with these bytes. Raises :class:`InvalidNote`. Nothing is verified."""
    head, blank, note = content.partition(b"\n\n")
    if not blank:
        raise InvalidNote("the proof has no empty line before the checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidNote("the lines before the checkpoint are not ASCII") from error
    if lines.pop(0) != _HEADER:
        raise InvalidNote(f"the proof does not begin with {_HEADER}")
    extra = None
    if lines and lines[0].startswith("extra "):
        try:
            extra = decode_base64(lines.pop(0).removeprefix("extra "))
        except (ValueError, binascii.Error) as error:
            raise InvalidNote("the proof's extra data is not base64") from error
    if not lines or not lines[0].startswith("index "):
        raise InvalidNote("the proof does not say the index of an entry")
    index = parse_size(lines.pop(0).removeprefix("index "))
    if len(lines) > MOST_PROOF_HASHES:
        raise InvalidNote(f"the proof has {len(lines)} hashes, and may have {MOST_PROOF_HASHES}")
    return Proof(index, tuple(parse_hash(line) for line in lines), note, extra)
