"""Retention rules: which tags are kept, and for how long untagged content is kept.

Values only. What they mean for one tag or manifest at one moment is asked in ``garbage.py``, inside
the transaction that would remove it. docs/collection.md has them as a user sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.model.name_pattern import matches

DAY: Final = 86400.0


@dataclass(frozen=True, slots=True)
class TagRetention:
    """One rule: which tags of which repositories go, once neither of its reasons keeps them.

    ``newest``: as many of a repository's tags under this rule, by when they last moved, are kept.
    ``seconds``: a tag that moved so recently is kept. None keeps none. The patterns are as
    :func:`digestry.model.name_pattern.matches` has them.
    """

    repositories: tuple[str, ...] = ("**",)
    tags: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    newest: int | None = None
    seconds: float | None = None

    def about(self, repository: str) -> bool:
        """Return whether this rule is about tags of that repository."""
        return any(matches(pattern, repository) for pattern in self.repositories)

    def covers(self, tag: str) -> bool:
        """Return whether it is about that tag of such a repository."""
        return any(matches(pattern, tag) for pattern in self.tags) and not any(
            matches(pattern, tag) for pattern in self.exclude
        )


@dataclass(frozen=True, slots=True)
class Retention:
    """All of it; times in seconds, None is for ever.

    ``untagged``: how long an image that no tag points to is kept, since the last one left it or since
    it was pushed. ``sighted``: how long what ran somewhere is kept, since it was seen last.
    ``rules``: the first that covers a tag decides; without one it stays.
    """

    rules: tuple[TagRetention, ...] = ()
    untagged: float | None = 90 * DAY
    sighted: float | None = 90 * DAY
