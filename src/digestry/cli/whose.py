"""``digestry whose``: which tags point, or pointed, to a digest."""

from __future__ import annotations

import click

from digestry.cli.output import format_option, json_document, table
from digestry.cli.times import shown, stamp


@click.command()
@click.argument("reference", metavar="REPO@DIGEST")
@click.option("--no-trunc", is_flag=True, help="Show digests in full.")
@format_option
def whose(*, reference: str, no_trunc: bool, format_: str) -> None:
    """Show which tags point, or pointed, to a digest, and from when until when, newest first.

    Also through an index that lists it, and for an image ID, which is the digest of a config: VIA is
    what the tag itself pointed to. Exit code 4 if no tag ever did.

    JSON: a list of objects with tag, since, until (null while it still does), still, via, sequence.
    """
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference, NotFound, RemoteError

    settings = load()
    wanted = settings.reference(reference)
    if wanted.digest is None:
        raise InvalidReference(f"{wanted} has no digest", hint="write REPO@sha256:…")
    with open_session(settings) as session:
        spans = session.repository(wanted).whose(wanted.digest)
    if spans is None:
        raise RemoteError(
            f"{wanted.host} cannot tell which tags point to a digest",
            hint="digestry tags lists where each of them points now",
        )
    if not spans:
        raise NotFound(f"no tag of {wanted.name} ever pointed to {wanted.digest}")
    if format_ == "json":
        json_document(
            [
                {
                    "tag": span.tag,
                    "since": stamp(span.since),
                    "until": None if span.until is None else stamp(span.until),
                    "still": span.still,
                    "via": span.digest,
                    "sequence": span.sequence,
                }
                for span in spans
            ]
        )
        return
    table(
        ["TAG", "SINCE (UTC)", "UNTIL (UTC)", "VIA"],
        [
            [
                span.tag,
                shown(span.since),
                "still" if span.until is None else shown(span.until),
                "-"
                if span.digest == wanted.digest
                else str(span.digest)
                if no_trunc
                else f"{span.digest.algorithm}:{span.digest.short}",
            ]
            for span in spans
        ],
    )
