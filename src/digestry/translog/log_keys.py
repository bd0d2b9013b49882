"""The keys of a registry's log, as it states them, and the notes by which older keys declare newer ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from digestry.translog.notes import (
    InvalidNote,
    Note,
    SignerKey,
    VerifierKey,
    open_note,
    parse_verifier_key,
)

_DECLARATION: Final = "digestry-log-key/v1"
_MOST_DECLARATIONS: Final = 64


class LogKey(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A key of a log as a *vkey*, and since when, and until when, it signs (RFC 3339)."""

    key: str
    created_at: str
    retired_at: str | None = None


class LogKeys(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """``GET /v2/_digestry/log/keys``: the log's name, its keys, the newest first, and its witnesses' keys.

    ``earlier_origins`` are the names under which the same entries were signed before. Of the witnesses
    ``quorum`` cosign each checkpoint that is served. ``witness`` is the key with which the registry cosigns
    others' logs. ``declarations`` are notes by which earlier keys declare newer ones.
    """

    origin: str
    keys: tuple[LogKey, ...]
    earlier_origins: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    quorum: int = 0
    witness: str = ""
    declarations: tuple[str, ...] = ()


def declare(old: SignerKey, new: VerifierKey) -> str:
    """Return the note by which a key of a log declares that a newer one signs the log as well."""
    text = f"{_DECLARATION}\n{new}\n"
    return str(Note(text, (old.sign(text),)))


def declared_keys(shown: LogKeys, origin: str, trusted: Sequence[VerifierKey]) -> list[VerifierKey]:
    """Return the keys of the log ``origin`` that ``trusted`` keys declare, and the ones that those declare,
    and so on. Declarations of others are ignored."""
    known = list(trusted)
    found = True
    while found:
        found = False
        for declaration in shown.declarations[:_MOST_DECLARATIONS]:
            try:
                note, _ = open_note(declaration.encode(), known)
                title, key, end = note.text.split("\n")
                declared = parse_verifier_key(key)
            except (InvalidNote, ValueError):
                continue
            good = title == _DECLARATION and not end and declared.name == origin and declared.is_known
            if good and declared not in known:
                known.append(declared)
                found = True
    return known[len(trusted) :]
