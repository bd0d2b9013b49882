"""A digest that is given by its beginning, found in a repository, or in all of a registry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Final

from digestry.client.extensions import offers
from digestry.client.transport import Call
from digestry.errors import Ambiguous, ContentError, NotFound, RemoteError
from digestry.model.descriptor import decode_hook
from digestry.model.history import DigestsBeginning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from digestry.client.repository import Repository
    from digestry.client.session import Session
    from digestry.model.digest import Digest
    from digestry.model.digest_prefix import DigestPrefix

_LARGEST: Final = 1 << 20
_AT_ONCE: Final = 8
_MOST_TAGS: Final = 1000
_ENDPOINT: Final = "_digestry/digests/<prefix>"
_SCOPES: Final = ("registry:catalog:*",)
_SHOWN: Final = 10


def find(repository: Repository, prefix: DigestPrefix) -> Digest:
    """Return the one digest of the repository that begins so: of all that it has or had, or, where the
    registry
    cannot be asked that, of what its tags point to.

    Raises :class:`NotFound`, which says where was looked, :class:`Ambiguous`, and what the repository's
    methods raise.
    """
    whole = prefix.whole
    if whole is not None:
        return whole
    name = repository.reference.name
    if offers(repository.session, repository.reference.host, _ENDPOINT):
        with repository.request("GET", f"_digestry/digests/{prefix}") as response:
            if response.status != 200:
                response.fail(f"look for {prefix} in {name}")
            found: DigestsBeginning = response.json(DigestsBeginning, _LARGEST, dec_hook=decode_hook)
        return one(prefix, found.digests, f"{name} and its history")
    return one(prefix, *_of_tags(repository))


def anywhere(session: Session, host: str, prefix: DigestPrefix) -> Digest:
    """Return the one digest that begins so of all repositories of ``host`` that may be seen.

    Raises as :func:`find` does, and :class:`RemoteError` if the registry cannot be asked that.
    """
    whole = prefix.whole
    if whole is not None:
        return whole
    address = f"{session.transport.base(host)}/v2/"
    # Who does not say who they are may get an answer, too: of what everybody may see. /v2/ asks.
    session.send(host, Call("GET", address), _SCOPES).close()
    if not offers(session, host, _ENDPOINT):
        raise RemoteError(
            f"{host} cannot be asked which digest of all its repositories begins with {prefix}",
            hint="write the whole digest, or REPO@ before its beginning, or name another registry with "
            "--registry",
        )
    with session.send(host, Call("GET", f"{address}_digestry/digests/{prefix}"), _SCOPES) as response:
        if response.status != 200:
            response.fail(f"look for {prefix}")
        found: DigestsBeginning = response.json(DigestsBeginning, _LARGEST, dec_hook=decode_hook)
    return one(prefix, found.digests, f"what you may see of {host}")


def one(prefix: DigestPrefix, digests: Iterable[Digest], place: str) -> Digest:
    """Return the only one of ``digests`` that begins so. Raises :class:`NotFound` and :class:`Ambiguous`,
    which name the ``place`` and the candidates."""
    found = sorted({digest for digest in digests if prefix.begins(digest)})
    if not found:
        raise NotFound(f"no digest begins with {prefix} in {place}")
    if len(found) > 1:
        listed = ", ".join(map(str, found[:_SHOWN])) + (", …" if len(found) > _SHOWN else "")
        raise Ambiguous(
            f"{prefix} begins several digests of {place}: {listed}", hint="write more of its digits"
        )
    return found[0]


def _of_tags(repository: Repository) -> tuple[list[Digest], str]:
    name = repository.reference.name
    tags = list(islice(repository.tags(), _MOST_TAGS + 1))
    place = (
        f"what the tags of {name} point to now, which is all that {repository.reference.host} can be asked"
    )
    if len(tags) > _MOST_TAGS:
        place = f"what the first {_MOST_TAGS} tags of {name} point to now, of which it has more"
    failed: list[str] = []

    def resolve(tag: str) -> Digest | None:
        try:
            return repository.resolve(tag).digest
        except (RemoteError, ContentError):
            failed.append(tag)
            return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = [digest for digest in pool.map(resolve, tags[:_MOST_TAGS]) if digest is not None]
    if failed:
        place += f" ({len(failed)} of its tags could not be read)"
    return digests, place
