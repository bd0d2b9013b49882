"""``digestry digest``: print the digest of a name."""

from __future__ import annotations

import click

from digestry.cli.image_names import IMAGE
from digestry.cli.output import say
from digestry.cli.timeout_options import timeout_option


@click.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@click.option("--local", is_flag=True, help="Ask the local store, not the registry.")
@timeout_option
def digest(*, reference: str, local: bool) -> None:
    """Print the digest that a name points to, and nothing else.

    It asks the registry, and fetches nothing. For an index it prints the index's digest, which is the
    one to pin.
    """
    from digestry.cli.digest_completion import complete_reference
    from digestry.cli.sessions import open_session, open_store
    from digestry.cli.settings import load
    from digestry.images.name_lookup import look_up

    settings = load()
    if local:
        say(str(look_up(open_store(settings), reference, settings.reference).descriptor.digest))
        return
    with open_session(settings) as session:
        wanted = complete_reference(settings, session, reference).or_latest()
        say(str(session.repository(wanted).resolve(wanted.target).digest))
