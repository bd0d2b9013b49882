"""``digestry manifest``: the exact bytes of manifests and indexes, and new ones with other annotations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli.annotation_options import annotation_changes, annotation_options
from digestry.cli.command_group import Group
from digestry.cli.image_location import local_option, locate, platform_option
from digestry.cli.image_names import IMAGE
from digestry.cli.new_manifest import as_index, change, entry_digest, keep
from digestry.cli.output import write_json
from digestry.cli.timeout_options import timeout_option

if TYPE_CHECKING:
    from digestry.cli.image_location import LocatedImage
    from digestry.model.reference import Reference


@click.group(cls=Group)
def manifest() -> None:
    """Get, put and annotate manifests and indexes."""


@manifest.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@platform_option
@local_option
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A file to write.")
@timeout_option
def get(*, reference: str, platform: str | None, local: bool, output: Path | None) -> None:
    """Print the exact bytes of a manifest or index, verified.

    REF is REPO:TAG or REPO@DIGEST (the first 7 or more digits are enough). The output is JSON as it is kept:
    its hash is the digest. A terminal gets unsafe characters of it escaped.
    """
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.model.platform import Platform

    settings = load()
    place = Platform.chosen(platform) if platform else None
    with open_session(settings) as session:
        found = locate(settings, session, reference, local=local)
        chosen = found.manifest if place is None else found.child(place)
    write_json(chosen.raw, output)


@manifest.command()
@click.argument("reference", metavar="REPO[:TAG]", type=IMAGE)
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--media-type", metavar="TYPE", help="Its media type, if the document does not say it.")
@local_option
@timeout_option
def put(*, reference: str, file: object, media_type: str | None, local: bool) -> None:
    """Put a manifest or index under a tag, and print its digest. FILE is - for standard input.

    The bytes are sent unchanged. The repository must have the content that they list already: digestry
    blob put. REPO alone, or REPO@DIGEST, puts it under its digest, without a tag.
    """
    from typing import BinaryIO, cast

    from digestry.blobs.verify import wrong_hash
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.client.manifests import LARGEST_MANIFEST
    from digestry.errors import TooLarge
    from digestry.model.manifest import parse_manifest

    settings = load()
    wanted = settings.reference(reference)
    raw = cast("BinaryIO", file).read(LARGEST_MANIFEST + 1)
    if len(raw) > LARGEST_MANIFEST:
        raise TooLarge(f"the manifest has more than {LARGEST_MANIFEST} bytes", limit=LARGEST_MANIFEST)
    parsed = parse_manifest(raw, media_type, algorithm=wanted.digest.algorithm if wanted.digest else "sha256")
    if wanted.digest not in {None, parsed.digest}:
        raise wrong_hash(wanted.digest, parsed.digest)
    with open_session(settings) as session:
        keep(settings, session, parsed, wanted, local=local)


@manifest.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@annotation_options
@click.option("--tag", "-t", "target", metavar="NAME", help="The name of the new one.  [default: REF's tag]")
@click.option("--entry", metavar="DIGEST|OS/ARCH", help="Change this entry of an index, and not the index.")
@click.option("--set-platform", metavar="OS/ARCH", help="The platform of the entry.")
@local_option
@timeout_option
def annotate(
    *,
    reference: str,
    annotation: tuple[str, ...],
    remove_annotation: tuple[str, ...],
    target: str | None,
    entry: str | None,
    set_platform: str | None,
    local: bool,
) -> None:
    """Make a manifest or index with other annotations, put it under REF's tag, and print its digest.

    The digest changes: signatures and other referrers stay with the old one. Everything else in the
    manifest stays as it is.
    """
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.errors import InvalidConfiguration
    from digestry.model import manifest_editing
    from digestry.model.platform import Platform

    settings = load()
    changes = annotation_changes(annotation, remove_annotation)
    place = Platform.chosen(set_platform) if set_platform else None
    if not changes and place is None:
        raise click.UsageError("Nothing to change: give --annotation or --remove-annotation.")
    if place is not None and entry is None:
        raise click.UsageError("--set-platform needs --entry.")

    def edited(found: LocatedImage, _: Reference) -> bytes:
        old = found.manifest
        if entry is None:
            return manifest_editing.annotated(old, changes)
        if not old.is_index:
            raise InvalidConfiguration(f"{found.name} is an image, which has no entries")
        digest = entry_digest(old, entry)
        return manifest_editing.entry_changed(as_index(old), digest, changes, place)

    with open_session(settings) as session:
        change(settings, session, reference, target, edited, local=local)
