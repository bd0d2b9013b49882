"""The rows of images: each description once, with every digest that the image is known by.

Functions on a transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from digestry.catalog import dialect
from digestry.catalog.fleet_schema import fleet_images
from digestry.catalog.transactions import TransactionUndone
from digestry.errors import InvalidReference
from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.fleet import ClaimReport, ImageReport
from digestry.model.fleet_answers import FleetVerdict
from digestry.model.json_types import prepared
from digestry.model.reference import Reference

_TELLING: Final = {"index": 0, "manifest": 1, "unknown": 2, "config": 3}
"""Kinds of digests, the one that says most of an image first."""

_decoder: Final = msgspec.json.Decoder(prepared(ImageReport), dec_hook=decode_hook)


def encode(image: ImageReport) -> bytes:
    """Return the document of an image, by which equal ones are known."""
    return msgspec.json.encode(image, enc_hook=encode_hook)


def decode(document: str) -> ImageReport:
    """Return the image of a document."""
    return _decoder.decode(document)


def reference_of(image: ImageReport) -> Reference | None:
    """Return the name that an image was started by; None if it has none, or one that is no reference."""
    if image.reference is None:
        return None
    try:
        return Reference.parse(image.reference)
    except InvalidReference:
        return None


def claims_of(image: ImageReport) -> Iterator[ClaimReport]:
    """Yield all digests that an engine gave for an image, with their kinds."""
    yield from image.claims
    if image.platform_manifest is not None:
        yield ClaimReport(image.platform_manifest, "manifest")
    named = reference_of(image)
    if named is not None and named.digest is not None:
        yield ClaimReport(named.digest)
    if image.image_id is not None:
        # In containerd's store it is an index or a manifest.
        yield ClaimReport(image.image_id)


def store_images(
    connection: Connection, reports: Iterable[ImageReport], now: int
) -> tuple[dict[str, int], list[int]]:
    """Return the numbers of images' rows by their hashes, and which of them were made now."""
    documents = {hash_of(image): image for image in reports}
    if not documents:
        return {}, []
    found = _rows(connection, documents)
    missing = sorted(documents.keys() - found.keys())
    if not missing:
        return found, []
    rows = [_row(key, documents[key], now) for key in missing]
    connection.execute(dialect.of(connection).upserts.fleet_image, rows)
    found = _rows(connection, documents)
    if len(found) < len(documents):
        raise TransactionUndone("an image was removed while its run was recorded")
    add_digests(connection, {found[key]: _digests(documents[key]) for key in missing})
    return found, [found[key] for key in missing]


def hash_of(image: ImageReport) -> str:
    """Return the hash that an image's row has."""
    return hashlib.sha256(encode(image)).hexdigest()


def _rows(connection: Connection, documents: Mapping[str, ImageReport]) -> dict[str, int]:
    wanted = dialect.of(connection).bulk_keys([(key, "") for key in sorted(documents)], str)
    # Locked, so that none is pruned before its run is there.
    statement = (
        select(fleet_images.c.number, fleet_images.c.hash)
        .join_from(wanted.table, fleet_images, fleet_images.c.hash == wanted.first)
        .order_by(fleet_images.c.hash)
        .with_for_update(key_share=True, read=True, of=fleet_images)
    )
    return {row.hash: row.number for row in connection.execute(statement)}


def _row(key: str, image: ImageReport, now: int) -> dict[str, object]:
    named = reference_of(image)
    best = min(
        (claim for claim in claims_of(image)),
        key=lambda claim: (claim.rewritten, _TELLING[claim.kind]),
        default=None,
    )
    return {
        "hash": key,
        "document": encode(image).decode(),
        "reference": image.reference,
        "host": "" if named is None else named.host,
        "repository": "" if named is None else named.repository,
        "digest": None if best is None else str(best.digest),
        "kind": "" if best is None else best.kind,
        "home": "",
        "related_at": 0,
        "first_at": now,
        "state": "unjudged",
        "verdict": None,
        "judged_at": None,
    }


def _digests(image: ImageReport) -> dict[str, str]:
    found: dict[str, str] = {}
    for claim in claims_of(image):
        digest = str(claim.digest)
        if found.get(digest, "unknown") == "unknown":
            found[digest] = claim.kind
    return found


def add_digests(connection: Connection, digests: Mapping[int, Mapping[str, str]]) -> None:
    """Record by which digests, of which kinds, each image is known."""
    rows = [
        {"digest": digest, "image": number, "kind": kind}
        for number, known in sorted(digests.items())
        for digest, kind in sorted(known.items())
    ]
    if rows:
        connection.execute(dialect.of(connection).upserts.fleet_image_digest, rows)


_verdicts: Final = msgspec.json.Decoder(prepared(FleetVerdict), dec_hook=decode_hook)


def verdict_of(document: str | None, state: str) -> FleetVerdict:
    """Return the audit's judgement of an image, as it is stored."""
    if document is None:
        return msgspec.convert({"state": state}, prepared(FleetVerdict))
    return _verdicts.decode(document)
