"""``digestry resolve``: the digest that a tag has had for long enough, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli.age_options import min_age_option
from digestry.cli.image_names import IMAGE
from digestry.cli.output import json_document, json_option, note, printable, say
from digestry.cli.timeout_options import timeout_option

if TYPE_CHECKING:
    from digestry.cli import documents
    from digestry.model.age_answers import DigestAge, TagAge


@click.command()
@click.argument("reference", metavar="REPO:TAG", type=IMAGE)
@min_age_option(required=True)
@json_option
@timeout_option
def resolve(*, reference: str, min_age: int, as_json: bool) -> None:
    """Print the newest digest that has stood under a tag for a minimum age, and say why.

    What counts is what the registry recorded itself: its journal, or its observations of the registry that it
    mirrors. Never the creation time, which the publisher writes. The exit code is 1 if no digest has stood
    for so long, and 3 if the registry keeps no history of its tags.

    JSON: repository, tag, at, least_seconds, basis, reason, stood (digest, seconds, since, until, periods;
    null with a refusal), newer (a list of the same), current, refusal, let_through, ready_at.
    """
    from digestry.cli import exit_codes
    from digestry.cli.age_options import checked_tag, resolve_aged
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.client.aged_tags import known_age

    settings = load()
    with open_session(settings) as session:
        wanted = settings.reference(reference).or_latest()
        remote = session.repository(wanted)
        if as_json:
            found = known_age(remote, checked_tag(wanted), min_age)
            json_document(_document(found))
            if found.stood is None:
                click.get_current_context().exit(exit_codes.FINDINGS)
            return
        _, found = resolve_aged(remote, wanted, min_age)
    assert found.stood is not None  # noqa: S101 - else it is an error
    note(printable(found.reason))
    say(str(found.stood.digest))


def _document(found: TagAge) -> documents.Resolve:
    from digestry.cli import documents

    return documents.Resolve(
        repository=found.repository,
        tag=found.tag,
        at=found.at,
        least_seconds=found.least_seconds,
        basis=found.basis,
        reason=found.reason,
        stood=None if found.stood is None else _standing(found.stood),
        newer=[_standing(age) for age in found.newer],
        current=found.current,
        refusal=found.refusal,
        let_through=found.let_through or None,
        ready_at=found.ready_at,
    )


def _standing(age: DigestAge) -> documents.StandingDigest:
    from digestry.cli import documents

    return documents.StandingDigest(
        digest=age.digest,
        seconds=age.seconds,
        since=age.since,
        until=age.until,
        periods=age.count,
    )
