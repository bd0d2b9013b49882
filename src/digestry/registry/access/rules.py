"""Access rules: who may do what in which repositories. Requests that no rule allows are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from digestry.errors import InvalidConfiguration
from digestry.model.name_pattern import beginning, check_pattern, matches
from digestry.registry import toml
from digestry.registry.access.identity import ANONYMOUS_NAME, Identity
from digestry.registry.toml import Key, Where

Action = Literal["pull", "push", "move-tag", "delete", "audit", "admin"]

ACTIONS: Final[tuple[Action, ...]] = ("pull", "push", "move-tag", "delete", "audit", "admin")
ALL: Final[frozenset[str]] = frozenset(ACTIONS)
NONE: Final[frozenset[str]] = frozenset()

_REMEMBERED: Final = 20_000
"""So many decisions are kept; more than that begins anew."""

KEYS: Final = (
    Key("who", toml.texts),
    Key("repository", toml.texts, ("**",)),
    Key("actions", toml.texts),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows ``actions`` in the repositories that match one of the patterns, to one of ``who``.

    ``who`` lists users' names; ``robot$NAME``; ``anonymous``, which is everybody, logged in or not;
    ``authenticated``, which is everybody who is logged in; ``*`` in a name matches any part of it.
    """

    who: tuple[str, ...]
    repositories: tuple[str, ...]
    actions: frozenset[str]

    def is_for(self, identity: Identity) -> bool:
        for pattern in self.who:
            if pattern in {ANONYMOUS_NAME, identity.name}:
                return True
            if identity.anonymous:
                continue
            if pattern == "authenticated" or ("*" in pattern and matches_name(pattern, identity.name)):
                return True
        return False


def matches_name(pattern: str, name: str) -> bool:
    """Return whether ``pattern``, in which ``*`` matches anything, matches a whole name.

    Each part is searched once, at its earliest position: a later one would leave less for the others. So no
    name makes it slow.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middle, last = rest
    at, end = len(first), len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


EVERYTHING: Final = Rule((ANONYMOUS_NAME,), ("**",), ALL)
"""The rules of a registry without any access configuration."""

USERS_ONLY: Final = Rule(("authenticated",), ("**",), ALL)
"""The rules of a registry that has users, but no rules in its configuration."""


def parse(table: object, where: Where) -> Rule:
    """Read one ``[[rule]]`` section. Raises :class:`InvalidConfiguration`."""
    values = toml.read(table, KEYS, where)
    for action in values["actions"]:
        if action not in ALL:
            raise where.wrong(f"unknown action {action!r}", hint=f"the actions are: {', '.join(ACTIONS)}")
    for pattern in values["repository"]:
        try:
            check_pattern(pattern)
        except InvalidConfiguration as error:
            raise where.wrong(f"repository: {error.message}", hint=error.hint) from error
    actions = frozenset(values["actions"])
    return Rule(values["who"], values["repository"], ALL if "admin" in actions else actions)


class Rules:
    """The rules in force. Decisions are cached."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._mine: dict[str, tuple[Rule, ...]] = {}
        self._decisions: dict[tuple[str, str], frozenset[str]] = {}

    def allowed(self, identity: Identity, repository: str) -> frozenset[str]:
        """Return all actions of ``identity`` in ``repository``, whether or not it exists."""
        key = (identity.name, repository)
        found = self._decisions.get(key)
        if found is None:
            found = NONE
            for rule in self._of(identity):
                if any(matches(pattern, repository) for pattern in rule.repositories):
                    found |= rule.actions
            if len(self._decisions) >= _REMEMBERED:
                self._decisions.clear()
            self._decisions[key] = found
        return found

    def anything(self, identity: Identity) -> bool:
        """Return whether ``identity`` may pull from any repository name."""
        return any("pull" in rule.actions for rule in self._of(identity))

    def beginnings(self, identity: Identity, action: Action) -> list[str]:
        """Return prefixes of the names of all repositories in which ``action`` is allowed, in the order of
        their bytes; none is a prefix of another."""
        patterns = {p for rule in self._of(identity) if action in rule.actions for p in rule.repositories}
        found: list[str] = []
        for start in sorted({beginning(pattern) for pattern in patterns}):
            if not found or not start.startswith(found[-1]):
                found.append(start)
        return found

    def everywhere(self, identity: Identity, action: Action) -> bool:
        """Return whether one rule allows ``action`` to ``identity`` in every repository."""
        return any(action in rule.actions and "**" in rule.repositories for rule in self._of(identity))

    def _of(self, identity: Identity) -> tuple[Rule, ...]:
        found = self._mine.get(identity.name)
        if found is None:
            found = tuple(rule for rule in self._rules if rule.is_for(identity))
            if len(self._mine) >= _REMEMBERED:
                self._mine.clear()
            self._mine[identity.name] = found
        return found
