"""``digestry push``: send an image from the local store to its registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli.image_names import LOCAL_IMAGE
from digestry.cli.output import note, printable, say
from digestry.cli.timeout_options import transfer_timeout_option

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.model.descriptor import Descriptor
    from digestry.model.reference import Reference


@click.command()
@click.argument("reference", metavar="REF", type=LOCAL_IMAGE)
@click.option("--quiet", "-q", is_flag=True, help="Print the image's digest only.")
@transfer_timeout_option
def push(*, reference: str, quiet: bool) -> None:
    """Send an image from the local store to its registry, and say where its tag pointed before.

    REF is a name as `images` lists it, or NAME@DIGEST with the first 7 or more digits of the digest.

    Its bytes are verified while they are sent. Images of an index that are in the local store are sent;
    the registry must have the others already.
    """
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference
    from digestry.images.name_lookup import look_up

    settings = load()
    found = look_up(open_store(settings), reference, settings.reference)
    if found.reference is None:
        raise InvalidReference(
            f"{reference} is {found.descriptor.digest}, which does not say where to push it",
            hint=f"give it a name of the registry, and push that: digestry tag {reference} HOST/REPO:TAG",
        )
    send(settings, found.reference, source=found.descriptor, quiet=quiet)


def send(settings: Settings, reference: Reference, *, source: Descriptor | None = None, quiet: bool) -> None:
    """Push ``reference``, or ``source`` under that name, and print the outcome.

    ``digestry pack --push`` ends here too.
    """
    from digestry.cli.progress import watching
    from digestry.cli.sessions import open_session, open_store
    from digestry.images.push import push as push_image

    if not quiet:
        note(f"{reference.target}: pushing to {reference.name}")
    with open_session(settings) as session, watching(quiet=quiet) as observer:
        result = push_image(session, reference, open_store(settings), source=source, observer=observer)
    for skipped in result.skipped:
        note(f"skipped {skipped.descriptor.digest}: {printable(skipped.reason)}")
    if quiet:
        say(str(result.digest))
        return
    say(f"Digest: {result.digest}")
    if reference.tag is None:
        say("Status: pushed by digest, without a tag")
    elif result.before is None:
        say(f"Status: {reference.tag} is new")
    elif result.before == result.digest:
        say(f"Status: {reference.tag} was already there, with this digest")
    else:
        say(f"Status: {reference.tag} has moved, from {result.before}")
    say(str(reference))
