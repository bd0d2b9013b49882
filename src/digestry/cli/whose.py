"""``digestry whose``: show which tags point, or pointed, to a digest, and where it was seen running."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.image_names import IMAGE
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import note, printable, say, table
from digestry.cli.row_template import Row
from digestry.cli.timeout_options import timeout_option
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from digestry.cli.settings import Settings
    from digestry.client.session import Session
    from digestry.model.digest import Digest
    from digestry.model.digest_prefix import DigestPrefix
    from digestry.model.history import TagSpan
    from digestry.model.sightings import SightingsOf

_MOST_REPOSITORIES: Final = 20
"""How many repositories are asked where their digest was seen."""
_WITHHELD: Final = frozenset({401, 403})


def _via(row: Row, whole: bool) -> str:
    """Return the digest that the tag itself pointed to, if it is another one."""
    via, digest = row["via"], row["digest"]
    return "-" if via == digest else LISTING.by_key()["via"].text(via, whole=whole)


LISTING: Final = Listing(
    "whose",
    "The times at which tags pointed to a digest, or to what holds it, the newest first.",
    (
        Column("repository", "text", "The name in the registry."),
        Column("tag", "text", "The tag."),
        Column("since", "time", "From when on (RFC 3339)."),
        Column("until", "time", "Until when; null while it still does.", nullable=True, nothing="still"),
        Column("via", "digest", "What the tag itself pointed to.", show=_via),
        Column("digest", "digest", "The requested digest.", shown=False),
        Column("still", "flag", "Whether it points there now.", shown=False),
        Column("sequence", "number", "Of the journal's entry, or null.", nullable=True, shown=False),
        Column(
            "seen",
            "objects",
            "Where it ran; null if the registry does not show it.",
            nullable=True,
            shown=False,
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class _Known:
    """The history of a digest: when tags came to it, and by repository where it was seen."""

    digest: Digest
    spans: list[TagSpan]
    seen: dict[str, SightingsOf] = field(default_factory=dict)


@click.command()
@click.argument("reference", metavar="[REPO@]DIGEST|REPO:TAG", type=IMAGE)
@click.option(
    "--registry",
    metavar="HOST",
    help="Where to look for a digest alone.  [default: the setting registry]",
)
@listing_options(LISTING)
@timeout_option
def whose(*, reference: str, registry: str | None, view: View) -> None:
    """Show which tags point, or pointed, to a digest, and from when until when, newest first.

    The first 7 or more digits of a digest are enough; a tag means the digest that it points to now. A digest
    alone is searched in every repository of a registry that you may pull from. The search includes tags of
    an index that lists the digest, and accepts an image ID, which is the digest of a config, and the digest
    of a layer: VIA is what the tag itself pointed to. Exit code 4 if no tag ever pointed to it. Audits
    with --record report where it ran.

    JSON: a list of objects with repository, tag, since, until (null while it still does), via, digest, still,
    sequence, and seen: a list of place, containers, first_seen_at, last_seen_at, of the whole repository;
    null if the registry does not show where it was seen.
    """
    from digestry.cli.settings import check_value, load
    from digestry.errors import InvalidReference
    from digestry.model.digest_prefix import DigestPrefix

    settings = load()
    # A text that can be a digest is one, and not a repository "sha256" with a tag of 64 digits.
    begins_so = reference.startswith(("sha256:", "sha512:"))
    prefix = DigestPrefix.parse(reference) if begins_so else DigestPrefix.read(reference)
    if prefix is not None:
        host = settings.registry if registry is None else check_value("registry", registry)
        known = _anywhere(settings, host, prefix)
    elif registry is not None:
        raise InvalidReference(
            "--registry is for a digest alone",
            hint=f"write the registry before the name: {registry}/REPO:TAG",
        )
    else:
        known = _of_repository(settings, reference)
    several = prefix is not None
    view.show(
        [
            {
                "repository": span.repository,
                "tag": span.tag,
                "since": rfc3339(span.since),
                "until": None if span.until is None else rfc3339(span.until),
                "via": span.digest,
                "digest": known.digest,
                "still": span.still,
                "sequence": span.sequence,
                "seen": _seen(known, span.repository),
            }
            for span in known.spans
        ],
        default=(*(["repository"] if several else []), "tag", "since", "until", "via"),
    )
    if view.format == "table":
        _print_seen(known, several=several)


def _seen(known: _Known, repository: str) -> list[dict[str, object]] | None:
    found = known.seen.get(repository)
    if found is None:
        return None
    return [
        {
            "place": sighting.place,
            "containers": sighting.containers,
            "first_seen_at": rfc3339(sighting.first),
            "last_seen_at": rfc3339(sighting.last),
        }
        for sighting in found.sightings
    ]


def _print_seen(known: _Known, *, several: bool) -> None:
    rows = [
        [
            *([repository] if several else []),
            sighting.place,
            str(sighting.containers),
            rfc3339(sighting.first),
            rfc3339(sighting.last),
        ]
        for repository, found in known.seen.items()
        for sighting in found.sightings
    ]
    if not rows:
        return
    say()
    table([*(["REPOSITORY"] if several else []), "SEEN AT", "CONTAINERS", "FIRST", "LAST"], rows)
    more = sum(found.places for found in known.seen.values()) - len(rows)
    if more > 0:
        say(f"… and {more} more {'place' if more == 1 else 'places'}")


def _where_seen(session: Session, host: str, digest: Digest, names: Iterable[str]) -> dict[str, SightingsOf]:
    """Return where the digest was seen, by repository; nothing of a registry that keeps no sightings."""
    from digestry.errors import Refused, RemoteError
    from digestry.model.reference import Reference

    repositories = list(dict.fromkeys(names))
    found = {}
    withheld = []
    for name in repositories[:_MOST_REPOSITORIES]:
        try:
            seen = session.repository(Reference(host, name)).sightings(digest)
        except RemoteError as error:
            if isinstance(error, Refused) and error.status in _WITHHELD:
                withheld.append(name)
                continue
            # The tags were printed, and are the answer.
            note(printable(f"digestry: where {digest} was seen is not known: {error.message}"))
            break
        if seen is None:
            break
        found[name] = seen
    if withheld:
        which = withheld[0] if len(withheld) == 1 else f"{len(withheld)} repositories"
        note(printable(f"digestry: {host} shows where images ran only to users who may audit {which}"))
    if len(repositories) > _MOST_REPOSITORIES and found:
        note(f"digestry: only the first {_MOST_REPOSITORIES} repositories were asked where it was seen")
    return found


def _of_repository(settings: Settings, reference: str) -> _Known:
    from msgspec import structs

    from digestry.cli.digest_completion import complete_reference
    from digestry.cli.sessions import open_session
    from digestry.errors import NotFound, RemoteError

    with open_session(settings) as session:
        wanted = complete_reference(settings, session, reference).or_latest()
        remote = session.repository(wanted)
        digest = wanted.digest
        if digest is None:
            digest = remote.resolve(wanted.target).digest
            note(f"{wanted} is {digest}")
        spans = remote.tags_for_digest(digest, layers=True)
        if not spans and spans is not None:
            next(remote.tags(), None)  # a repository that is not there, or is not shown, says so
        names = [wanted.repository] if spans else []
        seen = _where_seen(session, wanted.host, digest, names)
    if spans is None:
        raise RemoteError(
            f"{wanted.host} does not know which tags point to a digest",
            hint="digestry tags lists where each of them points now",
        )
    if not spans:
        raise NotFound(f"{wanted.host} knows of no tag of {wanted.name} that points, or pointed, to {digest}")
    spans = [structs.replace(span, repository=wanted.repository) for span in spans]
    return _Known(digest, spans, seen)


def _anywhere(settings: Settings, host: str, prefix: DigestPrefix) -> _Known:
    from digestry.cli.sessions import open_session
    from digestry.errors import NotFound, RemoteError

    with open_session(settings) as session:
        registry = session.registry(host)
        digest = registry.find_digest(prefix)
        if str(prefix) != str(digest):
            note(f"{prefix} is {digest}")
        spans = registry.tags_for_digest(digest, layers=True)
        seen = _where_seen(session, host, digest, (span.repository for span in spans or ()))
    if spans is None:
        raise RemoteError(
            f"{host} does not know which tags of all its repositories point to a digest",
            hint="write REPO@sha256:…, or say which registry with --registry HOST, or for good with "
            "digestry config set registry HOST",
        )
    if not spans:
        raise NotFound(f"{host} knows of no tag that you may see and that points, or pointed, to {digest}")
    return _Known(digest, spans, seen)
