"""One registry, or one repository of it, over HTTP: addresses, token scopes, requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from digestry.client.connection import Connection
from digestry.client.responses import Response, escaped
from digestry.client.transport import Body, Call
from digestry.model.reference import Reference

_CATALOG: Final = ("registry:catalog:*",)
_MIRRORED: Final = ("/manifests", "/referrers")


class RegistryEndpoint:
    """The part of a registry's API that is not about a single repository, such as their list. Thread-safe."""

    def __init__(self, connection: Connection, host: str) -> None:
        self.connection = connection
        self.host = host

    def url(self, path: str) -> str:
        """Return the address of ``path``, such as ``_catalog``."""
        return f"{self.connection.likely_base(self.host)}/v2/{path}"

    def request(self, method: str, path: str) -> Response:
        """Send one request, and return the response, with any status. See :meth:`Connection.send`."""
        url = path if "://" in path else self.url(path)
        return self.connection.send(self.host, Call(method, url), _CATALOG)


class RepositoryEndpoint:
    """The part of a registry's API that is about one repository. Thread-safe."""

    def __init__(self, connection: Connection, repository: Reference) -> None:
        self.connection = connection
        self.repository = repository.repository_only()
        name = repository.repository
        self._rules = connection.options.registries
        self._pull = (f"repository:{name}:pull",)
        self._push = (f"repository:{name}:pull,push",)
        self._delete = (f"repository:{name}:delete",)

    @property
    def host(self) -> str:
        """The registry, ``host[:port]``."""
        return self.repository.host

    @property
    def name(self) -> str:
        """The repository in full, ``host/name``."""
        return self.repository.name

    def url(self, path: str) -> str:
        """Return the address of ``path`` (such as ``manifests/1.5``) in this repository."""
        return f"{self.connection.likely_base(self.host)}/v2/{self.repository.repository}/{path}"

    def display_name(self, target: str) -> str:
        """Return a tag or digest of this repository as messages name it."""
        return f"{self.name}{'@' if ':' in target else ':'}{target}"

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        push: bool = False,
        scopes: Sequence[str] = (),
        repeatable: bool = True,
        committed: int = 0,
    ) -> Response:
        """Send one request about this repository, and return the response, with any status.

        ``path`` is below the repository, or a complete URL. ``scopes`` are token scopes beside this
        repository's own; the rest is as in :class:`Call`. Raises as :meth:`Connection.send` does, and
        :class:`~digestry.errors.Forbidden` for a repository that a configuration file blocks.
        """
        if self._rules is not None:
            self._rules.check(self.name)
            self._rules = None
        url = path if "://" in path else self.url(path)
        own = self._delete if method == "DELETE" else self._push if push else self._pull
        call = Call(method, url, headers or {}, body, repeatable, committed=committed)
        response = self.connection.send(self.host, call, (*own, *scopes))
        upstream = response.headers.get("Digestry-Upstream")
        if upstream is not None:
            kind, _, target = urlsplit(url).path.rpartition("/")
            if kind.endswith(_MIRRORED):
                self.connection.cache.upstream_status[self.name, target] = escaped(upstream)
        return response
