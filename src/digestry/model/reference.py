"""The reference: ``host[:port]/repository[:tag][@digest]``, with docker's familiar names.

The grammar and its limits are those of the distribution project's ``reference`` package, which
every client shares, and of the distribution-spec ("Pulling manifests").
"""

from __future__ import annotations

import re
from typing import Final

from digestry.errors import InvalidDigest, InvalidReference
from digestry.model.digest import ALGORITHMS, Digest, shown

DOCKER_HUB: Final = "docker.io"
_DOCKER_INDEX: Final = "index.docker.io"  # an old name of docker.io, which is the same registry
DEFAULT_TAG: Final = "latest"
LONGEST_REPOSITORY: Final = 255
LONGEST_TAG: Final = 128

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::([0-9]{{1,5}}))?", re.ASCII)
_SCHEMES: Final = frozenset({"docker", "http", "https", "oci"})
"""What other programs write before the names of images, and browsers before addresses."""
_BARE_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HIGHEST_PORT: Final = 65535


def check_repository(name: str) -> str:
    """Return ``name`` if it is a repository's name, without a host.

    Raises :class:`~digestry.errors.InvalidReference`.
    """
    if len(name) > LONGEST_REPOSITORY:
        raise InvalidReference(
            f"repository name {shown(name)} is longer than {LONGEST_REPOSITORY} characters"
        )
    if _REPOSITORY.fullmatch(name):
        return name
    if not name:
        raise InvalidReference("the repository name is empty")
    if name != name.lower():
        raise InvalidReference(f"repository name {shown(name)} must be lower-case")
    raise InvalidReference(
        f"repository name {shown(name)} is not valid",
        hint="parts of lower-case letters and digits, divided by /; inside a part, . _ __ or dashes between "
        "them",
    )


def check_tag(tag: str) -> str:
    """Return ``tag`` if it is valid. Raises :class:`~digestry.errors.InvalidReference`."""
    if _TAG.fullmatch(tag):
        return tag
    if len(tag) > LONGEST_TAG:
        raise InvalidReference(f"tag {shown(tag)} is longer than {LONGEST_TAG} characters")
    raise InvalidReference(
        f"tag {shown(tag)} is not valid",
        hint="letters, digits, _ . and -, not beginning with . or -, 128 characters at most",
    )


def check_host(host: str) -> str:
    """Return ``host[:port]`` if it is valid. Raises :class:`~digestry.errors.InvalidReference`."""
    match = _HOST.fullmatch(host)
    if match is None:
        raise InvalidReference(
            f"registry host {shown(host)} is not valid",
            hint="write it as host or host:port, without http:// or the like",
        )
    if match[1] is not None and not 0 < int(match[1]) <= _HIGHEST_PORT:
        raise InvalidReference(f"registry host {shown(host)} has a port out of range")
    return host


