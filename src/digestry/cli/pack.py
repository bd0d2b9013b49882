"""``digestry pack``: make an image from a directory or a tar archive, or an index of several."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from digestry.cli.annotation_options import annotation_option, annotations_of
from digestry.cli.image_names import IMAGE
from digestry.cli.output import human_size, note, say
from digestry.cli.timeout_options import transfer_timeout_option

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.images.layer_writer import Compression
    from digestry.images.pack import Packed
    from digestry.images.recipe import Recipe
    from digestry.images.store import ImageStore
    from digestry.model.descriptor import Descriptor
    from digestry.model.manifest import Index
    from digestry.model.platform import Platform
    from digestry.model.reference import Reference


@click.command()
@click.argument(
    "source", metavar="[DIRECTORY|TAR|-]", required=False, type=click.Path(allow_dash=True, path_type=str)
)
@click.option("--tag", "-t", "name", required=True, metavar="NAME[:TAG]", help="The image's name.")
@click.option("--push", "push_", is_flag=True, help="Push it when it is made.")
@click.option(
    "--base", metavar="REF", type=IMAGE, help="An image to build upon, of the local store, else pulled."
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH[=SOURCE]",
    help="What it runs on: the base's platform or this machine's, unless given. As OS/ARCH=SOURCE, once for "
    "each of several platforms, it makes an index of their images.",
)
@click.option(
    "--index", "into_index", is_flag=True, help="Add it to the index that NAME is, or make NAME an index."
)
@click.option("--entrypoint", metavar="WORDS", help='The program: words as in a shell, or ["JSON", "list"].')
@click.option("--cmd", "command", metavar="WORDS", help="Its arguments, written as the entrypoint is.")
@click.option(
    "--env",
    "-e",
    "environment",
    multiple=True,
    metavar="NAME=VALUE",
    help="A variable that it starts with. Repeatable.",
)
@click.option("--label", "-l", "labels", multiple=True, metavar="NAME=VALUE", help="A label. Repeatable.")
@annotation_option
@click.option("--workdir", "-w", default="", metavar="PATH", help="The directory it starts in.")
@click.option("--user", "-u", default="", metavar="USER[:GROUP]", help="Who it runs as.")
@click.option(
    "--expose",
    "--port",
    "-p",
    "ports",
    multiple=True,
    metavar="PORT[/PROTOCOL]",
    help="A port that it listens on. Repeatable.",
)
@click.option("--health-cmd", metavar="WORDS", help="A program of it that fails while it is not healthy.")
@click.option(
    "--compress",
    type=click.Choice(["stored", "gzip", "zstd", "none"]),
    default="stored",
    show_default=True,
    help="How the layer is written. stored: gzip of the bytes as they are, the same everywhere. "
    "gzip, zstd: smaller, on all cores, but the bytes, and so the digest, depend on the version of zlib "
    "or zstd. none: a tar archive.",
)
@click.option("--level", type=int, metavar="NUMBER", help="Of gzip 1 to 9, of zstd 1 to 19.  [default: 6; 3]")
@click.option("--quiet", "-q", is_flag=True, help="Print the digest only.")
@transfer_timeout_option
def pack(
    *,
    source: str | None,
    name: str,
    push_: bool,
    base: str | None,
    platforms: tuple[str, ...],
    into_index: bool,
    entrypoint: str | None,
    command: str | None,
    environment: tuple[str, ...],
    labels: tuple[str, ...],
    annotation: tuple[str, ...],
    workdir: str,
    user: str,
    ports: tuple[str, ...],
    health_cmd: str | None,
    compress: Compression,
    level: int | None,
    quiet: bool,
) -> None:
    """Build an image from files: no daemon, no root, same files same digest.

    DIRECTORY becomes the root file system of an image with one layer, in the local store, or a layer upon
    those of --base. Owners, times, umask and the order of the file system do not matter; everything is
    dated SOURCE_DATE_EPOCH (seconds since 1970), or 0 without it.

    A TAR archive, also compressed, and also from standard input (-), becomes the layer as it is, with its
    owners, modes and times. Each of its entries is checked first.
    """
    from digestry.cli.push import send
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference
    from digestry.images.layer_writer import check_compression
    from digestry.images.pack import pack_index
    from digestry.images.recipe import Recipe
    from digestry.images.tar_writer import source_date_epoch
    from digestry.model.platform import Platform

    settings = load()
    reference = settings.reference(name).or_latest()
    if reference.digest is not None:
        raise InvalidReference(f"{reference} has a digest, which cannot be chosen", hint="name it NAME:TAG")
    check_compression(compress, level)
    wanted = _sources(source, platforms)
    recipe = Recipe(
        platform=Platform.of_host(),
        time=source_date_epoch(os.environ.get("SOURCE_DATE_EPOCH")),
        entrypoint=_words(entrypoint, "--entrypoint"),
        command=_words(command, "--cmd"),
        environment=environment,
        labels=tuple(_pair(label) for label in labels),
        working_directory=workdir,
        user=user,
        ports=ports,
        compression=compress,
        level=level,
        annotations=tuple(annotations_of(annotation).items()),
        health_command=_words(health_cmd, "--health-cmd"),
    )
    store = open_store(settings)
    with store.adding():
        old = _old_index(store, reference) if into_index else None
        images = [_packed(settings, store, recipe, one, base, quiet=quiet) for one in wanted]
        made: Descriptor = images[0].manifest
        if into_index or len(images) > 1:
            made = pack_index(images, store.blobs, lambda blob: store.blobs.read(blob.digest), old=old)
        before = store.point(reference, made)
    if not quiet and before is not None and before != made.digest:
        note(f"{reference} pointed to {before} before")
    if push_:
        send(settings, reference, quiet=quiet)
    elif quiet:
        say(str(made.digest))
    else:
        say(f"Digest: {made.digest}")
        say(str(reference))


def _sources(source: str | None, platforms: tuple[str, ...]) -> list[tuple[str, Platform | None]]:
    """Return what is packed, each with its platform. Raises :class:`click.UsageError`."""
    from digestry.model.platform import Platform

    several = [one for one in platforms if "=" in one]
    if not several:
        if source is None:
            raise click.UsageError("Missing argument '[DIRECTORY|TAR|-]'.")
        if len(platforms) > 1:
            raise click.UsageError(
                "Several platforms need a directory each: --platform OS/ARCH=DIRECTORY for each of them."
            )
        return [(source, Platform.chosen(platforms[0]) if platforms else None)]
    if source is not None or len(several) != len(platforms):
        raise click.UsageError(
            "With --platform OS/ARCH=SOURCE, every platform has its own, and no other is given."
        )
    found = [one.partition("=") for one in several]
    if sum(path == "-" for _, _, path in found) > 1:
        raise click.UsageError("Only one archive can come from standard input.")
    return [(path, Platform.chosen(platform)) for platform, _, path in found]


def _old_index(store: ImageStore, reference: Reference) -> Index | None:
    """Return the index that ``reference`` means in the store; None if it means nothing there."""
    from digestry.cli.new_manifest import as_index
    from digestry.errors import NotFound

    try:
        found = store.find(reference)
    except NotFound:
        return None
    return as_index(store.manifest(found))


def _packed(
    settings: Settings,
    store: ImageStore,
    recipe: Recipe,
    wanted: tuple[str, Platform | None],
    base: str | None,
    *,
    quiet: bool,
) -> Packed:
    import dataclasses

    from digestry.cli.base_image import find_base
    from digestry.images import pack as packing

    source, platform = wanted
    below = None
    if base is not None:
        below = find_base(settings, store, base, platform, quiet=quiet)
        stated = below.config.platform
        platform = platform or (stated if stated.is_stated else None)
    made_of = recipe if platform is None else dataclasses.replace(recipe, platform=platform)
    files: Path | BinaryIO = Path(source)
    if source == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError(
                "An archive is read from standard input, which is a terminal: pipe one in."
            )
        files = sys.stdin.buffer
    made = packing.pack(files, made_of, store.blobs, base=below)
    if not quiet:
        noun = "entry" if made.entries == 1 else "entries"
        of = f"{made_of.platform}: " if platform is not None else ""
        note(f"{of}{made.entries} {noun}, {human_size(made.layer.size)}")
    return made


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
