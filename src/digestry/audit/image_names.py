"""The other names of an image's repository: aliases and mirrors.

A digest is the same content under any name, so that any of an image's names may confirm it. A tag is not:
only the registry in its name decides where it points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.errors import InvalidReference
from digestry.model.reference import DOCKER_HUB, Reference

_LONGEST_CHAIN: Final = 8
_ANY: Final = "any"  # a repository to check a host with


@dataclass(frozen=True, slots=True)
class RepositoryPrefix:
    """A registry, or the part of it below ``path``: ``docker.io``, ``mirror.internal:5000/dockerhub``."""

    host: str
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> RepositoryPrefix:
        """Parse ``host[:port][/path]``. Raises :class:`InvalidReference`."""
        host, slash, path = text.partition("/")
        # On docker.io a path of one part would become another.
        checked = Reference(host, f"{path}/{_ANY}" if slash else f"{_ANY}/{_ANY}")
        return cls(checked.host, path)

    def moved(self, repository: Reference, to: RepositoryPrefix) -> Reference | None:
        """Return the repository's name at ``to``; None if it is not below this prefix, or can have none."""
        if repository.host != self.host:
            return None
        inner = repository.repository
        if self.path:
            if not inner.startswith(f"{self.path}/"):
                return None
            inner = inner[len(self.path) + 1 :]
        try:
            return Reference(to.host, f"{to.path}/{inner}" if to.path else inner)
        except InvalidReference:
            return None  # longer than a name may be

    def __str__(self) -> str:
        return f"{self.host}/{self.path}" if self.path else self.host


@dataclass(frozen=True, slots=True)
class Alias:
    """A prefix whose repositories are also below ``original``."""

    prefix: RepositoryPrefix
    original: RepositoryPrefix


@dataclass(frozen=True, slots=True)
class Mirror:
    """A prefix whose repositories are copies of those below ``original`` (None: of any registry).

    ``tags`` is whether its tags count.
    """

    original: RepositoryPrefix | None
    prefix: RepositoryPrefix
    tags: bool = True


@dataclass(frozen=True, slots=True)
class OtherName:
    """Another name of a repository, and whether its tags are the repository's own."""

    repository: Reference
    tags: bool = True


@dataclass(frozen=True, slots=True)
class ImageNames:
    """All known aliases and mirrors, in the order of use."""

    aliases: tuple[Alias, ...] = ()
    mirrors: tuple[Mirror, ...] = ()

    def others(self, repository: Reference) -> tuple[OtherName, ...]:
        """Return the other names of ``repository``: its original, then its aliases, then its mirrors."""
        if not self.aliases and not self.mirrors:
            return ()
        own = repository.repository_only()
        names = [own]
        while len(names) < _LONGEST_CHAIN:
            original = self._original(names[-1])
            if original is None or original in names:
                break
            names.append(original)
        found: dict[Reference, OtherName] = {name: OtherName(name) for name in names}
        for name in names:
            for alias in self.aliases:
                self._add(found, alias.original.moved(name, alias.prefix), tags=True)
        for mirror in self.mirrors:
            for name in names:
                mirrored = mirror.original or RepositoryPrefix(name.host)
                self._add(found, mirrored.moved(name, mirror.prefix), tags=mirror.tags)
        del found[own]
        return tuple(found.values())

    def _original(self, name: Reference) -> Reference | None:
        """Return the original of the alias ``name``. The alias with the longest path counts."""
        for alias in sorted(self.aliases, key=lambda candidate: -len(candidate.prefix.path)):
            original = alias.prefix.moved(name, alias.original)
            if original is not None:
                return original
        return None

    @staticmethod
    def _add(found: dict[Reference, OtherName], name: Reference | None, *, tags: bool) -> None:
        if name is not None and name not in found:
            found[name] = OtherName(name, tags)


HUB: Final = RepositoryPrefix(DOCKER_HUB)
NO_NAMES: Final = ImageNames()
"""Every image has one name."""
