"""``digestry tag``: another name for an image."""

from __future__ import annotations

import click

from digestry.cli.output import note, say


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
def tag(*, source: str, target: str) -> None:
    """Give SRC, an image of the local store, the name DST too. Prints the name and the digest."""
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference

    settings = load()
    name = settings.reference(target).or_latest()
    if name.digest is not None:
        raise InvalidReference(f"{name} has a digest, which nobody can choose", hint="name it NAME:TAG")
    descriptor, before = open_store(settings).tag(settings.reference(source).or_latest(), name)
    if before is not None and before != descriptor.digest:
        note(f"{name} pointed to {before} before")
    say(f"{name}@{descriptor.digest}")
