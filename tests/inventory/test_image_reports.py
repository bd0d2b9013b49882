"""Images as agents report them."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from digestry.inventory.image_reports import as_facts, as_report
from digestry.inventory.observation import Abbreviation, Claim, ImageFacts
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference

DIGEST = Digest.parse("sha256:" + "ab" * 32)
REPOSITORY = Reference.parse("registry.example:5000/golftrack")
IMAGE = ImageFacts(
    reference="registry.example:5000/golftrack:1.5",
    claims=(
        Claim(
            DIGEST,
            "index",
            Reference.parse("registry.example:5000/golftrack"),
            "RepoDigests",
            "repo-digest",
            True,
        ),
        Claim(DIGEST, "unknown", None, "ImageID", "image-id", obtained=False, rewritten=True),
    ),
    image_id=DIGEST,
    platform_manifest=DIGEST,
    platform=Platform("amd64", "linux"),
    platform_assumed=True,
    registry_named=False,
    abbreviations=(Abbreviation("ab" * 8, "ps", "image-id"),),
)


def test_an_image_that_is_reported_is_the_one_that_was_seen() -> None:
    assert as_facts(as_report(IMAGE)) == IMAGE
    assert as_facts(as_report(ImageFacts(None))) == ImageFacts(None)


def test_a_repository_that_is_not_a_reference_counts_as_none() -> None:
    report = as_report(replace(IMAGE, claims=IMAGE.claims[1:]))
    claim = structs.replace(report.claims[0], repository="NOT A REFERENCE")
    assert as_facts(structs.replace(report, claims=(claim,))).claims == IMAGE.claims[1:]
