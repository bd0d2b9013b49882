"""Proofs of a tag's last entry in a file, verified without a network: C2SP's ``tlog-proof``.

The ``extra`` data is JSON: the opening of the leaf, and where the proof is from. It is not trusted: the leaf
that it makes must be in the tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from digestry.errors import ContentError, InvalidConfiguration
from digestry.model.json_types import prepared
from digestry.model.reference import Reference
from digestry.translog.checkpoints import SignedCheckpoint
from digestry.translog.cosignatures import Cosignature
from digestry.translog.entries import OpenedEntry, Opening, open_leaf
from digestry.translog.merkle import inclusion_proof
from digestry.translog.notes import VerifierKey, parse_note
from digestry.translog.proofs import Proof, parse_proof
from digestry.verifier.leaves import LoggedEntry, leaf_of
from digestry.verifier.log_view import LogVerifier, LogView
from digestry.verifier.trust import LogTrust

FORMAT: Final = "digestry-opening/v1"
LARGEST: Final = 4 << 20


class Extra(msgspec.Struct, frozen=True, rename="camel"):
    """The extra data of a proof. ``registry`` is where it was made from, ``host[:port]``."""

    format: str
    registry: str
    opening: Opening


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """What a bundle proves: that the log had ``entry`` when the checkpoint ``signed`` was. Whether the tag
    moved later, it does not say."""

    registry: str
    entry: OpenedEntry
    signed: SignedCheckpoint
    cosignatures: tuple[Cosignature, ...]


def make_bundle(view: LogView, logged: LoggedEntry) -> bytes:
    """Return the proof of an entry that was verified, without what only auditors of its repository get."""
    shown = logged.opening
    extra = Extra(FORMAT, view.host, Opening(shown.index, shown.entry, shown.salt))
    path = inclusion_proof(logged.index, view.size, view.tiles)
    return Proof(logged.index, tuple(path), view.note, msgspec.json.encode(extra)).encode()


def verify_bundle(
    content: bytes, verifier: LogVerifier, trust: LogTrust, *, wanted: Reference | None = None
) -> VerifiedBundle:
    """Return what a bundle proves. Nothing is asked of anybody.

    The key is one of ``trust``, or one that ``verifier`` saw this log signed with. With ``wanted``, the proof
    must be of that repository, and of its tag and digest if it has them. Raises :class:`ContentError`, and
    :class:`InvalidConfiguration` if no key of the log is known.
    """
    proof = parse_proof(content)
    try:
        extra = msgspec.json.decode(proof.extra or b"", type=prepared(Extra))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContentError(
            "the proof has no opening of an entry in its extra data",
            hint="only proofs of `digestry log bundle` can be verified",
        ) from error
    if extra.format != FORMAT:
        raise ContentError(f"the proof has the format {extra.format[:60]!r}, which is not known")
    if extra.opening.index != proof.index:
        raise ContentError(f"the proof is of entry {proof.index}, and opens entry {extra.opening.index}")
    origin = parse_note(proof.note).text.partition("\n")[0]
    keys = _keys_of(origin, verifier, trust)
    leaf = leaf_of(extra.opening)
    signed = proof.verify(leaf, origin, keys)
    opened = open_leaf(leaf, extra.opening)
    witnessed = verifier.witnessed(f"the proof of {origin}", signed, trust)
    if wanted is not None:
        _check_is(opened, extra.registry, wanted)
    return VerifiedBundle(extra.registry, opened, signed, tuple(witnessed))


def _keys_of(origin: str, verifier: LogVerifier, trust: LogTrust) -> list[VerifierKey]:
    if trust.keys:
        if trust.keys[0].name != origin:
            raise ContentError(f"the proof is of the log {origin}, not of {trust.keys[0].name}")
        return list(trust.keys)
    found = verifier.seen.keys_of(origin)
    if not found:
        raise InvalidConfiguration(
            f"no key of the log {origin} is known here",
            hint="give the key that its operator states: --log-key",
        )
    return found


def _check_is(opened: OpenedEntry, registry: str, wanted: Reference) -> None:
    entry = opened.entry
    if registry != wanted.host:
        raise ContentError(f"the proof is of the registry {registry}, not of {wanted.host}")
    if entry.repository != wanted.repository:
        raise ContentError(f"the proof is of {entry.repository}, not of {wanted.repository}")
    if wanted.tag is not None and entry.tag != wanted.tag:
        raise ContentError(f"the proof is of the tag {entry.tag}, not of {wanted.tag}")
    if wanted.digest is not None and entry.to_digest != wanted.digest:
        raise ContentError(f"the proof says {entry.to_digest}, not {wanted.digest}")
