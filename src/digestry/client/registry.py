"""One registry: its repositories, and bulk queries about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Self

from digestry.client.connection import Connection
from digestry.client.endpoint import RegistryEndpoint
from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.model.reference import Reference, check_host

if TYPE_CHECKING:
    from digestry.client.credentials import Credentials
    from digestry.client.fleet import Fleet
    from digestry.model.changes import Changes
    from digestry.model.digest import Digest
    from digestry.model.digest_prefix import DigestPrefix
    from digestry.model.history import TagSpan
    from digestry.model.image_parts import LayerImages
    from digestry.model.resolution import Resolutions, ResolveQuery
    from digestry.model.sightings import SightingReport, SightingsReceipt


class Registry:
    """A registry, by its ``host[:port]``. Thread-safe; a context manager that closes its connections.

    Nothing is sent before a method is called. ``options`` configure the requests and the source of
    credentials: by default there is no login. ``credentials`` replace those of the options. With a
    ``connection``, which its owner closes, neither is used. Raises :class:`~digestry.errors.InvalidReference`
    for a text that is not a host.

    Every method may raise :class:`~digestry.errors.Unreachable`, :class:`~digestry.errors.Unauthorized`,
    :class:`~digestry.errors.Refused` and :class:`~digestry.errors.ProtocolViolation`.
    """

    def __init__(
        self,
        host: str,
        *,
        options: ClientOptions | None = None,
        credentials: Credentials | None = None,
        connection: Connection | None = None,
    ) -> None:
        self.host = check_host(host)
        self._owned = connection is None
        self.connection = connection or Connection(options or ClientOptions(), credentials=credentials)

    def repository(self, name: str) -> Repository:
        """Return the repository ``name``, such as ``team/app``. Sends nothing.

        Raises :class:`~digestry.errors.InvalidReference`.
        """
        return Repository(self.connection, Reference(self.host, name))

    def repositories(self, on_invalid: Callable[[str], None] | None = None) -> Iterator[str]:
        """Yield the names of all repositories that the caller may see, in the registry's order.

        ``on_invalid`` is called with a sentence about each entry that cannot be a repository; such an entry
        is left out. Raises :class:`~digestry.errors.RemoteError` while iterating, also if the registry has
        no such list.
        """
        from digestry.client import repositories

        return repositories.list_repositories(RegistryEndpoint(self.connection, self.host), on_invalid)

    def resolve_many(self, queries: Sequence[ResolveQuery], *, contents: bool = False) -> Resolutions | None:
        """Query many repositories with one request. None if the registry has no such query.

        It answers as many of the first ``queries`` as it has room for, and at least one. ``contents``
        requests the bytes of indexes and advisories, too; they are verified.
        """
        from digestry.client import bulk_resolve

        return bulk_resolve.resolve_many(self.connection, self.host, queries, contents=contents)

    def changes(self, token: str = "") -> Changes | None:
        """Return what changed since the answer with ``token``; None if the registry does not say."""
        from digestry.client import registry_changes

        return registry_changes.changes(self.connection, self.host, token)

    def tags_for_digest(self, digest: Digest, *, layers: bool = False) -> list[TagSpan] | None:
        """Return the tags that point, or pointed, to ``digest`` or to an index that holds it, newest first.

        They are those of all repositories that the caller may pull from. With ``layers`` the digest may be a
        layer's: then the tags are those of the images with it. None if the registry has no such query.
        """
        from digestry.client import registry_search

        return registry_search.tags_for_digest(self.connection, self.host, digest, layers=layers)

    def images_with_layer(self, layer: Digest, *, limit: int = 100) -> LayerImages | None:
        """Return up to ``limit`` images that have ``layer``, of all repositories that the caller may see,
        those with the fewest layers first. None if the registry has no such query."""
        from digestry.client import digest_queries

        return digest_queries.images_with_layer_anywhere(self.connection, self.host, layer, limit)

    def find_digest(self, prefix: DigestPrefix) -> Digest:
        """Return the one digest that begins with ``prefix``, of all repositories that the caller may see.

        Raises :class:`~digestry.errors.NotFound` and :class:`~digestry.errors.Ambiguous`, and
        :class:`~digestry.errors.RemoteError` if the registry has no such query.
        """
        from digestry.client import prefix_search

        return prefix_search.find_in_registry(self.connection, self.host, prefix)

    @property
    def fleet(self) -> Fleet:
        """What agents reported to the registry."""
        from digestry.client.fleet import Fleet

        return Fleet(self.connection, self.host)

    def record_sightings(self, sightings_: Sequence[SightingReport]) -> SightingsReceipt | None:
        """Report sightings, with one request. None if the registry keeps no sightings.

        At most as many as :func:`~digestry.model.sightings.batch` says.
        """
        from digestry.client import sightings

        return sightings.record(self.connection, self.host, sightings_)

    def close(self) -> None:
        """Close the connections, unless they were given."""
        if self._owned:
            self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Registry({self.host!r})"
