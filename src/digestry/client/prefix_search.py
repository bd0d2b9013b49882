"""The search for a digest by its first digits, in one repository or in a whole registry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

from digestry.client import manifests
from digestry.client.connection import Connection
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.extensions import offers
from digestry.client.tags import list_tags
from digestry.client.transport import Call
from digestry.errors import ContentError, RemoteError
from digestry.model.descriptor import decode_hook
from digestry.model.digest import Digest
from digestry.model.digest_prefix import DigestPrefix
from digestry.model.history import DigestsWithPrefix

_LARGEST: Final = 1 << 20
_AT_ONCE: Final = 8
_MOST_TAGS: Final = 1000
_ENDPOINT: Final = "_digestry/digests/<prefix>"
_SCOPES: Final = ("registry:catalog:*",)


def find_in_repository(endpoint: RepositoryEndpoint, prefix: DigestPrefix) -> Digest:
    """Return the one digest of a repository that begins with ``prefix``.

    The search covers all digests that the repository has or had; in a registry without that query, those that
    its tags point to. Raises :class:`NotFound`, which says where the search was, :class:`Ambiguous`, and what
    the requests raise.
    """
    whole = prefix.whole
    if whole is not None:
        return whole
    name = endpoint.name
    if offers(endpoint.connection, endpoint.host, _ENDPOINT):
        with endpoint.request("GET", f"_digestry/digests/{prefix}") as response:
            if response.status != 200:
                response.fail(f"look for {prefix} in {name}")
            found = response.json(DigestsWithPrefix, _LARGEST, dec_hook=decode_hook)
        return prefix.only_match(found.digests, f"{name} and its history")
    return prefix.only_match(*_of_tags(endpoint))


def find_in_registry(connection: Connection, host: str, prefix: DigestPrefix) -> Digest:
    """Return the one digest that begins with ``prefix``, of all repositories that the caller may see.

    Raises as :func:`find_in_repository` does, and :class:`RemoteError` if the registry has no such query.
    """
    whole = prefix.whole
    if whole is not None:
        return whole
    address = f"{connection.base(host)}/v2/"
    # A registry may answer anonymous requests with the public part only: /v2/ gives the challenge to log in.
    connection.send(host, Call("GET", address), _SCOPES).close()
    if not offers(connection, host, _ENDPOINT):
        raise RemoteError(
            f"{host} cannot be asked which digest of all its repositories begins with {prefix}",
            hint="write the whole digest, or REPO@ before its beginning, or name another registry with "
            "--registry",
        )
    with connection.send(host, Call("GET", f"{address}_digestry/digests/{prefix}"), _SCOPES) as response:
        if response.status != 200:
            response.fail(f"look for {prefix}")
        found = response.json(DigestsWithPrefix, _LARGEST, dec_hook=decode_hook)
    return prefix.only_match(found.digests, f"what you may see of {host}")


def _of_tags(endpoint: RepositoryEndpoint) -> tuple[list[Digest], str]:
    """Return the digests that the tags point to, and the name of the search's scope for messages."""
    name = endpoint.name
    tags = list(islice(list_tags(endpoint), _MOST_TAGS + 1))
    place = f"what the tags of {name} point to now, which is all that {endpoint.host} can be asked"
    if len(tags) > _MOST_TAGS:
        place = f"what the first {_MOST_TAGS} tags of {name} point to now, of which it has more"
    failed: list[str] = []

    def resolve(tag: str) -> Digest | None:
        try:
            return manifests.resolve(endpoint, tag).digest
        except (RemoteError, ContentError):
            failed.append(tag)
            return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = [digest for digest in pool.map(resolve, tags[:_MOST_TAGS]) if digest is not None]
    if failed:
        place += f" ({len(failed)} of its tags could not be read)"
    return digests, place
