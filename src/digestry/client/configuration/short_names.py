"""Short names: the aliases that containers' files give them."""

from __future__ import annotations

from collections.abc import Sequence

from digestry.client.configuration.files import ConfigurationFiles
from digestry.client.configuration.registries_conf import Alias, RegistriesConf, read_registries


def find_alias(names: Sequence[str], files: ConfigurationFiles) -> tuple[Alias | None, RegistriesConf]:
    """Return the alias of the first of ``names`` that has one, with its file.

    ``names`` are without tag and digest. Podman's recorded aliases take precedence over ``registries.conf``;
    an alias without a value is none. Raises :class:`~digestry.errors.InvalidConfiguration`.
    """
    found = read_registries(files.registries)
    if files.recorded_aliases is not None:
        found.aliases |= read_registries([files.recorded_aliases]).aliases
    aliases = (found.aliases.get(name) for name in names)
    return next((alias for alias in aliases if alias is not None and alias.name), None), found
