"""``digestry unpack``: make a directory of the root file system of an image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from digestry.cli.image_location import platform_option
from digestry.cli.image_names import IMAGE
from digestry.cli.output import note, printable, say
from digestry.cli.timeout_options import transfer_timeout_option

_SHOWN: Final = 20


@click.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@click.argument("directory", metavar="DIRECTORY", type=click.Path(file_okay=False, path_type=Path))
@platform_option
@click.option("--remote", is_flag=True, help="Ask the registry, even if it is in the local store.")
@click.option(
    "--same-owner/--no-same-owner",
    "same_owner",
    default=None,
    help="Keep owners, set-uid bits, extended attributes and devices.  [default: as root]",
)
@transfer_timeout_option
def unpack(
    *, reference: str, directory: Path, platform: str | None, remote: bool, same_owner: bool | None
) -> None:
    """Make DIRECTORY, which must be new or empty, the root file system of an image.

    Its layers are put together: what a later layer deletes is not there. Paths and links never lead out of
    DIRECTORY. Nothing is there before every layer was unpacked and verified. Who is not root, or says
    --no-same-owner, gets files of their own, without set-uid bits, extended attributes and devices. The image
    is that of the local store, else of its registry.
    """
    from digestry.cli.image_location import stored_image
    from digestry.cli.settings import load
    from digestry.fsio import storage_errors
    from digestry.images.unpack import check_destination
    from digestry.images.unpack import unpack as unpacked

    settings = load()
    keeps = os.geteuid() == 0 if same_owner is None else same_owner
    with storage_errors("look at", directory):
        destination = directory.resolve()
    check_destination(destination)  # before anything is pulled
    with stored_image(settings, reference, platform, remote=remote) as (store, image):
        made = unpacked(store, image, destination, same_owner=keeps)
    for entry in made.skipped[:_SHOWN]:
        note(f"skipped {printable(os.fsdecode(entry.name))}: {printable(entry.reason)}")
    more = made.more_skipped + len(made.skipped[_SHOWN:])
    if more:
        note(f"skipped {more} more")
    note(f"{made.entries} {'entry' if made.entries == 1 else 'entries'}")
    say(str(image.digest))
