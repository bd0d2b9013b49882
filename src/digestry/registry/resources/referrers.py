"""Referrers: ``/v2/<name>/referrers/<digest>`` (distribution-spec, "Listing Referrers")."""

from __future__ import annotations

from typing import Final

from digestry.catalog.manifest_rows import StoredManifest
from digestry.catalog.referrer_pages import Cursor
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.error_responses import bad_parameter
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service

_PAGE: Final = 500
"""Referrers in one answer, at most: less if their annotations are large (catalog/referrer_pages.py)."""


def describe(manifest: StoredManifest) -> dict[str, object]:
    """Return a referrer's descriptor, with its artifact type and its annotations."""
    descriptor: dict[str, object] = {
        "mediaType": manifest.media_type,
        "digest": str(manifest.digest),
        "size": manifest.size,
    }
    if manifest.artifact_type is not None:
        descriptor["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        descriptor["annotations"] = manifest.annotations
    return descriptor


def index(descriptors: list[dict[str, object]]) -> dict[str, object]:
    """Return an image index of ``descriptors``."""
    return {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": descriptors}


async def list_referrers(service: Service, exchange: Exchange, name: str, digest_text: str) -> None:
    """Answer with the referrers of a digest, newest first: some readers take only the first advisory.

    An unknown repository has none: this is never a 404.
    """
    subject = Digest.parse(digest_text)
    artifact_type = exchange.parameter("artifactType") or None
    page = await service.executors.run(
        service.stores.queries.referrers,
        name,
        subject,
        artifact_type=artifact_type,
        after=_cursor(exchange.parameter("last")),
        limit=_PAGE,
    )
    headers = []
    if artifact_type is not None:
        headers.append(("OCI-Filters-Applied", "artifactType"))
    if page.more:
        last = page.rows[-1]
        headers.append(exchange.next_page(last=f"{last.pushed_at}.{last.digest}"))
    body = index([describe(row) for row in page.rows])
    await exchange.json(body, media_type=media_types.OCI_INDEX, headers=headers)


def _cursor(text: str | None) -> Cursor | None:
    """Read a cursor that :func:`list_referrers` wrote. Raises :class:`ErrorResponse` for anything else."""
    if not text:
        return None
    time, _, digest = text.partition(".")
    if not (time.isascii() and time.isdigit() and len(time) < 19):
        raise bad_parameter("last", text, "what a Link of this list had is required")
    return Cursor(int(time), str(Digest.parse(digest)))
