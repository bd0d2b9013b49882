"""A session: connections, credentials and tokens that many repositories share."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from digestry.client.auth import Authenticator
from digestry.client.credentials import Credentials, DockerCredentials
from digestry.client.options import ClientOptions
from digestry.client.responses import Response
from digestry.client.transport import Call, Transport, origin_of
from digestry.errors import DigestMismatch, DigestryError, RemoteNotFound
from digestry.model.digest import Digest
from digestry.model.reference import Reference

if TYPE_CHECKING:
    from digestry.client.repository import Repository
    from digestry.model.history import TagSpan
    from digestry.model.resolution import Resolutions, ResolveQuery
    from digestry.model.sightings import Noted, Sighted


class Session:
    """What the client keeps between requests. Thread-safe; a context manager.

    ``credentials`` are those that ``options`` name, unless others are given.
    """

    def __init__(
        self,
        options: ClientOptions = ClientOptions(),  # noqa: B008 - frozen
        *,
        credentials: Credentials | None = None,
    ) -> None:
        self.options = options
        self.transport = Transport(options)
        self.extension_endpoints: dict[str, frozenset[str] | None] = {}
        """The extensions' endpoints of each registry that was asked; None if it could not tell."""
        self.bulk_refused: set[str] = set()
        """Registries that did not answer many questions at once."""
        self.upstream_status: dict[tuple[str, str], str] = {}
        """What a mirror said of the registry that it mirrors, by repository and tag or digest."""
        self.head_digests: dict[tuple[str, str], Digest] = {}
        """Where HEAD alone said that tags point, by repository and tag, of registries that count no pulls."""
        self.mounts_refused: set[tuple[str, str]] = set()
        """BulkKeys of repositories of which the first does not get blobs from the second."""
        self._auth = Authenticator(
            self.transport,
            credentials
            or DockerCredentials(
                options.docker_config, more=options.auth_files, given=options.auth_config, tell=options.tell
            ),
        )

    def repository(self, reference: Reference) -> Repository:
        """The repository of ``reference``. Nothing is asked yet."""
        from digestry.client.repository import Repository  # noqa: PLC0415 - it needs Session

        return Repository(self, reference.repository_only())

    def resolve_many(
        self, host: str, queries: Sequence[ResolveQuery], *, contents: bool = False
    ) -> Resolutions | None:
        """Asks ``host`` about many repositories at once; None if it cannot be asked so.

        One request: it answers as many of the first ``queries`` as it has room for, and at least
        one. ``contents`` asks for the bytes of indexes and advisories, too; they were verified.
        Raises :class:`Unreachable`, :class:`Refused` and :class:`ProtocolViolation`.
        """
        from digestry.client import bulk_resolve  # noqa: PLC0415 - it needs Session

        return bulk_resolve.ask(self, host, queries, contents=contents)

    def tags_for_digest(self, host: str, digest: Digest) -> list[TagSpan] | None:
        """Which tags of any repository that may be pulled from point, or pointed, to ``digest``, or to
        what holds it, newest first; None if ``host`` cannot tell."""
        from digestry.client import registry_search  # noqa: PLC0415 - it needs Session

        return registry_search.tags_for_digest(self, host, digest)

    def record_sightings(self, host: str, sightings: Sequence[Sighted]) -> Noted | None:
        """Tells ``host`` what runs where, with one request: no more than
        :func:`~digestry.model.sightings.batch` says. None if it keeps no sightings.

        Raises :class:`Unreachable`, :class:`Unauthorized`, :class:`Refused` and
        :class:`ProtocolViolation`.
        """
        from digestry.client import sightings as client  # noqa: PLC0415 - few verbs need it

        return client.record(self, host, sightings)

    def staleness(self, repository: Reference, target: str) -> str:
        """Why a tag that a mirror resolved, or the referrers of a digest that it listed, may not be what
        the registry that is mirrored has, in the mirror's words; empty if they are, or if nothing is
        mirrored (docs/mirror.md)."""
        said = self.upstream_status.get((repository.name, target), "")
        return "" if said.partition(";")[0].strip() in {"", "current"} else said

    def head_get_mismatch(self, repository: Reference, tag: str) -> str:
        """Why HEAD cannot be believed of where a tag points: GET says something else; empty if it says the
        same, or nothing. A registry that counts GETs as pulls is not asked."""
        told = self.head_digests.get((repository.name, tag))
        if told is None:
            return ""
        host = repository.host
        try:
            raw = self.repository(repository).pull_manifest(tag).raw
        except RemoteNotFound:
            return f"{host} has the tag when it is asked with HEAD, and does not have it for GET"
        except DigestMismatch as error:
            return error.message
        except DigestryError:  # containerd believes HEAD, too
            return ""
        found = Digest.of(raw, told.algorithm)
        return "" if found == told else f"{host} says {told} for HEAD, and gives {found} for GET"

    def authenticated(self, host: str) -> bool:
        """Whether ``host`` asked for credentials: then its answers are those for one account."""
        return self._auth.challenged(host)

    def close(self) -> None:
        """Ends all connections."""
        self.transport.close()

    def send(self, host: str, call: Call, scopes: Sequence[str]) -> Response:
        """Sends ``call`` to the registry ``host``, authenticated if it wants that.

        Returns the answer, whatever its status. Raises :class:`Unreachable`,
        :class:`ProtocolViolation`, and :class:`Unauthorized` if a token server refuses.
        """
        base = self.transport.base(host)
        # An upload may be sent to another host, which has no right to these credentials.
        ours = origin_of(call.url) == origin_of(base)
        header = self._auth.header(host, scopes) if ours else None
        response = self._sent(host, call, header, scopes)
        if response.status != 401 or not ours or origin_of(response.url) != origin_of(base):
            return response
        try:
            other = self._auth.reauthorize(host, response.headers.getlist("WWW-Authenticate"), scopes, header)
        except BaseException:
            response.close()
            raise
        if other is None:
            response.remark = self._auth.problem(host)  # by now the credentials were looked for
            return response
        response.close()
        return self._sent(host, call, other, scopes)

    def _sent(self, host: str, call: Call, authorization: str | None, scopes: Sequence[str]) -> Response:
        response = self.transport.send(call, authorization=authorization)
        response.registry, response.remark = host, self._auth.problem(host)
        if response.status in {401, 403, 404, 429} and authorization is not None:
            response.account = self._auth.account(host, scopes)
        return response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
