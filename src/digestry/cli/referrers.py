"""``digestry referrers``: list the referrers of an image: signatures, SBOMs, advisories, other artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from digestry.cli.image_location import platform_option
from digestry.cli.image_names import IMAGE
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import note
from digestry.cli.timeout_options import timeout_option

if TYPE_CHECKING:
    from digestry.client.repository import Repository
    from digestry.model.digest import Digest

_CREATED: Final = "org.opencontainers.image.created"
_COSIGN: Final = ("sig", "att", "sbom")

LISTING: Final = Listing(
    "referrers",
    "The manifests that refer to a digest as their subject, and the tags that cosign keeps for it.",
    (
        Column("digest", "digest", "Of the referrer."),
        Column("artifact_type", "text", "What it is; null if it does not say.", nullable=True),
        Column(
            "predicate_type",
            "text",
            "What is attested, as its annotations say; null if they do not.",
            nullable=True,
            heading="PREDICATE",
            longest=48,
        ),
        Column("size", "size", "Bytes of its manifest."),
        Column("created_at", "time", "When, as it says itself, or null.", nullable=True),
        Column("tag", "text", "The tag of cosign's that names it, or null.", nullable=True),
        Column("media_type", "text", "Of its manifest.", shown=False),
        Column("annotations", "object", "Its annotations.", shown=False),
        Column("subject", "digest", "The digest that it refers to.", shown=False),
    ),
)


@click.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@click.option("--artifact-type", metavar="TYPE", help="Those of this type only.")
@platform_option
@listing_options(LISTING)
@timeout_option
def referrers(*, reference: str, artifact_type: str | None, platform: str | None, view: View) -> None:
    """List what refers to an image: signatures, SBOMs, advisories and other artifacts.

    REF is REPO:TAG or REPO@DIGEST. For an index, it lists what refers to the index; with --platform, what
    refers to that image of it. If the registry has no referrers API, the fallback tag is used.

    JSON: a list of objects with digest, artifact_type, predicate_type, size, created_at, tag, media_type,
    annotations, subject.
    """
    from digestry.advisories.attachment_kinds import announced_predicate_type
    from digestry.cli.image_location import locate
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.model.platform import Platform

    settings = load()
    place = Platform.chosen(platform) if platform else None
    with open_session(settings) as session:
        found = locate(settings, session, reference, local=False)
        assert found.reference is not None  # noqa: S101 - a registry's has a name
        repository = session.repository(found.reference)
        digest = found.manifest.digest if place is None else found.child(place).digest
        if found.reference.digest != digest:
            note(f"{found.name} is {digest}")
        rows: list[dict[str, object]] = [
            {
                "digest": referrer.digest,
                "artifact_type": referrer.artifact_type,
                "predicate_type": announced_predicate_type(referrer.annotations) or None,
                "size": referrer.size,
                "created_at": (referrer.annotations or {}).get(_CREATED),
                "tag": None,
                "media_type": referrer.media_type,
                "annotations": referrer.annotations or {},
                "subject": digest,
            }
            for referrer in repository.referrers(digest, artifact_type)
        ]
        if artifact_type is None:
            rows += _of_cosign(repository, digest)
    view.show(rows)


def _of_cosign(repository: Repository, digest: Digest) -> list[dict[str, object]]:
    """Return a row for each of the tags that cosign keeps for a digest."""
    from digestry.errors import RemoteNotFound
    from digestry.model.reference import LONGEST_TAG

    rows: list[dict[str, object]] = []
    for kind in _COSIGN:
        tag = f"{digest.algorithm}-{digest.encoded}.{kind}"
        if len(tag) > LONGEST_TAG:
            continue  # no registry has such a tag
        try:
            found = repository.resolve(tag)
        except RemoteNotFound:
            continue
        rows.append({
            "digest": found.digest,
            "artifact_type": None,
            "predicate_type": None,
            "size": found.size,
            "created_at": None,
            "tag": tag,
            "media_type": found.media_type,
            "annotations": {},
            "subject": digest,
        })  # fmt: skip
    return rows
