"""What was observed, as a report: what moved, what is known of it, who of ours runs it, and the gaps."""

from __future__ import annotations

import msgspec

from digestry.catalog import clock
from digestry.catalog.observed_moves import ObservedMove
from digestry.model.observations import MoveFacts, UpstreamMove


def move_of(move: ObservedMove, name: str, facts: MoveFacts | None = None) -> UpstreamMove:
    """Return a move as it is told; ``name`` is its repository's in the other registry."""
    if facts is None and move.document:
        facts = msgspec.json.decode(move.document, type=MoveFacts)
    return UpstreamMove(
        name=name,
        repository=move.repository,
        tag=move.tag,
        event=move.event,
        at=clock.to_datetime(move.at),
        entry=move.entry,
        not_before=None if move.not_before is None else clock.to_datetime(move.not_before),
        from_digest=move.from_digest,
        to_digest=move.to_digest,
        facts=facts,
    )
