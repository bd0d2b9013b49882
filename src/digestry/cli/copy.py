"""``digestry copy``: copy images from any place to any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli.age_options import min_age_option
from digestry.cli.log_options import verify_log_option
from digestry.cli.output import human_size, json_document, json_option, note, printable, say, table
from digestry.cli.timeout_options import transfer_timeout_option

if TYPE_CHECKING:
    from digestry.cli import documents
    from digestry.copy.copy import CopiedImage, CopyResult
    from digestry.copy.location import Location


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option(
    "--platform",
    "platforms",
    metavar="OS/ARCH",
    multiple=True,
    help="An image of an index to copy; may be given several times.  [default: all that DST can hold]",
)
@click.option("--all-platforms", is_flag=True, help="Copy all images of an index, or fail.")
@click.option("--all-tags", "-a", is_flag=True, help="Copy all tags of the repository SRC.")
@click.option(
    "--tags", metavar="PATTERN", multiple=True, help="Copy the tags that match, such as '1.*'; repeatable."
)
@click.option(
    "--referrers",
    is_flag=True,
    help="Copy what refers to the images, too: signatures, SBOMs, advisories, and cosign's tags.",
)
@verify_log_option
@min_age_option()
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and copy nothing.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Print the digests only.")
@transfer_timeout_option
def copy(
    *,
    source: str,
    target: str,
    platforms: tuple[str, ...],
    all_platforms: bool,
    all_tags: bool,
    tags: tuple[str, ...],
    referrers: bool,
    verify_log: bool,
    min_age: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Copy images from SRC to DST; only what DST lacks is sent, and every byte is verified.

    \b
    SRC and DST are each one of
      REF or docker://REF       an image of a registry
      local:NAME                an image of the local store
      oci:DIR[:NAME]            an OCI image layout, or oci:DIR@DIGEST
      oci-archive:FILE[:NAME]   such a layout in a tar file
      docker-archive:FILE[:REF] what docker save writes, and docker load reads
      docker-daemon:REF         the docker engine's images
      containers-storage:REF    podman's images

    Digests stay as they are, unless one platform is taken out of an index. A copy that was interrupted, even
    killed, continues where it stopped when it is called again.

    JSON: source, target, dry_run, images (a list of objects with name, digest, source_digest,
    previous_digest, referrers), blobs_sent, bytes_sent, blobs_mounted, blobs_present, skipped.
    """
    from digestry.cli.progress import COPYING, watching
    from digestry.cli.sessions import open_session, open_surroundings
    from digestry.cli.settings import load
    from digestry.copy.copy import CopyOptions
    from digestry.copy.location import parse_location
    from digestry.copy.request import CopyRequest, run_copy
    from digestry.errors import InvalidConfiguration
    from digestry.model.platform import Platform

    if platforms and all_platforms:
        raise InvalidConfiguration("--platform and --all-platforms exclude each other")
    settings = load()
    with open_session(settings) as session, watching(quiet=quiet or dry_run, words=COPYING) as observer:
        around = open_surroundings(settings, session, verify_log=verify_log)
        request = CopyRequest(
            parse_location(source, around.read),
            parse_location(target, around.read),
            all_tags,
            tags,
            min_age,
        )
        if all_platforms and request.target.transport in _WITHOUT_INDEXES:
            raise InvalidConfiguration(
                f"{request.target.transport} holds one image for a name, and no index",
                hint="copy to oci-archive:FILE, or choose with --platform",
            )
        options = CopyOptions(
            tuple(Platform.chosen(text) for text in platforms), referrers, dry_run, session.options.parallel
        )
        result = run_copy(
            request, around, options, observer=observer, tell=lambda text: note(printable(text))
        )
    for skipped in result.skipped:
        note(f"skipped {skipped.descriptor.digest}: {printable(skipped.reason)}")
    if as_json:
        _print_json(request.source, request.target, result, dry_run)
    elif quiet:
        for digest in dict.fromkeys(image.digest for image in result.images):
            say(str(digest))
    else:
        _print(request.target, result, dry_run)


_WITHOUT_INDEXES = frozenset({"docker-archive", "docker-daemon", "containers-storage"})


def _print(target: Location, result: CopyResult, dry_run: bool) -> None:
    if len(result.images) == 1:
        (image,) = result.images
        say(f"Digest: {image.digest}")
        say(f"Status: {_status(image, dry_run)}")
        say(printable(target.text))
    else:
        table(
            ["NAME", "DIGEST", "STATUS"],
            [[image.name or "-", image.digest.short, _state(image, dry_run)] for image in result.images],
        )
    kept = [f"{len(result.present)} were there"] if result.present else []
    kept += [f"{len(result.mounted)} mounted"] if result.mounted else []
    sent = f"{_count(len(result.sent))}, {human_size(result.bytes_sent)}"
    summary = f"{'would copy' if dry_run else 'copied'} {sent}{'; ' if kept else ''}{', '.join(kept)}"
    note(summary)


def _count(number: int) -> str:
    return f"{number} blob" if number == 1 else f"{number} blobs"


def _status(image: CopiedImage, dry_run: bool) -> str:
    name = image.name or "the image"
    if image.before is not None and image.before != image.digest:
        return f"{name} {'would move' if dry_run else 'has moved'}, from {image.before}"
    if image.before is not None:
        return f"{name} was already there, with this digest"
    return f"{name} {'would be' if dry_run else 'is'} new" if image.name else "copied"


def _state(image: CopiedImage, dry_run: bool) -> str:
    """Return what becomes of an image, in a table that has its name beside."""
    if image.before is None:
        return ("would be new" if dry_run else "new") if image.name else "copied"
    if image.before == image.digest:
        return "already there"
    return f"{'would move' if dry_run else 'moved'}, from {image.before.short}"


def _print_json(source: Location, target: Location, result: CopyResult, dry_run: bool) -> None:
    from digestry.cli import documents

    json_document(
        documents.Copy(
            source=source.text,
            target=target.text,
            dry_run=dry_run,
            images=[copied_document(image) for image in result.images],
            blobs_sent=len(result.sent),
            bytes_sent=result.bytes_sent,
            blobs_mounted=len(result.mounted),
            blobs_present=len(result.present),
            skipped=[documents.SkippedBlob(one.descriptor.digest, one.reason) for one in result.skipped],
        )
    )


def copied_document(image: CopiedImage) -> documents.CopiedImage:
    """Return an image as the JSON of `copy` and `sync` has it."""
    from digestry.cli import documents

    return documents.CopiedImage(image.name, image.digest, image.source, image.before, image.referrers)
