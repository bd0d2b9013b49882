"""The least ages: the operator's rules on how long a digest must have stood under a tag to be served.

This module has values only. docs/min-age.md describes the rules for users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.model.name_pattern import matches


@dataclass(frozen=True, slots=True)
class AgeRule:
    """One rule: the least age of the tags that it covers, in microseconds; 0 for none.

    The patterns are as :func:`digestry.model.name_pattern.matches` has them. ``exclude`` are tags that the
    rule does not cover.
    """

    age: int
    repositories: tuple[str, ...] = ("**",)
    tags: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def is_for(self, repository: str) -> bool:
        """Return whether this rule is about tags of that repository."""
        return any(matches(pattern, repository) for pattern in self.repositories)

    def covers(self, tag: str) -> bool:
        """Return whether this rule is about that tag of a repository that it is for."""
        return any(matches(pattern, tag) for pattern in self.tags) and not any(
            matches(pattern, tag) for pattern in self.exclude
        )


NO_AGE: Final = AgeRule(0)


@dataclass(frozen=True, slots=True)
class AgePolicy:
    """The rules in their order: the first that covers a tag decides, and without one it has no least age."""

    rules: tuple[AgeRule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)

    def gates(self, repository: str) -> bool:
        """Return whether any tag of that repository may have a least age."""
        for rule in self.rules:
            if rule.is_for(repository):
                if rule.age:
                    return True
                if rule.tags == ("*",) and not rule.exclude:
                    return False  # it covers all that the later ones could
        return False

    def rule(self, repository: str, tag: str) -> AgeRule:
        """Return the rule that decides about this tag."""
        return next((rule for rule in self.rules if rule.is_for(repository) and rule.covers(tag)), NO_AGE)
