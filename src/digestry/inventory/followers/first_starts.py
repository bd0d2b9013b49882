"""Which start of a container is its first, as far as an engine's events and lists say."""

from __future__ import annotations

import datetime
from collections.abc import Set
from typing import Final

from digestry.inventory.engine_values import FIRST_START
from digestry.inventory.followers.engine_events import ENDS, GONE, EngineEvent
from digestry.inventory.formats.engine_documents import FIRST_WITHIN

_MOST_YOUNG: Final = 8192


class FirstStarts:
    """When containers were made, and which have ended: for as long as it says which start is the first."""

    def __init__(self) -> None:
        self._created: dict[str, datetime.datetime] = {}
        self._ended: dict[str, datetime.datetime] = {}

    @property
    def ended(self) -> Set[str]:
        """The containers whose end an event told, and that are not gone."""
        return frozenset(self._ended)

    def clear(self) -> None:
        """Forget all of them."""
        self._created.clear()
        self._ended.clear()

    def learn(self, event: EngineEvent) -> None:
        """Note what an event tells: that a container was made, has ended, or is gone."""
        if event.kind != "container":
            return
        if event.action == "create":
            self._created[event.identity] = event.at
        elif event.action in ENDS:
            self._ended[event.identity] = event.at
        elif event.action in GONE:
            self._created.pop(event.identity, None)
            self._ended.pop(event.identity, None)
        if len(self._created) + len(self._ended) > _MOST_YOUNG:
            young = event.at - FIRST_WITHIN
            self._created = {container: at for container, at in self._created.items() if at > young}
            self._ended = {container: at for container, at in self._ended.items() if at > young}

    def is_first(self, container: str, at: datetime.datetime) -> bool | None:
        """Return whether a start at a time, after the events that were learnt, is a container's first.

        None: the events do not tell, since an earlier one may be forgotten.
        """
        if container in self._ended:
            return False
        created = self._created.get(container)
        return None if created is None else at - created <= FIRST_WITHIN

    def instance(self, event: EngineEvent) -> str:
        """Return the instance of a start of which the event alone is left."""
        return FIRST_START if self.is_first(event.identity, event.at) else event.start_name
