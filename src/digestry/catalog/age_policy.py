"""The minimum ages: the operator's rules on how long a digest must have stood under a tag to be served.

This module has values only. docs/min-age.md describes the rules for users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from digestry.model.name_pattern import matches

Advice = Literal["off", "signed", "any"]
"""Which advisories let a fix through that is too young: none, those with the signature of a trusted key, or
all that the policy of trust takes; the strictest first."""
_STRICTEST: Final[tuple[Advice, ...]] = ("off", "signed", "any")


@dataclass(frozen=True, slots=True)
class AgeRule:
    """One rule: the minimum age of the tags that it covers, in microseconds; 0 for none.

    The patterns are as :func:`digestry.model.name_pattern.matches` has them. ``exclude`` are tags that the
    rule does not cover. ``advice``: which advisories let a digest through.
    """

    age: int
    repositories: tuple[str, ...] = ("**",)
    tags: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    advice: Advice = "signed"

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
    """The rules in their order: the first that covers a tag decides. Without one it has no minimum age."""

    rules: tuple[AgeRule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)

    def gates(self, repository: str) -> bool:
        """Return whether any tag of that repository may have a minimum age."""
        for rule in self.rules:
            if rule.is_for(repository):
                if rule.age:
                    return True
                if rule.tags == ("*",) and not rule.exclude:
                    return False  # it covers all that the later ones could
        return False

    def advice(self, repository: str) -> Advice:
        """Return which advisories let digests of that repository through: what the strictest of its rules
        says, since a digest is let through under any tag."""
        if not self.gates(repository):
            return "off"
        said = (rule.advice for rule in self.rules if rule.age and rule.is_for(repository))
        return min(said, key=_STRICTEST.index)

    def rule(self, repository: str, tag: str) -> AgeRule:
        """Return the rule that decides about this tag."""
        return next((rule for rule in self.rules if rule.is_for(repository) and rule.covers(tag)), NO_AGE)
