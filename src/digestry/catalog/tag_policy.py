"""The tag policy: the operator's rules on which tags may move or be deleted.

This module has values only. ``tag_moves.py`` applies the rules, inside the transaction that moves a tag.
docs/tags.md describes the rules for users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from digestry.model.name_pattern import matches

Mode = Literal["mutable", "immutable", "write-once", "forward-only"]
"""``mutable``: anything. ``immutable``: the first digest stays while the tag is there.
``write-once``: its digest stays, even after a delete. ``forward-only``: never back to a digest it left."""

MODES: Final[tuple[str, ...]] = get_args(Mode)
_FIXED: Final = frozenset({"immutable", "write-once"})


@dataclass(frozen=True, slots=True)
class TagRule:
    """One rule: which tags of which repositories, and what may happen to them.

    The patterns are as :func:`digestry.model.name_pattern.matches` has them. ``exclude`` are tags that the
    rule does not cover. ``deletable`` None means: unless the mode keeps a tag where it is.
    """

    mode: Mode
    repositories: tuple[str, ...] = ("**",)
    tags: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    deletable: bool | None = None

    def covers(self, repository: str, tag: str) -> bool:
        """Return whether this rule is about that tag."""
        return (
            any(matches(pattern, repository) for pattern in self.repositories)
            and any(matches(pattern, tag) for pattern in self.tags)
            and not any(matches(pattern, tag) for pattern in self.exclude)
        )

    @property
    def may_delete(self) -> bool:
        """Return whether a tag under this rule may be deleted."""
        return self.mode not in _FIXED if self.deletable is None else self.deletable


_ANYTHING: Final = TagRule("mutable")


@dataclass(frozen=True, slots=True)
class TagPolicy:
    """The rules in their order: the first that covers a tag decides, and without one it is mutable."""

    rules: tuple[TagRule, ...] = ()

    def rule(self, repository: str, tag: str) -> TagRule:
        """Return the rule that decides about this tag."""
        return next((rule for rule in self.rules if rule.covers(repository, tag)), _ANYTHING)
