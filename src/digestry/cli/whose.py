"""``digestry whose``: which tags point, or pointed, to a digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli.output import format_option, json_document, table
from digestry.cli.times import shown, stamp

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.model.digest import Digest
    from digestry.model.history import TagSpan


@click.command()
@click.argument("reference", metavar="[REPO@]DIGEST")
@click.option(
    "--registry",
    metavar="HOST",
    help="Where to look for a digest alone.  [default: the setting registry]",
)
@click.option("--no-trunc", is_flag=True, help="Show digests in full.")
@format_option
def whose(*, reference: str, registry: str | None, no_trunc: bool, format_: str) -> None:
    """Show which tags point, or pointed, to a digest, and from when until when, newest first.

    A digest alone is looked for in every repository of a registry that may be pulled from. Also
    through an index that lists it, and for an image ID, which is the digest of a config: VIA is
    what the tag itself pointed to. Exit code 4 if no tag ever did.

    JSON: a list of objects with repository, tag, since, until (null while it still does), still, via,
    sequence.
    """
    from digestry.cli.settings import check_value, load
    from digestry.errors import InvalidReference
    from digestry.model.digest import Digest

    settings = load()
    # What can be read as a digest is one, and not a repository "sha256" with a tag of 64 digits.
    digest = Digest.parse(reference) if _is_digest(reference) else None
    if digest is not None:
        host = settings.registry if registry is None else check_value("registry", registry)
        spans = _anywhere(settings, host, digest)
    elif registry is not None:
        raise InvalidReference("--registry is for a digest alone", hint="write HOST/REPO@sha256:…")
    else:
        digest, spans = _of_repository(settings, reference)
    if format_ == "json":
        json_document(
            [
                {
                    "repository": span.repository,
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
    several = "@" not in reference
    table(
        [*(["REPOSITORY"] if several else []), "TAG", "SINCE (UTC)", "UNTIL (UTC)", "VIA"],
        [
            [
                *([span.repository] if several else []),
                span.tag,
                shown(span.since),
                "still" if span.until is None else shown(span.until),
                "-"
                if span.digest == digest
                else str(span.digest)
                if no_trunc
                else f"{span.digest.algorithm}:{span.digest.short}",
            ]
            for span in spans
        ],
    )


def _is_digest(text: str) -> bool:
    from digestry.errors import InvalidDigest
    from digestry.model.digest import Digest

    try:
        Digest.parse(text)
    except InvalidDigest:
        return False
    return True


def _of_repository(settings: Settings, reference: str) -> tuple[Digest, list[TagSpan]]:
    from msgspec import structs

    from digestry.cli.sessions import open_session
    from digestry.errors import InvalidReference, NotFound, RemoteError

    wanted = settings.reference(reference)
    if wanted.digest is None:
        raise InvalidReference(f"{wanted} has no digest", hint="write REPO@sha256:…, or sha256:… alone")
    with open_session(settings) as session:
        spans = session.repository(wanted).whose(wanted.digest)
    if spans is None:
        raise RemoteError(
            f"{wanted.host} cannot tell which tags point to a digest",
            hint="digestry tags lists where each of them points now",
        )
    if not spans:
        raise NotFound(f"no tag of {wanted.name} ever pointed to {wanted.digest}")
    return wanted.digest, [structs.replace(span, repository=wanted.repository) for span in spans]


def _anywhere(settings: Settings, host: str, digest: Digest) -> list[TagSpan]:
    from digestry.cli.sessions import open_session
    from digestry.errors import NotFound, RemoteError

    with open_session(settings) as session:
        spans = session.whose(host, digest)
    if spans is None:
        raise RemoteError(
            f"{host} cannot tell which tags of all its repositories point to a digest",
            hint="write REPO@sha256:…, or say which registry with --registry HOST, or for good with "
            "digestry config set registry HOST",
        )
    if not spans:
        raise NotFound(f"no tag that you may see at {host} ever pointed to {digest}")
    return spans
