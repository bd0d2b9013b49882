"""``digestry index``: indexes, which list an image for each platform, put together and changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli.annotation_options import annotation_option, annotations_of
from digestry.cli.command_group import Group
from digestry.cli.image_location import local_option, locate
from digestry.cli.image_names import IMAGE
from digestry.cli.new_manifest import as_index, change, entry_digest, keep, new_name
from digestry.cli.timeout_options import timeout_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from digestry.cli.image_location import LocatedImage
    from digestry.cli.settings import Settings
    from digestry.client.session import Session
    from digestry.model.descriptor import Descriptor
    from digestry.model.reference import Reference


@click.group(cls=Group)
def index() -> None:
    """Put indexes together, in a registry or in the local store, and change them.

    An index lists an image for each platform; docker calls it a manifest list.
    """


@index.command()
@click.argument("name", metavar="NAME[:TAG]", type=IMAGE)
@click.argument("images", metavar="REF...", nargs=-1, required=True, type=IMAGE)
@annotation_option
@click.option("--docker", is_flag=True, help="Make docker's manifest list, and not an OCI index.")
@local_option
@timeout_option
def create(
    *, name: str, images: tuple[str, ...], annotation: tuple[str, ...], docker: bool, local: bool
) -> None:
    """Make an index of images, put it under NAME, and print its digest.

    Each REF is an image, or an index whose entries are taken, of NAME's repository. Platforms are those that
    the images' configs name. The same images make the same digest.
    """
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.model import manifest_editing, media_types
    from digestry.model.manifest import parse_manifest

    settings = load()
    target = new_name(settings, None, name)
    notes = annotations_of(annotation)
    kind = media_types.DOCKER_LIST if docker else media_types.OCI_INDEX
    with open_session(settings) as session:
        entries = _entries(settings, session, target, images, local=local)
        raw = manifest_editing.new_index(entries, media_type=kind, annotations=notes)
        keep(settings, session, parse_manifest(raw, kind), target, local=local)


@index.command()
@click.argument("name", metavar="REF", type=IMAGE)
@click.argument("images", metavar="REF...", nargs=-1, required=True, type=IMAGE)
@click.option("--tag", "-t", "target", metavar="NAME", help="The name of the new one.  [default: REF's tag]")
@local_option
@timeout_option
def add(*, name: str, images: tuple[str, ...], target: str | None, local: bool) -> None:
    """Add images to an index, put the new index under its tag, and print its digest.

    An image replaces the one for the same platform.
    """
    _change(name, target, add=images, remove=(), local=local)


@index.command()
@click.argument("name", metavar="REF", type=IMAGE)
@click.argument("entries", metavar="DIGEST|OS/ARCH...", nargs=-1, required=True)
@click.option("--tag", "-t", "target", metavar="NAME", help="The name of the new one.  [default: REF's tag]")
@local_option
@timeout_option
def remove(*, name: str, entries: tuple[str, ...], target: str | None, local: bool) -> None:
    """Remove entries from an index, put the new index under its tag, and print its digest.

    The images stay where they are. An entry is named by its platform or its digest; the first 7 or more
    digits are enough.
    """
    _change(name, target, add=(), remove=entries, local=local)


def _change(text: str, target: str | None, *, add: Sequence[str], remove: Sequence[str], local: bool) -> None:
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.model import manifest_editing

    settings = load()
    with open_session(settings) as session:

        def edited(found: LocatedImage, name: Reference) -> bytes:
            old = as_index(found.manifest)
            added = _entries(settings, session, name, add, local=local)
            gone = [entry_digest(old, entry) for entry in remove]
            return manifest_editing.entries_changed(old, add=added, remove=gone)

        change(settings, session, text, target, edited, local=local)


def _entries(
    settings: Settings, session: Session, target: Reference, images: Sequence[str], *, local: bool
) -> list[Descriptor]:
    """Return the entries for images. Raises :class:`InvalidReference` for one of another repository."""
    from digestry.errors import InvalidReference
    from digestry.images.index_entries import index_entries

    entries: list[Descriptor] = []
    for text in images:
        found = locate(settings, session, text, local=local)
        there = found.reference
        if not local and there is not None and there.repository_only() != target.repository_only():
            raise InvalidReference(
                f"{found.name} is not in {target.name}, and an index lists images of its own repository",
                hint=f"bring it there first: digestry pull {found.name}, tag and push it",
            )
        entries += index_entries(found.manifest, found.read_blob)
    return entries
