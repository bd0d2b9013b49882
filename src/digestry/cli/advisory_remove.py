"""``digestry advisory remove``: take statements about an image back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli.advised_image import find_target, somebody
from digestry.cli.confirmation import confirmed
from digestry.cli.image_names import IMAGE
from digestry.cli.output import note, printable, say
from digestry.cli.timeout_options import timeout_option
from digestry.model.text import number_of

if TYPE_CHECKING:
    from digestry.advisories.removal import RemovalPlan

_MOST_SHOWN = 20


@click.command("remove")
@click.argument("reference", metavar="REF", type=IMAGE)
@click.option(
    "--id", "vulnerabilities", multiple=True, metavar="CVE-…", help="What is stated about this; repeatable."
)
@click.option(
    "--document",
    "documents",
    multiple=True,
    metavar="sha256:…",
    help="A whole document, whoever wrote it; the ADVISORY of `advisory list --no-trunc`. Repeatable.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@timeout_option
def remove(
    *,
    reference: str,
    vulnerabilities: tuple[str, ...],
    documents: tuple[str, ...],
    yes: bool,
    dry_run: bool,
) -> None:
    """Take statements about an image back, as if they had never been made.

    With --id, digestry's own statements about a vulnerability: their documents are deleted, and one with the
    other statements takes their place. What others attached stays, and is named; --document deletes it.
    Where a statement has only become wrong, state what is right instead: advisory add.

    The registry must allow deleting manifests.
    """
    import datetime

    from digestry.advisories import removal
    from digestry.audit.registry_queries import RegistryQueries
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.model.digest import Digest

    if not vulnerabilities and not documents:
        raise click.UsageError("Name what is to be removed: --id CVE-…, or --document sha256:….")
    digests = [Digest.parse(text) for text in documents]
    settings = load()
    with open_session(settings) as session:
        target = find_target(settings, session, reference)
        queries = RegistryQueries(session, timeout=60, trust=settings.trust())
        plan = removal.plan_removal(queries, target, vulnerabilities=vulnerabilities, documents=digests)
        _describe(plan)
        if dry_run:
            note("digestry: nothing was removed (--dry-run)")
            return
        if not plan.documents:
            return
        if not yes and not confirmed(f"Remove this about {plan.target.image}, for good?"):
            return
        written = removal.remove(
            session,
            plan,
            author=somebody(),
            now=datetime.datetime.now(datetime.UTC),
            done=lambda digest: say(f"Deleted: advisory {digest}"),
        )
        if written is not None:
            say(f"Kept: {number_of(len(plan.kept), 'statement')}, in advisory {written.referrer}")


def _describe(plan: RemovalPlan) -> None:
    for advisory in plan.statements[:_MOST_SHOWN]:
        part = f" of {advisory.component}" if advisory.component else ""
        author = advisory.author or "an author who is not named"
        status = advisory.statement.status.replace("_", " ")
        note(printable(f"{advisory.statement.vulnerability}{part}: {status}, by {author}: is removed"))
    if len(plan.statements) > _MOST_SHOWN:
        note(f"and {len(plan.statements) - _MOST_SHOWN} statements more")
    for advisory in plan.foreign[:_MOST_SHOWN]:
        name = advisory.statement.vulnerability
        note(printable(f"{name}: stays, since others attached it: --document {advisory.referrer}"))
    if len(plan.foreign) > _MOST_SHOWN:
        note(f"and {len(plan.foreign) - _MOST_SHOWN} statements of others more")
