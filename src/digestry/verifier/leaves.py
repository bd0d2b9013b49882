"""Leaves of a registry's log, made of their openings."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from digestry.translog.entries import (
    SALT_SIZE,
    SEALED,
    Entry,
    InvalidEntry,
    OpenedEntry,
    Opening,
    Rest,
    commitment,
)


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """An entry that was found in the log, with the opening that shows it."""

    opening: Opening
    opened: OpenedEntry

    @property
    def index(self) -> int:
        """Its place in the log, from 0."""
        return self.opened.index

    @property
    def entry(self) -> Entry:
        """What every reader of the repository gets."""
        return self.opened.entry

    @property
    def rest(self) -> Rest | None:
        """Who, from where, with what; None for a reader who does not get it."""
        return self.opened.rest


def leaf_of(opening: Opening) -> bytes:
    """Return the leaf that ``opening`` opens: the entry itself, or with a salt the commitment to it.

    Raises :class:`InvalidEntry` for a salt that is none.
    """
    content = opening.entry.encode()
    if not opening.salt:
        return content
    try:
        salt = bytes.fromhex(opening.salt)
    except ValueError as error:
        raise InvalidEntry(f"the salt of leaf {opening.index} is not hexadecimal") from error
    if len(salt) != SALT_SIZE:
        raise InvalidEntry(f"the salt of leaf {opening.index} has {len(salt)} bytes, not {SALT_SIZE}")
    return msgspec.json.encode({"format": SEALED, "entry": commitment(salt, content).hex()})
