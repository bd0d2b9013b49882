"""The events of Docker's and podman's APIs, and the position of a follower among them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from digestry.errors import ProtocolViolation
from digestry.inventory.engines.clocks import TOLERANCE
from digestry.inventory.runs import of_nanoseconds
from digestry.model.digest import shown
from digestry.model.fleet import EVENT_START
from digestry.model.json_types import prepared
from digestry.model.json_values import as_object, as_text

STARTS: Final = frozenset({"start"})
ENDS: Final = frozenset({"die", "died"})
GONE: Final = frozenset({"destroy", "remove"})
NANOSECONDS: Final = 1_000_000_000
"""In a second."""
_CLOCKS_DIFFER: Final = round((TOLERANCE + 1) * NANOSECONDS)
_IMAGES_CHANGE: Final = frozenset(
    {"tag", "untag", "pull", "delete", "load", "import", "build", "loadfromarchive", "remove"}
)


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One event. ``action`` comes without its details, such as the command of an ``exec_start``."""

    kind: str
    action: str
    identity: str
    nanoseconds: int
    attributes: dict[str, object]

    @property
    def at(self) -> datetime.datetime:
        """When it happened, by the engine's clock."""
        return of_nanoseconds(self.nanoseconds)

    @property
    def start_name(self) -> str:
        """The instance of a start that is known by this event alone."""
        return f"{EVENT_START}{self.nanoseconds}"

    @property
    def moves_image(self) -> bool:
        """Whether the name of an image may mean another one after it."""
        return self.kind == "image" and self.action in _IMAGES_CHANGE

    @property
    def key(self) -> str:
        """What tells it from all other events."""
        return f"{self.nanoseconds} {self.kind} {self.action} {self.identity}"

    def attribute(self, name: str) -> str:
        """Return an attribute, or a label, of its container; "" if it is missing."""
        return as_text(self.attributes.get(name))


def read_event(line: bytes, where: str) -> EngineEvent:
    """Return the event in ``line``. Raises :class:`ProtocolViolation`: none may be lost in silence."""
    try:
        value = as_object(msgspec.json.decode(line))
    except (msgspec.DecodeError, RecursionError) as error:
        beginning = shown(line[:100].decode(errors="replace"))
        raise ProtocolViolation(f"{where}: an event is not JSON: {beginning}") from error
    actor = as_object(value.get("Actor"))
    nanoseconds = value.get("timeNano")
    if not isinstance(nanoseconds, int):
        seconds = value.get("time")
        nanoseconds = seconds * 1_000_000_000 if isinstance(seconds, int) else 0
    return EngineEvent(
        kind=as_text(value.get("Type")) or "container",
        action=(as_text(value.get("Action")) or as_text(value.get("status"))).partition(":")[0],
        identity=as_text(actor.get("ID")) or as_text(value.get("id")),
        nanoseconds=nanoseconds,
        attributes=as_object(actor.get("Attributes")),
    )


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a follower goes on: after the event ``last``; until ``seen`` it knows everything.

    Times are in nanoseconds since 1970.
    """

    last: str = ""
    last_at: int = 0
    seen: int = 0

    def text(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that :meth:`text` wrote; the beginning for anything else."""
        try:
            return msgspec.json.decode(text or "{}", type=prepared(cls))
        except msgspec.DecodeError:
            return cls()


def seconds_of(nanoseconds: int) -> str:
    """Return a time in nanoseconds since 1970 as the engines' ``since`` has it: in seconds."""
    return f"{nanoseconds // NANOSECONDS}.{nanoseconds % NANOSECONDS:09d}"


def told_before(before: Position, replayed: Sequence[EngineEvent]) -> int:
    """Return how many of the events that the engine still has were told before; 0 if it may have forgotten
    some that were not."""
    keys = [event.key for event in replayed]
    if before.last:
        return keys.index(before.last) + 1 if before.last in keys else 0
    # The two clocks may differ a little: what is told twice is one run, and what is left out is lost.
    return sum(event.nanoseconds <= before.seen - _CLOCKS_DIFFER for event in replayed)
