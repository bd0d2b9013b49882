"""``digestry pull``: fetch an image into the local store."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import click

from digestry.cli.age_options import min_age_option, resolve_aged
from digestry.cli.image_names import IMAGE
from digestry.cli.log_options import verify_log_option
from digestry.cli.output import note, printable, say
from digestry.cli.time_options import time_option
from digestry.cli.timeout_options import transfer_timeout_option

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.client.repository import Repository
    from digestry.images.pull import Check
    from digestry.model.reference import Reference


@click.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@click.option(
    "--platform", metavar="OS/ARCH", help="The image of an index to pull.  [default: this machine's]"
)
@click.option("--all-platforms", is_flag=True, help="Pull all images of an index.")
@time_option(
    "--at", last=True, help="What the tag pointed to then: a time as `log` prints it, a date, 2h, yesterday."
)
@verify_log_option
@min_age_option()
@click.option("--quiet", "-q", is_flag=True, help="Print the image's name only.")
@transfer_timeout_option
def pull(
    *,
    reference: str,
    platform: str | None,
    all_platforms: bool,
    at: datetime.datetime | None,
    verify_log: bool,
    min_age: int | None,
    quiet: bool,
) -> None:
    """Fetch an image, by tag or by digest, verified, into the local store.

    REF is NAME:TAG, NAME@DIGEST (the first 7 or more digits are enough), or both. With both, the digest
    decides, and a note says if the tag points elsewhere. The name of an index means the index; its images
    are pulled by platform. --at and --min-age need a registry that keeps the history of
    its tags; with --min-age the image is stored under the tag, as if that pointed to it.

    --verify-log uses the image only if the registry's transparency log (docs/follow.md) has, as its last
    entry of the tag, that it points there, and the log continues what was seen of it before. Of what is older
    for a minimum age, here or by the registry's own rule, it must have that the tag pointed there.
    """
    from digestry.cli.digest_completion import complete_reference
    from digestry.cli.progress import watching
    from digestry.cli.sessions import open_session, open_store
    from digestry.cli.settings import load
    from digestry.errors import InvalidConfiguration
    from digestry.images import pull as pulling
    from digestry.model.platform import Platform

    if platform and all_platforms:
        raise InvalidConfiguration("--platform and --all-platforms exclude each other")
    if at is not None and "@" in reference:
        raise InvalidConfiguration("--at is for a tag; a digest means the same at any time")
    if at is not None and min_age is not None:
        raise InvalidConfiguration("--at and --min-age exclude each other")
    settings = load()
    with open_session(settings) as session, watching(quiet=quiet) as observer:
        wanted = complete_reference(settings, session, reference).or_latest()
        if not quiet:
            note(f"{wanted.target}: pulling from {wanted.name}")
        if at is not None:
            wanted = _as_of(session.repository(wanted), wanted, at)
        elif min_age is not None:
            wanted, age = resolve_aged(session.repository(wanted), wanted, min_age)
            note(printable(age.reason))
        result = pulling.pull(
            session,
            wanted,
            open_store(settings),
            platform=Platform.chosen(platform) if platform else None,
            all_platforms=all_platforms,
            under_tag=min_age is not None,
            observer=observer,
            check=_check(settings, wanted, min_age) if verify_log else None,
        )
    digest = result.descriptor.digest
    for skipped in result.skipped:
        note(f"skipped {skipped.descriptor.digest}: {printable(skipped.reason)}")
    if min_age is None and wanted.digest is not None and wanted.tag is not None and result.tag_now != digest:
        now = f"now points to {result.tag_now}" if result.tag_now else "is no longer there"
        note(f"tag {wanted.tag} {now}: what you have is the digest that you asked for")
    if quiet:
        say(str(wanted))
        return
    say(f"Digest: {digest}")
    if result.before is not None and result.before != digest:
        say(f"Status: {wanted.tag} has moved, from {result.before}")
    elif result.fetched or result.before is None:
        say("Status: pulled")
    else:
        say("Status: up to date")
    say(str(wanted))


def _check(settings: Settings, wanted: Reference, min_age: int | None) -> Check:
    """Return the check of ``--verify-log``: with a minimum age, that the tag pointed there."""
    from digestry.cli.log_trust import tag_check

    prover = tag_check(settings)
    if min_age is None:
        return prover
    tag = wanted.tag
    assert tag is not None  # noqa: S101 - a minimum age is for a tag
    return lambda repository, _, digest: prover.prove_past(repository, tag, digest)


def _as_of(remote: Repository, wanted: Reference, at: datetime.datetime) -> Reference:
    """Return the tag with the digest that it had at a time, and print that."""
    from digestry.errors import RemoteError
    from digestry.model.reference import Reference
    from digestry.model.timestamps import rfc3339

    assert wanted.tag is not None  # noqa: S101 - a reference without digest has one by now
    span = remote.tag_at(wanted.tag, at)
    if span is None:
        raise RemoteError(
            f"{wanted.host} keeps no history of its tags, so that it is not known what {wanted.tag} was then",
            hint="pull it as it is now, or by a digest that was noted",
        )
    until = "still does" if span.until is None else f"did until {rfc3339(span.until)}"
    since = rfc3339(span.since)
    note(f"{wanted.tag} pointed to {span.digest} at {rfc3339(at)}: it came there at {since}, and {until}")
    return Reference(wanted.host, wanted.repository, wanted.tag, span.digest)
