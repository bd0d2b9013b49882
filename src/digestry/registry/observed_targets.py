"""What is observed: repositories of other registries, and the local repositories that record it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from digestry.catalog import clock
from digestry.catalog.observation_plan import FOR_AGE, ObservationPlan, ObservationRule
from digestry.model.name_pattern import matches
from digestry.model.reference import Reference
from digestry.registry.config import RegistryConfig
from digestry.registry.pull_through import config as pull_through
from digestry.registry.pull_through.config import MirrorConfig
from digestry.registry.pull_through.names import canonical

_WILD: Final = frozenset("*?")


@dataclass(frozen=True, slots=True)
class Target:
    """A repository that is observed.

    ``name`` is its name with the registry's host; ``upstream_name`` that at the registry, ``local_name`` the
    repository here. ``interval`` is in microseconds, and so is ``keep_for``: for so long an image is kept
    after a tag left it; None: as long as the repository is observed. ``by_command``: a command added it.
    """

    name: str
    registry: MirrorConfig
    upstream_name: str
    local_name: str
    patterns: tuple[str, ...]
    interval: int
    keep: bool
    by_command: bool = False
    keep_for: int | None = None

    @property
    def literal(self) -> tuple[str, ...]:
        """The tags that are named, and not by a pattern."""
        return tuple(pattern for pattern in self.patterns if not _WILD.intersection(pattern))

    @property
    def lists(self) -> bool:
        """Whether its list of tags is needed."""
        return len(self.literal) < len(self.patterns)

    def wants(self, tag: str) -> bool:
        """Return whether a tag is observed."""
        return any(matches(pattern, tag) for pattern in self.patterns)


def targets(config: RegistryConfig, rules: Sequence[ObservationRule]) -> list[Target]:
    """Return what is observed: by the configuration, and by the ``rules`` that were added, for repositories
    that it does not name."""
    found: dict[str, Target] = {}
    for one in config.observe.repositories:
        target = _target(config, one.name, one.tags, int(one.every * clock.SECOND), keep=one.keep)
        keep_for = None if one.keep_for is None else int(one.keep_for * clock.SECOND)
        found[one.name] = replace(target, keep_for=keep_for)
    for rule in rules:
        if rule.repository not in found:
            target = _target(config, rule.repository, rule.tags, rule.interval, keep=rule.keep)
            found[rule.repository] = replace(target, by_command=True, keep_for=rule.keep_for)
        elif rule.actor == FOR_AGE:
            # The tags that clients asked for have no age unless they are observed.
            target = found[rule.repository]
            found[rule.repository] = replace(
                target, patterns=tuple(dict.fromkeys((*target.patterns, *rule.tags)))
            )
    return list(found.values())


def _target(
    config: RegistryConfig, name: str, patterns: tuple[str, ...], interval: int, *, keep: bool
) -> Target:
    reference = Reference.parse(name)
    registry = registry_of(config, reference.host)
    upstream = reference.repository
    return Target(name, registry, upstream, registry.local_name(upstream), patterns, interval, keep)


def obstacles(config: RegistryConfig, plan: ObservationPlan, found: Sequence[Target]) -> dict[str, str]:
    """Return, of what is to be observed, the names of what cannot be, each with the reason: its local
    repository has another purpose."""
    owners: dict[str, Target] = {}
    why: dict[str, str] = {}
    for one in found:
        reason = _obstacle(config, plan, one, owners.setdefault(one.local_name, one))
        if reason:
            why[one.name] = reason
            if owners[one.local_name] is one:
                del owners[one.local_name]
    return why


def _obstacle(config: RegistryConfig, plan: ObservationPlan, target: Target, owner: Target) -> str:
    local = target.local_name
    if owner is not target:
        return f"repository {local} here records {owner.name} already"
    own = canonical(target.registry.host)
    for mirror in config.mirrors:
        if canonical(mirror.host) != own and local.startswith(f"{mirror.prefix}/"):
            return f"repository {local} here belongs to the registry {mirror.host}"
    if any(canonical(mirror.host) == own and mirror.patterns for mirror in config.mirrors):
        return ""  # it is a mirror's: clients cannot push there
    pushed = plan.pushed_tag(local)
    return (
        "" if pushed is None else f"repository {local} here has tags that were pushed to it, such as {pushed}"
    )


def registry_of(config: RegistryConfig, host: str) -> MirrorConfig:
    """Return the configuration of a registry: that of its mirror, or its own, or the implied one."""
    wanted = canonical(host)
    configured = (one for one in config.mirrors if canonical(one.host) == wanted)
    return next(configured, None) or pull_through.implied(wanted)
