"""``digestry tag``: give an image another name."""

from __future__ import annotations

import click

from digestry.cli.image_names import LOCAL_IMAGE
from digestry.cli.output import note, say


@click.command()
@click.argument("source", metavar="SRC", type=LOCAL_IMAGE)
@click.argument("target", metavar="DST", type=LOCAL_IMAGE)
def tag(*, source: str, target: str) -> None:
    """Give SRC, an image of the local store, the name DST too. Prints the name and the digest.

    SRC is a name as `images` lists it, or a digest or an image ID, or the first 7 or more digits of one.
    """
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference
    from digestry.images.name_lookup import look_up

    settings = load()
    name = settings.reference(target).or_latest()
    if name.digest is not None:
        raise InvalidReference(f"{name} has a digest, which cannot be chosen", hint="name it NAME:TAG")
    store = open_store(settings)
    found = look_up(store, source, settings.reference)
    descriptor, before = store.tag(found.descriptor, name)
    if before is not None and before != descriptor.digest:
        note(f"{name} pointed to {before} before")
    say(f"{name}@{descriptor.digest}")
