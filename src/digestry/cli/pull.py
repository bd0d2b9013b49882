"""``digestry pull``: fetch an image into the local store."""

from __future__ import annotations

import click

from digestry.cli.output import note, printable, say


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--platform", metavar="OS/ARCH", help="The image of an index to pull.  [default: this machine's]"
)
@click.option("--all-platforms", is_flag=True, help="Pull all images of an index.")
@click.option("--quiet", "-q", is_flag=True, help="Print the image's name only.")
def pull(*, reference: str, platform: str | None, all_platforms: bool, quiet: bool) -> None:
    """Fetch an image, by tag or by digest, verified, into the local store.

    REF is NAME:TAG, NAME@DIGEST, or both: then the digest decides, and it is said if the tag points
    elsewhere by now. An index stays what the name means; its images come by platform.
    """
    from digestry.cli.progress import watching
    from digestry.cli.sessions import open_session, open_store
    from digestry.cli.settings import load
    from digestry.errors import InvalidConfiguration
    from digestry.images import transfer
    from digestry.model.platform import Platform

    if platform and all_platforms:
        raise InvalidConfiguration("--platform and --all-platforms exclude each other")
    settings = load()
    wanted = settings.reference(reference).or_latest()
    if not quiet:
        note(f"{wanted.target}: pulling from {wanted.name}")
    with open_session(settings) as session, watching(quiet=quiet) as watcher:
        result = transfer.pull(
            session,
            wanted,
            open_store(settings),
            platform=Platform.parse(platform) if platform else None,
            all_platforms=all_platforms,
            watcher=watcher,
        )
    digest = result.descriptor.digest
    for skipped in result.skipped:
        note(f"skipped {skipped.descriptor.digest}: {printable(skipped.reason)}")
    if wanted.digest is not None and wanted.tag is not None and result.tag_now != digest:
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
