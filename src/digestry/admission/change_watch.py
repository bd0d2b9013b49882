"""A watch of what changed in registries: it finds the cached answers that have to be asked for again.

Where a registry says what changed, those are the answers that a change concerns, and now and then all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from digestry.admission.image_knowledge import ImageKnowledge
from digestry.errors import DigestryError
from digestry.model.changes import Changes

EVERYTHING_SECONDS: Final = 300.0
"""After so long everything is asked for again: some changes, as of who may read what, are in no list."""

AskChanges = Callable[[str, str], Changes | None]
"""Asks a registry what changed since a token; None if it does not say. Raises
:class:`~digestry.errors.DigestryError`."""


@dataclass(frozen=True, slots=True)
class Look:
    """The images to ask about, and those whose answers are as good as new."""

    suspected: Sequence[str]
    unchanged: Sequence[str] = ()
    token: str = ""
    whole: bool = True


@dataclass(slots=True)
class _Registry:
    token: str = ""
    whole_at: float = field(default_factory=time.monotonic)


class ChangeWatch:
    """What changed in registries, as they say. ``ask`` blocks. For one thread for each registry at a time."""

    def __init__(self, ask: AskChanges, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[str, _Registry] = {}

    def look(self, host: str, images: Mapping[str, ImageKnowledge]) -> Look:
        """Ask ``host`` what changed, and return what that means for the remembered ``images``."""
        known = self._known.get(host)
        over = known is None or self._clock() - known.whole_at >= EVERYTHING_SECONDS
        try:
            found = self._ask(host, "" if known is None else known.token)
        except DigestryError:
            return Look(list(images))  # the inquiry tells whether the registry is away
        if found is None:
            self._known.pop(host, None)
            return Look(list(images))
        if over or found.everything or found.parts:
            return Look(list(images), (), found.token)
        repositories = frozenset(found.repositories)
        suspected = [name for name, one in images.items() if _may_differ(one, repositories)]
        unchanged = images.keys() - set(suspected)
        return Look(suspected, tuple(unchanged), found.token, whole=False)

    def settle(self, host: str, look: Look) -> None:
        """Go on from ``look``: everything that it suspected was asked about, and answered."""
        if not look.token:
            return
        known = self._known.setdefault(host, _Registry())
        known.token = look.token
        if look.whole:
            known.whole_at = self._clock()


def _may_differ(image: ImageKnowledge, repositories: frozenset[str]) -> bool:
    """Return whether the answer about an image may be another one after changes in ``repositories``."""
    if image.reference is None or image.away or image.behind or image.age_unknown:
        return True
    if image.assessment == "unknown":
        return True
    # What a mirror has changes in another registry, and the mirror sees that when it is asked.
    if not image.own:
        return True
    # The fixed image may be in any repository.
    return image.reference.repository in repositories or bool(repositories and image.affecting)
