"""The principal of a request: an identity and its rights."""

from __future__ import annotations

from typing import Final

from digestry.registry.access.identity import ANONYMOUS, Identity
from digestry.registry.access.rules import ALL, EVERYTHING, NONE, Rules
from digestry.registry.access.tokens import Grants

_REMEMBERED: Final = 2000

# The scopes with which a token is valid for an action.
_GRANTED: Final = {
    "pull": frozenset({"pull", "audit"}),
    "push": frozenset({"push", "move-tag"}),
    "delete": frozenset({"delete", "admin"}),
}


class Principal:
    """An identity until a time (seconds since 1970), perhaps narrowed by a token's ``grants``.

    It may do what the rules allow now and, with grants, what the token's scope includes too.
    """

    __slots__ = ("_allowed", "_rules", "catalog", "ends", "grants", "identity")

    place: str | None = None
    """The place that an agent may report for; None for others."""

    def __init__(
        self,
        identity: Identity,
        rules: Rules,
        *,
        ends: float = float("inf"),
        grants: Grants | None = None,
        catalog: bool = True,
    ) -> None:
        self.identity = identity
        self.ends = ends
        self.grants = grants
        self.catalog = catalog
        self._rules = rules
        self._allowed: dict[str, frozenset[str]] = {}

    def allowed(self, repository: str) -> frozenset[str]:
        """Return all actions that are allowed in the repository, whether or not it exists."""
        found = self._allowed.get(repository)
        if found is None:
            found = self.ruled(repository)
            # Actions that everybody may do need no token: an anonymous token restricts nothing.
            if self.grants is not None and not self.identity.anonymous:
                granted = self.grants.get(repository, NONE)
                found &= frozenset().union(*(_GRANTED.get(action, NONE) for action in granted))
            if len(self._allowed) >= _REMEMBERED:
                self._allowed.clear()
            self._allowed[repository] = found
        return found

    def ruled(self, repository: str) -> frozenset[str]:
        """Return the actions that the rules allow in the repository, regardless of the token's grants."""
        return self._rules.allowed(self.identity, repository)

    def may_pull(self, repository: str) -> bool:
        return "pull" in self.allowed(repository)

    def may_see(self, repository: str) -> bool:
        """Return whether a list may name the repository."""
        return "pull" in self.ruled(repository)

    def audits(self, repository: str) -> bool:
        """Return whether the principal may read who did what in the repository."""
        return "audit" in self.ruled(repository)

    def audits_everything(self) -> bool:
        """Return whether the principal may audit every repository, of any name."""
        return self._rules.everywhere(self.identity, "audit")

    def audits_anything(self) -> bool:
        """Return whether there may be a repository that the principal may audit."""
        return bool(self._rules.beginnings(self.identity, "audit"))

    def pulls_everything(self) -> bool:
        """Return whether the principal may pull from every repository, of any name."""
        return self._rules.everywhere(self.identity, "pull")

    def seen_beginnings(self) -> list[str]:
        """Return prefixes of all names that a list may have, by the rules; none is a prefix of another."""
        return self._rules.beginnings(self.identity, "pull")

    def sees_anything(self) -> bool:
        return self._rules.anything(self.identity)


class _Everybody(Principal):
    """The principal of a registry without access rules."""

    __slots__ = ()

    def allowed(self, repository: str) -> frozenset[str]:
        return ALL

    def ruled(self, repository: str) -> frozenset[str]:
        return ALL


class AgentPrincipal(Principal):
    """The principal of an agent's token: no rule allows it anything, whoever the rule is for."""

    __slots__ = ("place",)

    def __init__(self, identity: Identity, place: str, *, ends: float = float("inf")) -> None:
        super().__init__(identity, Rules(()), ends=ends, catalog=False)
        self.place = place


EVERYBODY: Final = _Everybody(ANONYMOUS, Rules([EVERYTHING]))
