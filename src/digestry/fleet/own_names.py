"""The names by which images of this registry are known to the engines that pulled them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from digestry.audit.image_names import ImageNames, Mirror, RepositoryPrefix
from digestry.errors import InvalidReference
from digestry.registry.config import RegistryConfig, is_loopback
from digestry.registry.hosts import is_named_in, parse_host
from digestry.registry.pull_through.config import MirrorConfig

_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, and not listened on
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class OwnNames:
    """The names of one registry: those of ``hosts`` in its configuration and of its token endpoint, and the
    address that it listens on."""

    config: RegistryConfig

    def is_own(self, host: str) -> bool:
        """Return whether ``host[:port]`` is a name of this registry."""
        return host == self.primary or self._is_configured(host)

    @property
    def address(self) -> str:
        """The address at which the registry is reached on its own machine."""
        config = self.config
        host = "127.0.0.1" if config.host in _ANY_ADDRESS else config.host
        return f"[{host}]:{config.port}" if ":" in host else f"{host}:{config.port}"

    @property
    def primary(self) -> str:
        """The name that the registry calls itself by."""
        config = self.config
        names = [name for name in config.hosts if "." in name and not name.startswith("*.")]
        if names:
            return names[0]
        host = f"[{config.host}]" if ":" in config.host else config.host or "localhost"
        return f"{host}:{config.port}"

    def _is_configured(self, host: str) -> bool:
        parsed = parse_host(host)
        if parsed is None:
            return False
        config = self.config
        realm = None if config.access.realm is None else parse_host(urlsplit(config.access.realm).netloc)
        if is_named_in(parsed, config.hosts) or (realm is not None and realm.name == parsed.name):
            return True
        default = 80 if config.tls is None else 443
        if config.socket is not None or (parsed.port or default) != config.port:
            return False
        local = config.host in _ANY_ADDRESS or is_loopback(config.host)
        return parsed.name == config.host or (local and parsed.name in _LOOPBACK)

    def image_names(self) -> ImageNames:
        """Return the names of images of the registries that this one mirrors.

        The digests and advisories of a copy count; its tags do not, and what else its own registry has
        attached to an image is not known here.
        """
        return ImageNames(
            mirrors=tuple(
                found
                for mirror in self.config.mirrors
                if (found := _mirror(mirror, self.primary)) is not None
            )
        )


def _mirror(mirror: MirrorConfig, primary: str) -> Mirror | None:
    try:
        original = RepositoryPrefix.parse(
            f"{mirror.host}/{mirror.project}" if mirror.project else mirror.host
        )
        return Mirror(original, RepositoryPrefix(primary, mirror.prefix), tags=False)
    except InvalidReference:
        return None  # a name that no image can have
