"""The ``[observe]`` and ``[observe-registry]`` sections of the configuration (docs/observe.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.model.digest import shown
from digestry.model.reference import Reference, names_its_host
from digestry.registry import toml
from digestry.registry.immutability_config import patterns
from digestry.registry.pull_through.names import canonical
from digestry.registry.toml import Key, Where

SECTION: Final = "observe"
REGISTRY_SECTION: Final = "observe-registry"
SHORTEST: Final = 1.0
"""The shortest interval, in seconds."""
LONGEST: Final = 31 * 86400.0
USUAL: Final = 300.0

KEYS: Final = (
    Key("requests-per-second", toml.whole(1, 1000), 20),
    Key("parallel", toml.whole(1, 64), 4),
    Key("history", toml.unless_off(toml.span(86400, 3650 * 86400)), 400 * 86400.0),
)
REPOSITORY_KEYS: Final = (
    Key("tags", patterns, ("*",)),
    Key("every", toml.span(SHORTEST, LONGEST), USUAL),
    Key("keep", toml.flag, False),
    Key("keep-for", toml.unless_off(toml.span(1, 3650 * 86400)), None),
)


@dataclass(frozen=True, slots=True)
class ObservedRepository:
    """A repository of another registry whose tags are observed. ``name`` has the registry's host; ``tags``
    are patterns; ``every`` is in seconds. With ``keep``, all content of each image is fetched, and kept for
    ``keep_for`` seconds after a tag left it; None: as long as it is observed."""

    name: str
    tags: tuple[str, ...] = ("*",)
    every: float = USUAL
    keep: bool = False
    keep_for: float | None = None

    @property
    def host(self) -> str:
        return Reference.parse(self.name).host


@dataclass(frozen=True, slots=True)
class ObserveConfig:
    """What is observed, and how: at most ``rate`` requests a second, and ``parallel`` at a time, to each
    registry. Observations are kept for ``history`` seconds; None for ever."""

    repositories: tuple[ObservedRepository, ...] = ()
    rate: int = 20
    parallel: int = 4
    history: float | None = 400 * 86400.0


def parse(document: Mapping[str, object], where: Where) -> ObserveConfig:
    """Read the section of a document. Raises :class:`InvalidConfiguration`."""
    section = document.get(SECTION, {})
    if not isinstance(section, dict):
        raise where.wrong(
            f'{SECTION} is a table for each repository: write [{SECTION}."docker.io/library/x"]'
        )
    names = {name for name, value in section.items() if isinstance(value, dict)}
    own = {name: value for name, value in section.items() if name not in names}
    values = toml.read(own, KEYS, Where(where.file, SECTION))
    found: dict[str, ObservedRepository] = {}
    for name in section:
        if name not in names:
            continue
        one = _repository(name, section[name], Where(where.file, f'{SECTION}."{name}"'))
        if one.name in found:
            raise where.wrong(f"{one.name} is observed twice: each repository has one section")
        found[one.name] = one
    return ObserveConfig(
        tuple(found.values()), values["requests_per_second"], values["parallel"], values["history"]
    )


def _repository(name: str, table: object, where: Where) -> ObservedRepository:
    values = toml.read(table, REPOSITORY_KEYS, where)
    try:
        full = repository_name(name)
    except InvalidConfiguration as error:
        raise where.wrong(error.message, hint=error.hint) from error
    if values["keep_for"] is not None and not values["keep"]:
        raise where.wrong("keep-for says how long images are kept, and none is", hint="add keep = true")
    return ObservedRepository(full, values["tags"], values["every"], values["keep"], values["keep_for"])


def repository_name(text: str) -> str:
    """Return the name of a repository with its registry's host, of a name as docker has it: ``alpine`` is
    ``docker.io/library/alpine``.

    Raises :class:`InvalidConfiguration`.
    """
    try:
        reference = Reference.parse(text)
        if names_its_host(text):
            host, _, rest = text.partition("/")
            reference = Reference(canonical(host), rest, reference.tag, reference.digest)
    except InvalidReference as error:
        raise InvalidConfiguration(f"{shown(text)} names no repository: {error.message}") from error
    if reference.tag is not None or reference.digest is not None:
        raise InvalidConfiguration(
            f"{shown(text)} names an image: tags are given by their patterns",
            hint=f'write {reference.name}, and tags = ["{reference.tag or "*"}"]',
        )
    return reference.name
