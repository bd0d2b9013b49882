"""``digestry pack``: make an image from a directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli.output import human_size, note, say
from digestry.cli.timeout_options import transfer_timeout_option

if TYPE_CHECKING:
    from digestry.images.pack import Compression


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--tag", "-t", "name", required=True, metavar="NAME[:TAG]", help="The image's name.")
@click.option("--push", "push_", is_flag=True, help="Push it when it is made.")
@click.option("--platform", metavar="OS/ARCH", help="What it runs on.  [default: this machine's]")
@click.option("--entrypoint", metavar="WORDS", help='The program: words as in a shell, or ["JSON", "list"].')
@click.option("--cmd", "command", metavar="WORDS", help="Its arguments, written as the entrypoint is.")
@click.option("--env", "-e", "environment", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--label", "-l", "labels", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--workdir", "-w", default="", metavar="PATH", help="The directory it starts in.")
@click.option("--user", "-u", default="", metavar="USER[:GROUP]", help="Who it runs as.")
@click.option("--expose", "ports", multiple=True, metavar="PORT[/PROTOCOL]", help="Repeatable.")
@click.option(
    "--compress",
    type=click.Choice(["stored", "gzip", "none"]),
    default="stored",
    show_default=True,
    help="How the layer is written. stored: gzip of the bytes as they are, the same everywhere. "
    "gzip: smaller, but its bytes, and so the digest, depend on the build of zlib. none: a tar archive.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print the digest only.")
@transfer_timeout_option
def pack(
    *,
    directory: Path,
    name: str,
    push_: bool,
    platform: str | None,
    entrypoint: str | None,
    command: str | None,
    environment: tuple[str, ...],
    labels: tuple[str, ...],
    workdir: str,
    user: str,
    ports: tuple[str, ...],
    compress: Compression,
    quiet: bool,
) -> None:
    """Build an image from DIRECTORY: no daemon, no root, same files same digest.

    DIRECTORY becomes the root file system of an image with one layer, in the local store. Owners,
    times, umask and the order of the file system do not matter; everything is dated
    SOURCE_DATE_EPOCH (seconds since 1970), or 0 without it.
    """
    from digestry.cli.push import send
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference
    from digestry.images import pack as packing
    from digestry.images.tar_writer import source_date_epoch
    from digestry.model.platform import Platform

    settings = load()
    reference = settings.reference(name).or_latest()
    if reference.digest is not None:
        raise InvalidReference(f"{reference} has a digest, which nobody can choose", hint="name it NAME:TAG")
    recipe = packing.Recipe(
        platform=Platform.parse(platform) if platform else Platform.of_host(),
        time=source_date_epoch(os.environ.get("SOURCE_DATE_EPOCH")),
        entrypoint=_words(entrypoint, "--entrypoint"),
        command=_words(command, "--cmd"),
        environment=environment,
        labels=tuple(_pair(label) for label in labels),
        working_directory=workdir,
        user=user,
        ports=ports,
        compression=compress,
    )
    store = open_store(settings)
    with store.adding():
        packed = packing.pack(directory, recipe, store.blobs)
        before = store.point(reference, packed.manifest)
    if not quiet:
        noun = "entry" if packed.entries == 1 else "entries"
        note(f"{packed.entries} {noun}, {human_size(packed.layer.size)}")
        if before is not None and before != packed.manifest.digest:
            note(f"{reference} pointed to {before} before")
    if push_:
        send(settings, reference, quiet=quiet)
    elif quiet:
        say(str(packed.manifest.digest))
    else:
        say(f"Digest: {packed.manifest.digest}")
        say(str(reference))


def _words(text: str | None, option: str) -> tuple[str, ...]:
    if not text:
        return ()
    if text.startswith("["):
        import msgspec

        try:
            return tuple(msgspec.json.decode(text, type=list[str]))
        except msgspec.DecodeError as error:
            raise click.BadParameter(f"is not a JSON list of strings: {error}", param_hint=option) from error
    import shlex

    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise click.BadParameter(f"{error}: {text}", param_hint=option) from error


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--label")
    return key, value
