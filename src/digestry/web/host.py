"""What the pages need of the registry that they stand beside: who asks, what they may see, and its stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from starlette.types import Scope

from digestry.advisories.trust import TrustPolicy
from digestry.catalog.catalog import Catalog
from digestry.model.digest import Digest
from digestry.model.history import Restored

P = ParamSpec("P")
T = TypeVar("T")


class Settings(Protocol):
    """The configuration of the pages. A session ends ``idle`` seconds after its last request, and
    ``session`` seconds after its sign-in."""

    @property
    def idle(self) -> float: ...

    @property
    def session(self) -> float: ...


class Identity(Protocol):
    """The name of a user, a robot, or anybody."""

    @property
    def name(self) -> str: ...

    @property
    def anonymous(self) -> bool: ...


class Visitor(Protocol):
    """Who asks for a page, and what they may do."""

    @property
    def identity(self) -> Identity: ...

    def allowed(self, repository: str, /) -> frozenset[str]:
        """Return all actions that are allowed in the repository, whether or not it exists."""
        ...

    def may_see(self, repository: str, /) -> bool:
        """Return whether the visitor may pull from the repository, and know that it exists."""
        ...

    def audits(self, repository: str, /) -> bool:
        """Return whether the visitor may read who did what, and what runs where."""
        ...

    def audits_everything(self) -> bool:
        """Return whether the visitor may audit every repository, of any name."""
        ...

    def audits_anything(self) -> bool:
        """Return whether there may be a repository that the visitor may audit."""
        ...

    def seen_beginnings(self) -> list[str]:
        """Return prefixes of all names that the visitor may see; none is a prefix of another."""
        ...

    def pulls_everything(self) -> bool:
        """Return whether the visitor may pull from every repository, of any name."""
        ...

    def sees_anything(self) -> bool:
        """Return whether there is any name that the visitor may see."""
        ...


class Proof(Protocol):
    """A verified login. ``credential`` changes when the password or token behind it does."""

    @property
    def identity(self) -> Identity: ...

    @property
    def credential(self) -> str: ...


class Started(Protocol):
    """A sign-in that begins at an issuer: where the visitor goes, and what they must come back with."""

    @property
    def address(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def nonce(self) -> str: ...

    @property
    def verifier(self) -> str: ...


class Host(Protocol):
    """The registry of one worker process. Its ``catalog`` blocks, and so does ``content``."""

    @property
    def settings(self) -> Settings: ...

    @property
    def catalog(self) -> Catalog: ...

    @property
    def trust(self) -> TrustPolicy:
        """The policy that decides which advisories count."""
        ...

    @property
    def has_logins(self) -> bool:
        """Whether the registry has users, or rules for them."""
        ...

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        ...

    def content(self, digest: Digest, size: int, /) -> bytes:
        """Return content that the catalog lists, verified. Blocks. Raises :class:`StorageError`."""
        ...

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``, which may block, in a thread."""
        ...

    async def write(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``, which changes the catalog and nothing else. Return when that is on the disk."""
        ...

    def registry_name(self, scope: Scope, /) -> str:
        """Return the registry's host and port as the client of this request reaches it."""
        ...

    def is_https(self, scope: Scope, /) -> bool:
        """Return whether the client of this request reaches the registry by HTTPS."""
        ...

    def visitor(self, scope: Scope, name: str | None, /) -> Visitor:
        """Return what the user ``name`` may do, or anybody for None."""
        ...

    def address(self, scope: Scope, /) -> str:
        """Return the address of the request's client, as the journal has it."""
        ...

    def request_id(self, scope: Scope, /) -> str:
        """Return the number of the request, as the logs have it."""
        ...

    def note_sign_out(self, scope: Scope, /) -> None:
        """Note that this request ends the visitor's session."""
        ...

    def immovable(self, name: str, /) -> str:
        """Return why nobody may move tags of a repository here; empty if the rules decide."""
        ...

    async def restore_tag(
        self, scope: Scope, name: str, tag: str, digest: Digest, /, *, before: Digest | None
    ) -> Restored:
        """Point a tag back at a digest that it had, if it points to ``before`` now; None if it is deleted.

        Raises :class:`Forbidden`, :class:`NotFound`, :class:`Conflict`.
        """
        ...

    async def check_password(self, scope: Scope, name: str, password: str, /) -> Proof:
        """Return the proof of a user's password, or of a robot's token.

        Raises :class:`Forbidden` if it is wrong, :class:`TooMany` while too many were wrong.
        """
        ...

    @property
    def issuers(self) -> tuple[str, ...]:
        """The names, for people, of the issuers at which they sign in."""
        ...

    async def begin_sign_in(self, issuer: int, redirect: str, /) -> Started:
        """Begin a sign-in at an issuer, given by its place in :attr:`issuers`, that comes back to
        ``redirect``.

        Raises :class:`NotFound`, and :class:`RemoteError` if the issuer does not answer as it should.
        """
        ...

    async def finish_sign_in(
        self,
        scope: Scope,
        issuer: int,
        redirect: str,
        /,
        *,
        code: str,
        verifier: str,
        nonce: str,
        stated: str | None,
    ) -> Proof:
        """Return the proof of who came back from an issuer with a ``code``; ``stated`` is the issuer that the
        answer names, if it names one.

        Raises :class:`Forbidden` for who is not known here, and as :meth:`begin_sign_in` does.
        """
        ...

    async def still_holds(self, name: str, credential: str, /) -> bool:
        """Return whether the password or token with the fingerprint ``credential`` is still the user's."""
        ...
