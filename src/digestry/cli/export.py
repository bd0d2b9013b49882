"""``digestry export``: write the root file system of an image as a tar archive."""

from __future__ import annotations

from pathlib import Path

import click

from digestry.cli.image_location import platform_option
from digestry.cli.image_names import IMAGE
from digestry.cli.output import refuse_terminal, write_bytes
from digestry.cli.timeout_options import transfer_timeout_option


@click.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A file to write.")
@platform_option
@click.option("--remote", is_flag=True, help="Ask the registry, even if it is in the local store.")
@transfer_timeout_option
def export(*, reference: str, output: Path | None, platform: str | None, remote: bool) -> None:
    """Write the root file system of an image as a tar archive, to standard output or a file.

    Its layers are put together: what a later layer deletes is not in it. Owners, modes, times, extended
    attributes and devices stay as they are. The image is that of the local store, else of its registry.
    """
    from digestry.cli.image_location import stored_image
    from digestry.cli.settings import load
    from digestry.images.export import export as exported

    settings = load()
    refuse_terminal(output)
    with stored_image(settings, reference, platform, remote=remote) as (store, image):
        write_bytes(exported(store, image), output)
