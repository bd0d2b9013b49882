"""A session: the connections, credentials and tokens that any number of registries share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from digestry.client.connection import Connection
from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.model.reference import Reference

if TYPE_CHECKING:
    from digestry.client.configuration.policy import Policy
    from digestry.client.credentials import Credentials
    from digestry.client.registry import Registry
    from digestry.model.age_answers import PassedOver
    from digestry.model.changes import Changes
    from digestry.model.resolution import Resolutions, ResolveQuery
    from digestry.model.sightings import SightingReport, SightingsReceipt


class Session:
    """The client of any number of registries. Thread-safe; a context manager that closes its connections.

    ``credentials`` are those that ``options`` name, unless others are given. With a ``connection``, neither
    is used.
    """

    def __init__(
        self,
        options: ClientOptions | None = None,
        *,
        credentials: Credentials | None = None,
        connection: Connection | None = None,
    ) -> None:
        self.connection = connection or Connection(options or ClientOptions(), credentials=credentials)

    @property
    def options(self) -> ClientOptions:
        """How registries are spoken to."""
        return self.connection.options

    def registry(self, host: str) -> Registry:
        """Return the registry at ``host[:port]``. Sends nothing."""
        from digestry.client.registry import Registry  # noqa: PLC0415 - most ask a repository

        return Registry(host, connection=self.connection)

    def repository(self, reference: Reference) -> Repository:
        """Return the repository of ``reference``. Sends nothing."""
        return Repository(self.connection, reference.repository_only())

    def image_source(self, reference: Reference) -> Repository:
        """Return the source of the image ``reference``: its repository, with its mirrors if there are any.

        Sends nothing. Raises :class:`~digestry.errors.Forbidden` for an image that configuration files block
        or reject.
        """
        from digestry.client.image_source import image_source  # noqa: PLC0415 - most read no image

        return image_source(self.connection, reference)

    def policy(self) -> Policy | None:
        """Return the policy for images that the options name; None if it accepts anything."""
        from digestry.client.image_source import policy_of  # noqa: PLC0415 - most read no image

        return policy_of(self.connection)

    def resolve_many(
        self, host: str, queries: Sequence[ResolveQuery], *, contents: bool = False
    ) -> Resolutions | None:
        """Ask ``host`` about many repositories at once. See :meth:`Registry.resolve_many`."""
        return self.registry(host).resolve_many(queries, contents=contents)

    def changes(self, host: str, token: str) -> Changes | None:
        """Ask ``host`` what changed. See :meth:`Registry.changes`."""
        return self.registry(host).changes(token)

    def record_sightings(self, host: str, sightings: Sequence[SightingReport]) -> SightingsReceipt | None:
        """Report sightings to ``host``. See :meth:`Registry.record_sightings`."""
        return self.registry(host).record_sightings(sightings)

    def staleness(self, repository: Reference, target: str) -> str:
        """Return why the answer for ``target`` may differ from the upstream now. See
        :meth:`Repository.staleness`."""
        return self.repository(repository).staleness(target)

    def passed_over(self, repository: Reference, tag: str) -> PassedOver | None:
        """Return where a tag points that a minimum age passes over. See :meth:`Repository.passed_over`."""
        return self.repository(repository).passed_over(tag)

    def head_get_mismatch(self, repository: Reference, tag: str) -> str:
        """Return how GET contradicts HEAD of a tag. See :meth:`Repository.head_get_mismatch`."""
        return self.repository(repository).head_get_mismatch(tag)

    def authenticated(self, host: str) -> bool:
        """Return whether ``host`` requested credentials: then its responses are those for one account."""
        return self.connection.is_authenticated(host)

    def close(self) -> None:
        """Close all connections."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
