"""``digestry save``: write images of the local store to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli.output import note, printable

if TYPE_CHECKING:
    from typing import BinaryIO


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--output", "-o", metavar="FILE", help="Write to a file instead of standard output.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["docker-archive", "oci-archive"]),
    default="docker-archive",
    show_default=True,
    help="What `docker load` reads, or an OCI layout in a tar file, which holds indexes, too.",
)
@click.option(
    "--platform", metavar="OS/ARCH", help="The image of an index to save.  [default: this machine's]"
)
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
def save(
    *, names: tuple[str, ...], output: str | None, format_: str, platform: str | None, quiet: bool
) -> None:
    """Write images of the local store to a file that docker load, podman load and `load` read.

    NAME is one as `images` lists it. The file keeps each digest; an engine that has no containerd image
    store keeps the image ID alone.
    """
    from pathlib import Path

    from digestry.cli.progress import COPYING, watching
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load
    from digestry.copy.archive import ArchiveTarget, docker_name
    from digestry.copy.copy import CopyOptions, copy_images
    from digestry.copy.local import LocalSource
    from digestry.errors import InvalidReference
    from digestry.images.name_lookup import look_up
    from digestry.model.platform import Platform

    settings = load()
    store = open_store(settings)
    pairs: list[tuple[str | None, str | None]] = []
    for name in names:
        reference = look_up(store, name, settings.reference).reference
        if reference is None:
            raise InvalidReference(
                f"{name} has several names", hint="write the one that the file should have"
            )
        saved = str(reference) if reference.digest is None else None
        if saved is not None and format_ == "docker-archive":
            docker_name(saved)
        pairs.append((str(reference), saved))
    target = ArchiveTarget(
        Path(output or "-"),
        output or "standard output",
        for_docker=format_ == "docker-archive",
        file=None if output else _standard_output(),
    )
    try:
        options = CopyOptions(platforms=(Platform.chosen(platform),) if platform else ())
        with watching(quiet=quiet, words=COPYING) as observer:
            result = copy_images(
                LocalSource(store),
                target,
                pairs,
                options,
                observer=observer,
                tell=lambda text: note(printable(text)),
            )
    finally:
        target.close()
    for skipped in result.skipped:
        note(f"skipped {skipped.descriptor.digest}: {printable(skipped.reason)}")


def _standard_output() -> BinaryIO:
    import sys

    from digestry.errors import InvalidConfiguration

    if sys.stdout is None or sys.stdout.isatty():
        raise InvalidConfiguration("an image is not for a terminal", hint="write -o FILE, or redirect")
    return sys.stdout.buffer