class Reference:
    """A validated image name. Immutable, hashable; ``str()`` gives it in full, and parses to the same.

    ``host`` is never empty, and never one that would be read as part of the repository: it has a dot,
    a colon or an upper-case letter, or is ``localhost``. On docker.io, a repository of one part is in
    ``library/``, whichever way the reference was made. ``tag`` and ``digest`` may each be None, or both
    (a repository).
    """

    __slots__ = ("digest", "host", "repository", "tag")

    host: str
    repository: str
    tag: str | None
    digest: Digest | None

    def __init__(
        self, host: str, repository: str, tag: str | None = None, digest: Digest | None = None
    ) -> None:
        check_host(host)
        if not _looks_like_host(host):
            raise InvalidReference(
                f"registry host {shown(host)} would be read as part of the repository",
                hint=f"write it with its port, such as {host}:80, or its domain",
            )
        if host == _DOCKER_INDEX:
            host = DOCKER_HUB
        check_repository(repository)
        if host == DOCKER_HUB and "/" not in repository:
            repository = check_repository(f"library/{repository}")
        object.__setattr__(self, "host", host)
        object.__setattr__(self, "repository", repository)
        object.__setattr__(self, "tag", None if tag is None else check_tag(tag))
        object.__setattr__(self, "digest", digest)

    @classmethod
    def parse(cls, text: str, *, default_host: str = DOCKER_HUB) -> Reference:
        """Return the reference that ``text`` is, read as docker does, with the familiar short forms.

        A first part that has a dot or a colon, or is ``localhost``, or has an upper-case letter, is a host;
        else the host is ``default_host``. On docker.io, a name of one part is in ``library/``. No tag is made
        up: see :meth:`or_latest`. Raises :class:`~digestry.errors.InvalidReference`.
        """
        if not isinstance(text, str):
            raise InvalidReference(f"an image name must be a string, not {type(text).__name__}")
        if not text:
            raise InvalidReference("the image name is empty")
        name, at, digest_text = text.partition("@")
        digest: Digest | None = None
        if at:
            try:
                digest = Digest.parse(digest_text)
            except InvalidDigest as error:
                raise InvalidReference(f"in {shown(text)}: {error.message}", hint=error.hint) from error
        name, tag = _split_tag(name)
        if tag is not None and name in ALGORITHMS and digest is None:
            raise InvalidReference(
                f"{shown(text)} is a digest, not an image name",
                hint=f"write it as REPOSITORY@{name}:<{ALGORITHMS[name]} hex digits>",
            )
        if tag is None and digest is None and _BARE_HEX.fullmatch(name):
            raise InvalidReference(
                f"{shown(text)} is 64 hex digits, which would be taken for an image ID",
                hint="write it as REPOSITORY@sha256:" + name,
            )
        host, path = _split_host(name, default_host)
        try:
            return cls(host, path, tag, digest)
        except InvalidReference as error:
            hint = error.hint
            scheme, separator, rest = text.partition("://")
            if separator and rest and rest.isprintable() and scheme in _SCHEMES:
                hint = f"leave out {scheme}://, and write {rest}"
            raise InvalidReference(f"in {shown(text)}: {error.message}", hint=hint) from error

    @property
    def name(self) -> str:
        """``host/repository``."""
        return f"{self.host}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The name as docker shows it: without ``docker.io/`` and ``library/``."""
        if self.host != DOCKER_HUB:
            return str(self)
        shortened = self.repository.removeprefix("library/")
        path = self.repository if "/" in shortened else shortened
        # A first part that looks like a host would be read back as one.
        if "/" in path and _looks_like_host(path.partition("/")[0]):
            return str(self)
        # And a name that looks like an image ID or a digest, as that.
        bare = self.tag is None and self.digest is None and _BARE_HEX.fullmatch(path)
        if bare or (path in ALGORITHMS and self.tag is not None and self.digest is None):
            return str(self)
        return path + self._suffix()

    @property
    def target(self) -> str:
        """The digest if there is one, else the tag: the target of a request to a registry.

        Raises :class:`~digestry.errors.InvalidReference` for a bare repository.
        """
        if self.digest is not None:
            return str(self.digest)
        if self.tag is not None:
            return self.tag
        raise InvalidReference(f"{self} has neither a tag nor a digest")

    def or_latest(self) -> Reference:
        """Return this reference, with the tag ``latest`` if it has neither a tag nor a digest."""
        return self.with_tag(DEFAULT_TAG) if self.tag is None and self.digest is None else self

    def with_tag(self, tag: str) -> Reference:
        """Return the same repository's ``tag``, without a digest."""
        return self._sibling(check_tag(tag), None)

    def with_digest(self, digest: Digest) -> Reference:
        """Return the same repository's ``digest``, without a tag."""
        return self._sibling(None, digest)

    def repository_only(self) -> Reference:
        """Return the repository, without tag and digest."""
        return self._sibling(None, None)

    def _sibling(self, tag: str | None, digest: Digest | None) -> Reference:
        """Return a reference to the same repository, whose host and name are valid already."""
        made = object.__new__(Reference)
        for name, value in (
            ("host", self.host),
            ("repository", self.repository),
            ("tag", tag),
            ("digest", digest),
        ):
            object.__setattr__(made, name, value)
        return made

    def _suffix(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        return tag if self.digest is None else f"{tag}@{self.digest}"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Reference cannot be changed ({name!r})")

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}{self._suffix()}"

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def _key(self) -> tuple[str, str, str | None, Digest | None]:
        return self.host, self.repository, self.tag, self.digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[type[Reference], tuple[str, str, str | None, Digest | None]]:
        return Reference, self._key()


def _split_tag(name: str) -> tuple[str, str | None]:
    head, slash, last = name.rpartition("/")
    # A last part in brackets is an IPv6 host; its colons are no tag's.
    if ":" not in last or last.startswith("["):
        return name, None
    last, _, tag = last.partition(":")
    return head + slash + last, tag


def _looks_like_host(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost" or part != part.lower()


def names_its_host(name: str) -> bool:
    """Return whether the first part of an image name is a host, as :meth:`Reference.parse` reads it."""
    first, slash, _ = name.partition("/")
    return bool(slash) and _looks_like_host(first)


def _split_host(name: str, default_host: str) -> tuple[str, str]:
    if not names_its_host(name):
        return default_host, name
    host, _, path = name.partition("/")
    return host, path
