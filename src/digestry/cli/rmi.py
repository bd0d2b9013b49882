"""``digestry rmi``: remove names, and unreferenced content, from the local store."""

from __future__ import annotations

import click

from digestry.cli.image_names import LOCAL_IMAGE
from digestry.cli.output import human_size, note, say


@click.command()
@click.argument("references", metavar="REF...", nargs=-1, required=True, type=LOCAL_IMAGE)
def rmi(*, references: tuple[str, ...]) -> None:
    """Remove names, and the content that no other name needs, from the local store.

    REF is a name as `images` lists it, or a digest or an image ID, or the first 7 or more digits of one,
    which means all of its names; NAME@DIGEST means those in that repository. If one REF does not exist,
    nothing is removed. Registries are not changed.
    """
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load
    from digestry.images.name_lookup import removable
    from digestry.images.removal import remove_images

    settings = load()
    store = open_store(settings)
    removal = remove_images(store, [removable(store, text, settings.reference) for text in references])
    for name in removal.names:
        say(f"Untagged: {name}")
    for digest in removal.deleted:
        say(f"Deleted: {digest}")
    if removal.kept:
        note(f"no content was removed: {removal.kept}")
    elif removal.deleted:
        note(f"{human_size(removal.freed)} are free again")
