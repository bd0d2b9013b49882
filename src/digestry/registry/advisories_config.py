"""The ``[advisories]`` section of the configuration: whose statements count (docs/registry.md)."""

from __future__ import annotations

from collections.abc import Mapping

from digestry.advisories.trust import TRUST_EVERYBODY, TrustPolicy
from digestry.advisories.trust_settings import TABLE, read_trust
from digestry.registry.toml import Where


def parse(sections: Mapping[str, object], where: Where) -> TrustPolicy:
    """Read the section, and the keys that it names. Raises :class:`InvalidConfiguration`."""
    return read_trust(sections[TABLE], where.file, own=True) if TABLE in sections else TRUST_EVERYBODY
