"""``digestry diff``: show what changed between two images."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import click

from digestry.cli import exit_codes
from digestry.cli.image_names import IMAGE
from digestry.cli.output import json_document, json_option, note, printable
from digestry.cli.timeout_options import timeout_option
from digestry.model.image_comparison import ComparedContent, compare

if TYPE_CHECKING:
    from digestry.cli.image_location import LocatedImage
    from digestry.cli.settings import Settings
    from digestry.client.session import Session
    from digestry.model.descriptor import Descriptor
    from digestry.model.digest import Digest
    from digestry.model.manifest import Image, Index

_LOOKED_AT: Final = 100
"""Entries of the journal: a tag that is deleted and pushed again and again has one digest in many of them."""


@click.command()
@click.argument("images", metavar="[OLD] NEW", nargs=-1, required=True, type=IMAGE)
@click.option(
    "--platform", metavar="OS/ARCH", help="The images of indexes to compare.  [default: those that differ]"
)
@click.option("--remote", is_flag=True, help="Ask registries, even for what is in the local store.")
@click.option("--exit-code", is_flag=True, help="End with exit code 1 if the two have different digests.")
@click.option("--no-trunc", is_flag=True, help="Whole digests, values and commands.")
@json_option
@timeout_option
def diff(
    *,
    images: tuple[str, ...],
    platform: str | None,
    remote: bool,
    exit_code: bool,
    no_trunc: bool,
    as_json: bool,
) -> None:
    """Show what changed between two images: platforms, settings, environment, labels, steps, layers.

    OLD and NEW are names as `inspect` has them, of the local store or else of a registry, or places as `copy`
    has them, such as oci:DIR:NAME. Without OLD, it is the digest that the tag NEW had before, by the journal
    of its registry. Of indexes, the images of one platform are compared: this machine's if they differ, else
    the first that do. Exit code 4 if the images to compare are not there.

    JSON: an object with old and new (digests), annotations (a list of name, old, new), platforms (a list of
    platform, old, new), others, image, problem (why image is null), old_name, new_name, same. `digestry
    schema diff` describes image.
    """
    from digestry.cli import diff_output
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.model.platform import Platform

    if len(images) > 2:
        raise click.UsageError("Give two images, or one tag that has moved.")
    settings = load()
    with open_session(settings) as session, ExitStack() as opened:
        old, new = images if len(images) == 2 else (_before(settings, session, images[0]), images[0])
        sides = [
            _open(settings, session, opened, text, remote=remote or len(images) == 1) for text in (old, new)
        ]
        found = compare(sides[0][1], sides[1][1], platform=platform, preferred=Platform.of_host())
    document = diff_output.Document(
        old=found.old,
        new=found.new,
        annotations=found.annotations,
        platforms=found.platforms,
        others=found.others,
        image=found.image,
        problem=found.problem,
        old_name=sides[0][0],
        new_name=sides[1][0],
        same=found.old == found.new,
    )
    if as_json:
        json_document(document)
    else:
        diff_output.write(document, whole=no_trunc)
    if found.problem is not None:
        note(printable(f"digestry: nothing more can be compared: {found.problem}"))
        click.get_current_context().exit(exit_codes.NOT_FOUND)
    if exit_code and not document.same:
        click.get_current_context().exit(exit_codes.FINDINGS)


def _before(settings: Settings, session: Session, text: str) -> str:
    """Return the name of what a tag pointed to before its last move. Raises :class:`NotFound`."""
    from digestry.errors import InvalidReference, NotFound, RemoteError

    wanted = settings.reference(text)
    if wanted.tag is None or wanted.digest is not None:
        raise InvalidReference(f"{text} is not a tag", hint="write OLD and NEW, or REPO:TAG")
    remote = session.repository(wanted)
    now = remote.resolve(wanted.tag).digest
    events = remote.journal(wanted.tag, limit=_LOOKED_AT)
    if events is None:
        events = remote.tag_history(wanted.tag)
    if events is None:
        raise RemoteError(f"{wanted.host} keeps no history of its tags", hint="write OLD and NEW")
    earlier: list[Digest | None] = [
        digest for event in events for digest in (event.to_digest, event.from_digest)
    ]
    before = next((digest for digest in earlier if digest is not None and digest != now), None)
    if before is None:
        raise NotFound(f"{wanted} has always been {now}", hint="write OLD and NEW")
    return str(wanted.with_digest(before))


def _open(
    settings: Settings, session: Session, opened: ExitStack, text: str, *, remote: bool
) -> tuple[str, ComparedContent]:
    """Return the name and the content of an image: of a place as `copy` has it, else as `inspect` has it."""
    from digestry.cli.image_location import locate_anywhere
    from digestry.copy.location import TRANSPORTS, parse_location

    head, colon, _ = text.partition(":")
    if not colon or head not in TRANSPORTS:
        located = locate_anywhere(settings, session, text, remote=remote)
        return located.name, ComparedContent(located.manifest, _Located(located))
    from digestry.cli.sessions import open_surroundings
    from digestry.copy.places import open_source

    around = open_surroundings(settings, session)
    place = open_source(parse_location(text, around.read), around, opened)
    source = place.source
    return text, ComparedContent(source.manifest(source.resolve(place.name)), source)


class _Located:
    """The content of an image of a registry or of the local store."""

    def __init__(self, image: LocatedImage) -> None:
        self._image = image

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        from digestry.images.store import ImageStore

        source = self._image.source
        if isinstance(source, ImageStore):
            return source.manifest(descriptor)
        return source.pull_manifest(str(descriptor.digest))

    def read_blob(self, descriptor: Descriptor) -> bytes:
        return self._image.read_blob(descriptor)
