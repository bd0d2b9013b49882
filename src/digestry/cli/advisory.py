"""``digestry advisory``: state, list and show which digests are affected and which are fixed."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.advised_image import finish, read_target, show_objection, show_resolved, somebody
from digestry.cli.advisory_export import export
from digestry.cli.advisory_import import import_
from digestry.cli.advisory_remove import remove
from digestry.cli.command_group import Group
from digestry.cli.digest_completion import complete_digest, complete_reference
from digestry.cli.image_names import IMAGE
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import json_document, printable, say
from digestry.cli.row_template import Row
from digestry.cli.signing_options import signing_options
from digestry.cli.timeout_options import timeout_option
from digestry.model.digest_prefix import DigestPrefix

if TYPE_CHECKING:
    from digestry.advisories.advisory import Advisory
    from digestry.advisories.attestation_forms import Signing
    from digestry.advisories.statements import Status
    from digestry.cli.settings import Settings
    from digestry.client.session import Session
    from digestry.model.reference import Reference

_STATUSES = ("affected", "not_affected", "fixed", "under_investigation")
_JUSTIFICATIONS = (
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
)
_NOTHING_WRITTEN: Final = "nothing was written; check the name, or push it first"
_SHORT: Final = 12
"""Digits of a digest in a table."""


def _fixes(row: Row, whole: bool) -> str:
    """Return the digests of the images that do not have it, whole or their first digits."""
    fixed = row["fixed_by"]
    assert isinstance(fixed, list)  # noqa: S101 - for the type checker
    digests = [str(name).rpartition("@")[2] for name in fixed]
    return ", ".join(one if whole else one.partition(":")[2][:_SHORT] for one in digests) or "-"


def _of(row: Row, whole: bool) -> str:
    """Return the component, or the layer or config, that a statement is about."""
    part = row["part"]
    if row["component"] or part is None:
        return str(row["component"] or "-")
    return str(part) if whole else str(part).partition(":")[2][:_SHORT]


def _signed(row: Row, _: bool) -> str:
    """Return who signed a statement, or that nobody did."""
    return str(row["signer"] or row["signature"] or "unsigned")


LISTING: Final = Listing(
    "advisory list",
    "What is in force about an image: a row for each vulnerability, and each component of it.",
    (
        Column("vulnerability", "text", "Such as CVE-2026-1505."),
        Column("status", "text", f"One of {', '.join(_STATUSES)}."),
        Column(
            "component",
            "text",
            "What of the image it is about; null if all of it.",
            nullable=True,
            heading="OF",
            show=_of,
        ),
        Column("fixed_by", "texts", "Images without it: REPOSITORY@DIGEST.", show=_fixes),
        Column("author", "text", "Who said so, or null.", nullable=True),
        Column("stated_at", "time", "When (RFC 3339).", heading="WHEN"),
        Column("advisory", "id", "The digest of the manifest that carries it."),
        Column("repository", "text", "Where the image is that it is about.", shown=False),
        Column("digest", "digest", "Of that image.", shown=False),
        Column(
            "part",
            "digest",
            "The layer or config of the image that it is about; null: not one.",
            nullable=True,
            shown=False,
        ),
        Column("aliases", "texts", "Other names of the vulnerability.", shown=False),
        Column("justification", "text", "Why it is not affected, or null.", nullable=True, shown=False),
        Column("note", "text", "How this is known, or null.", nullable=True, shown=False),
        Column("action_statement", "text", "What to do, or null.", nullable=True, shown=False),
        Column(
            "signature",
            "text",
            "null: unsigned; verified: by a trusted key; not verified: no key is trusted in the repository.",
            nullable=True,
            show=_signed,
            heading="SIGNED",
        ),
        Column("signer", "text", "Whose trusted key has signed it, or null.", nullable=True, shown=False),
    ),
)


@click.group(cls=Group)
def advisory() -> None:
    """State and list which digests are vulnerable and which are fixed.

    An advisory is an OpenVEX statement about one digest. It is kept in the image's registry, as a
    referrer of the image, where scanners find it too.
    """


for _command in (import_, export, remove):
    advisory.add_command(_command)


@advisory.command("add")
@click.argument("reference", metavar="REF@DIGEST|REF:TAG", type=IMAGE)
@click.option(
    "--status",
    required=True,
    type=click.Choice(_STATUSES),
    metavar="STATUS",
    help=f"The status to state: {', '.join(_STATUSES)}.",
)
@click.option(
    "--id",
    "vulnerabilities",
    required=True,
    multiple=True,
    metavar="CVE-…",
    help="The vulnerability's identifier; repeatable.",
)
@click.option(
    "--component",
    "components",
    multiple=True,
    metavar="PURL",
    help="The part of the image that it is about, such as pkg:deb/debian/curl@7.88.1; repeatable.  "
    "[default: all of it]",
)
@click.option(
    "--fixed-by",
    "fixes",
    multiple=True,
    metavar="sha256:…|REF",
    help="An image without it, which gets a statement that says so; repeatable.",
)
@click.option("--note", "remark", default="", metavar="TEXT", help="How this is known; for people.")
@click.option(
    "--justification",
    default="",
    type=click.Choice(("", *_JUSTIFICATIONS)),
    metavar="LABEL",
    help=f"Why not_affected: {', '.join(_JUSTIFICATIONS)}.",
)
@click.option("--author", default="", metavar="WHO", help="Who says so.  [default: this user and host]")
@click.option("--timestamp", default="", metavar="RFC3339", help="Since when it is so.  [default: now]")
@signing_options
@timeout_option
def add(
    *,
    reference: str,
    status: Status,
    vulnerabilities: tuple[str, ...],
    components: tuple[str, ...],
    fixes: tuple[str, ...],
    remark: str,
    justification: str,
    author: str,
    timestamp: str,
    signing: Signing | None,
) -> None:
    """Publish a statement about an image; the latest statement on a vulnerability is in force.

    A tag is resolved first; the statement is about the digest that it points to now. Several --id are stated
    alike, in one document.

    With --key the document is signed, as an in-toto statement in a DSSE envelope: `cosign verify-attestation
    --key PUBLIC --type openvex` accepts it. Nothing is written to a transparency log.
    """
    from digestry.advisories import publish
    from digestry.advisories.subjects import find_subject
    from digestry.audit.registry_queries import RegistryQueries
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load

    settings = load()
    trust = settings.trust()
    at = _time(timestamp)
    statements = [
        publish.NewStatement(
            vulnerability=vulnerability,
            status=status,
            author=author or somebody(),
            timestamp=at,
            justification=justification,
            note=remark,
            components=components,
        )
        for vulnerability in dict.fromkeys(vulnerabilities)
    ]
    for statement in statements:
        statement.check(fixes=bool(fixes))
    with open_session(settings) as session:
        named = complete_reference(settings, session, reference)
        fixed = [_fixed_image(settings, session, named, text) for text in fixes]
        subject = find_subject(session, named, hint=_NOTHING_WRITTEN)
        # All are looked up before anything is written.
        targets = [find_subject(session, name, hint=_NOTHING_WRITTEN) for name in fixed]
        for target in (subject, *targets):
            show_resolved(target)
        attached = publish.attach_with_fixes(
            session,
            subject,
            statements,
            targets,
            new_queries=lambda: RegistryQueries(session, trust=trust),
            signing=signing,
        )
        names = ", ".join(statement.vulnerability for statement in statements)
        for written in attached:
            say(printable(f"{names}: {written.status}: {written.subject} (advisory {written.referrer})"))
            show_objection(trust, written.status, written.subject, signing)


@advisory.command("list")
@click.argument("reference", metavar="REF", type=IMAGE)
@listing_options(LISTING)
@timeout_option
def list_(*, reference: str, view: View) -> None:
    """List the statements in force about an image: a line for each vulnerability and component.

    What is stated about a layer of the image counts for it, and is listed with the layer.

    REF is REPO:TAG or REPO@DIGEST; the first 7 or more digits of a digest are enough. Exit code 3 if not
    every advisory could be read, which is said.

    JSON: a list of objects with vulnerability, status, component, fixed_by, author, stated_at, advisory,
    repository, digest, part, aliases, justification, note, action_statement, signature, signer.
    """
    _, reading = read_target(reference, with_parts=True)
    view.show(map(_row, reading.current()))
    finish(reading)


def _row(advised: Advisory) -> Row:
    from digestry.audit.reports.values import advisory_row

    row = advisory_row(advised)
    return {
        "vulnerability": row.id,
        "status": row.status,
        "component": row.component,
        "fixed_by": row.fixed_by,
        "author": row.author or None,
        "stated_at": row.timestamp,
        "advisory": row.referrer,
        "repository": advised.repository.name,
        "digest": str(advised.subject),
        "part": None if advised.part is None else str(advised.part.digest),
        "aliases": row.aliases,
        "justification": row.justification,
        "note": row.note,
        "action_statement": row.action_statement,
        "signature": row.signature,
        "signer": row.signer,
    }


@advisory.command("show")
@click.argument("reference", metavar="REF", type=IMAGE)
@timeout_option
def show(reference: str) -> None:
    """Print the documents that are attached to an image, as JSON: OpenVEX, CycloneDX and CSAF."""
    from digestry.cli.documents import AttachedAdvisory

    target, reading = read_target(reference)
    json_document(
        [
            AttachedAdvisory(
                image=str(target.image),
                referrer=str(attached.referrer),
                kind=attached.document.kind,
                signature=None if attached.signature.state == "unsigned" else attached.signature.state,
                signer=attached.signature.signer or None,
                document=attached.document.predicate,
            )
            for attached in sorted(
                reading.attached, key=lambda attached: (attached.document.version, attached.referrer)
            )
        ]
    )
    finish(reading)


def _fixed_image(settings: Settings, session: Session, named: Reference, text: str) -> Reference:
    """Return the image of --fixed-by: a digest, or its prefix, is of the same repository."""
    prefix = DigestPrefix.parse(text) if text.startswith(("sha256:", "sha512:")) else DigestPrefix.read(text)
    if prefix is None:
        return complete_reference(settings, session, text)
    return named.with_digest(complete_digest(session, named, prefix))


def _time(text: str) -> datetime.datetime:
    from digestry.advisories.values import read_time

    if not text:
        return datetime.datetime.now(datetime.UTC)
    try:
        return read_time(text)
    except ValueError as error:
        raise click.BadParameter(
            "it is not a time such as 2026-11-21T10:02:00Z", param_hint="--timestamp"
        ) from error
