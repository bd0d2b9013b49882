"""Queries about a digest: the tags that it had, the manifests that hold it, the images that have it as a
layer."""

from __future__ import annotations

from typing import Final, TypeVar

from digestry.client.connection import Connection
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.extensions import UNSUPPORTED, lacks
from digestry.client.paging import pages
from digestry.client.transport import Call
from digestry.errors import InvalidReference, ProtocolViolation
from digestry.model.descriptor import decode_hook
from digestry.model.digest import Digest
from digestry.model.history import Holders, TagsForDigest, TagSpan
from digestry.model.image_parts import LayerImages
from digestry.model.reference import Reference

T = TypeVar("T")

_LARGEST_PAGE: Final = 16 << 20
_PAGE: Final = 1000
_SCOPES: Final = ("registry:catalog:*",)


def tags_for_digest(
    endpoint: RepositoryEndpoint, digest: Digest, limit: int | None, *, layers: bool = False
) -> list[TagSpan] | None:
    """Return each time that a tag came to ``digest``. See :meth:`Repository.tags_for_digest`."""
    if lacks(endpoint.connection, endpoint.host, "_digestry/whose/<digest>"):
        return None
    spans: list[TagSpan] = []
    number = _PAGE if limit is None else min(_PAGE, limit)
    for response in pages(endpoint, f"_digestry/whose/{digest}?n={number}{'&layers=true' if layers else ''}"):
        if response.status in UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"ask whose {endpoint.display_name(str(digest))} is")
        found = response.json(TagsForDigest, _LARGEST_PAGE, dec_hook=decode_hook)
        response.entries = len(found.spans)
        spans += found.spans
        if limit is not None and len(spans) >= limit:
            return spans[:limit]
    return spans


def holders(endpoint: RepositoryEndpoint, digest: Digest) -> Holders | None:
    """Return the manifests that hold ``digest``. See :meth:`Repository.holders`."""
    what = f"ask who holds {endpoint.display_name(str(digest))}"
    return _ask(endpoint, "holders", str(digest), Holders, what)


def images_with_layer(endpoint: RepositoryEndpoint, layer: Digest, limit: int) -> LayerImages | None:
    """Return the images of a repository with ``layer``. See :meth:`Repository.images_with_layer`."""
    what = f"ask which images have the layer {endpoint.display_name(str(layer))}"
    found = _ask(endpoint, "layers", f"{layer}?n={limit}", LayerImages, what)
    return None if found is None else _checked(endpoint.host, found)


def _ask(endpoint: RepositoryEndpoint, extension: str, query: str, kind: type[T], what: str) -> T | None:
    """Return the answer of a repository's ``_digestry/EXTENSION/<digest>``; None if the registry has none."""
    if lacks(endpoint.connection, endpoint.host, f"_digestry/{extension}/<digest>"):
        return None
    with endpoint.request("GET", f"_digestry/{extension}/{query}") as response:
        if response.status in UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(what)
        return response.json(kind, _LARGEST_PAGE, dec_hook=decode_hook)


def images_with_layer_anywhere(
    connection: Connection, host: str, layer: Digest, limit: int
) -> LayerImages | None:
    """Return the images of a registry with ``layer``. See :meth:`Registry.images_with_layer`."""
    address = f"{connection.base(host)}/v2/"
    # A registry may answer anonymous requests with the public part only: /v2/ gives the challenge to log in.
    connection.send(host, Call("GET", address), _SCOPES).close()
    call = Call("GET", f"{address}_digestry/layers/{layer}?n={limit}")
    with connection.send(host, call, _SCOPES) as response:
        if response.status in UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"ask which images have the layer {layer}")
        return _checked(host, response.json(LayerImages, _LARGEST_PAGE, dec_hook=decode_hook))


def _checked(host: str, found: LayerImages) -> LayerImages:
    """Raise :class:`ProtocolViolation` for images whose names are invalid."""
    for image in found.images:
        try:
            Reference(host, image.repository, image.tag or None)
        except InvalidReference as error:
            raise ProtocolViolation(f"{host} names an invalid image: {error.message}") from error
    return found
