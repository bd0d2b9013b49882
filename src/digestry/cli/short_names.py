"""Names without a registry, and their aliases in containers' files."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.model.reference import DOCKER_HUB, Reference

if TYPE_CHECKING:
    from digestry.client.configuration.files import ConfigurationFiles

_OFFICIAL: Final = "library/"


def follow_alias(reference: Reference, files: ConfigurationFiles, tell: Callable[[str], None]) -> Reference:
    """Return the target of an alias for a name without a registry; else ``reference``.

    ``reference`` is docker's reading. ``tell`` is called for an alias with another target, and for registries
    that podman would search. Raises :class:`~digestry.errors.InvalidConfiguration`.
    """
    from digestry.client.configuration.short_names import find_alias

    short = reference.repository.removeprefix(_OFFICIAL)
    alias, said = find_alias([short, reference.repository], files)
    if alias is None:
        if said.search and said.search != (DOCKER_HUB,):
            tell(
                f"{short} means {reference.name}; podman would search {', '.join(said.search)} "
                f"(unqualified-search-registries in {said.search_origin})"
            )
        return reference
    try:
        meant = Reference.parse(alias.name)
        found = Reference(meant.host, meant.repository, reference.tag, reference.digest)
    except InvalidReference as error:
        raise InvalidConfiguration(f"{alias.origin}: the alias {short}: {error.message}") from error
    if found != reference:
        tell(f"{short} is short for {found.name} ({alias.origin})")
    return found
