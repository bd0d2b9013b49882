"""``digestry restore``: point a tag back at a digest that it had."""

from __future__ import annotations

import datetime

import click

from digestry.cli.image_names import IMAGE
from digestry.cli.output import note, say
from digestry.cli.time_options import time_option
from digestry.cli.timeout_options import timeout_option


@click.command()
@click.argument("reference", metavar="REPO:TAG", type=IMAGE)
@time_option(
    "--at", last=True, help="What it pointed to then: a time as `log` prints it, a date, 2h, yesterday."
)
@click.option(
    "--to", metavar="DIGEST", help="A digest that it pointed to, or the first 7 or more digits of it."
)
@timeout_option
def restore(*, reference: str, at: datetime.datetime | None, to: str | None) -> None:
    """Point a tag back at a digest that it had, at a time or by its name.

    The registry treats it as any other move: it is recorded in the journal, and the rules apply. The
    repository must still have the digest.
    """
    from digestry.cli.digest_completion import complete_digest
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference, RemoteError
    from digestry.model.digest_prefix import DigestPrefix

    settings = load()
    wanted = settings.reference(reference)
    if wanted.tag is None or wanted.digest is not None:
        raise InvalidReference(f"{wanted} is not a tag", hint="write REPO:TAG")
    if (at is None) == (to is None):
        raise click.UsageError("Give either --at or --to.")
    prefix = None if to is None else DigestPrefix.parse(to)
    with open_session(settings) as session:
        target = at if prefix is None else complete_digest(session, wanted, prefix)
        assert target is not None  # noqa: S101 - one of the two was given
        remote = session.repository(wanted)
        done = remote.restore(wanted.tag, target)
        if done is None:
            remote.resolve(wanted.tag)  # a repository or tag that is not there says so
            raise RemoteError(
                f"{wanted.host} cannot restore tags",
                hint="pull the image by its digest, tag it, and push it",
            )
    if done.event is None:
        note(f"{wanted} already points there: nothing was changed")
    elif done.from_digest is None:
        say(f"Status: {wanted.tag} is back")
    else:
        say(f"Status: {wanted.tag} has moved, from {done.from_digest}")
    say(f"Digest: {done.to_digest}")
