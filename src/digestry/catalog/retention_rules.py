"""Retention rules: which tags are kept, and for how long untagged content is kept.

Values only. ``garbage.py`` applies them to a tag or manifest inside the transaction that would remove it.
docs/collection.md describes them for users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.model.name_pattern import matches

DAY: Final = 86400.0


@dataclass(frozen=True, slots=True)
class TagRetention:
    """One rule: which tags of which repositories are removed, once neither of its reasons keeps them.

    ``newest``: how many of a repository's tags under this rule are kept, those that moved last. ``seconds``:
    for how long a tag is kept after it moved. None keeps none. The patterns are as
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
    """All retention settings; times in seconds, None means for ever.

    ``untagged``: how long an image that no tag points to is kept, since its last tag left it or since it was
    pushed. ``sighted``: how long an image is kept after it was last seen running. ``rules``: the first rule
    that covers a tag decides; a tag without a rule is kept.
    """

    rules: tuple[TagRetention, ...] = ()
    untagged: float | None = 90 * DAY
    sighted: float | None = 90 * DAY
