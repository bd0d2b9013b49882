"""``digestry advisory import``: state what reports of scanners and advisories of others say about images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from digestry.advisories.statements import SEVERITIES
from digestry.cli.advised_image import find_target, show_objection
from digestry.cli.image_names import IMAGE
from digestry.cli.output import json_document, json_option, note, printable, say, table
from digestry.cli.signing_options import signing_options
from digestry.cli.timeout_options import timeout_option
from digestry.model.text import number_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from digestry.advisories.attestation_forms import Signing
    from digestry.advisories.publish import NewStatement, PublishedAdvisory, TargetImage
    from digestry.advisories.trust import TrustPolicy
    from digestry.audit.advisory_imports import ImagePlan, ImportFile
    from digestry.cli.documents import AdvisoryImport
    from digestry.cli.settings import Settings
    from digestry.client.session import Session
    from digestry.model.json_values import JsonObject
    from digestry.model.reference import Reference

_MOST_SHOWN: Final = 20


@click.command("import")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(allow_dash=True, dir_okay=False, path_type=Path),
)
@click.option("--for", "image", metavar="IMAGE", type=IMAGE, help="The image that the files are about.")
@click.option(
    "--severity",
    type=click.Choice(SEVERITIES, case_sensitive=False),
    help="Leave out what is less severe.  [default: leave out nothing]",
)
@click.option("--author", default="", metavar="WHO", help="Who says so.  [default: whom the file names]")
@click.option("--dry-run", is_flag=True, help="Say what would be stated about which images.")
@signing_options
@json_option
@timeout_option
@click.pass_context
def import_(
    ctx: click.Context,
    *,
    files: tuple[Path, ...],
    image: str | None,
    severity: str | None,
    author: str,
    dry_run: bool,
    signing: Signing | None,
    as_json: bool,
) -> None:
    """State what reports of scanners, and advisories of others, say about images.

    FILE is JSON, - for standard input: a report of Trivy (on an image or a cluster), Grype or Snyk,
    SARIF, CycloneDX with vulnerabilities, SPDX 3 with its security profile, CSAF 2.0, or OpenVEX. Images
    are found by the digests, package URLs and names in it, in the registries that these name and in the
    one of the setting `registry`, which knows digests that no tag points to any more. Each image gets one
    document, however many statements it has.

    What a scanner found is left out where somebody has stated that the image does not have it. What is
    stated already is not stated again. What matched no image is listed; exit code 4 if nothing matched.

    JSON: an object with images (name, digest, new, stated, assessed, advisories), unmatched (file, product,
    statements, reason), less_severe, problems, dry_run.
    """
    from digestry.advisories import importing
    from digestry.cli import exit_codes
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load

    settings = load()
    outcome = ImportOutcome(dry_run=dry_run)
    contents = [_named_content(path) for path in files]
    linked = importing.linked_documents([content for content, _ in contents])
    documents = [
        document
        for number, (content, name) in enumerate(contents)
        if number not in linked.lists
        for document in read_documents(content, name, outcome.problems, linked.by_serial)
    ]
    with open_session(settings) as session:
        only = None if image is None else find_target(settings, session, image)
        carry_out(
            settings, session, documents, outcome, only=only, severity=severity or "", author=author,
            signing=signing,
        )  # fmt: skip
    outcome.print(as_json=as_json)
    if outcome.problems:
        ctx.exit(exit_codes.USAGE)
    if not outcome.plan.matched:
        ctx.exit(exit_codes.NOT_FOUND)


def read_documents(
    content: bytes, name: str, problems: list[str], linked: Mapping[str, JsonObject] | None = None
) -> list[ImportFile]:
    """Return the documents in a file, which may refer to ``linked`` ones, and add to ``problems`` what could
    not be read of it."""
    from digestry.advisories import importing
    from digestry.advisories.statements import Document, ForeignDocument
    from digestry.audit.advisory_imports import ImportFile

    documents: list[ImportFile] = []
    for read in importing.read_file(content, linked):
        if isinstance(read, Document):
            documents.append(ImportFile(name, read))
            problems += [f"{name}: {fault}" for fault in read.faults]
        elif isinstance(read, ForeignDocument):
            problems.append(f"{name}: it is {read.kind}, which states nothing about vulnerabilities")
        else:
            problems.append(f"{name}: {read.reason}")
    return documents


def _named_content(path: Path) -> tuple[bytes, str]:
    """Return what a file has, and its name. Raises :class:`InvalidConfiguration`, :class:`TooLarge`."""
    import sys

    from digestry.advisories.importing import LARGEST_FILE
    from digestry.errors import InvalidConfiguration, TooLarge

    name = "standard input" if str(path) == "-" else str(path)
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(LARGEST_FILE + 1)
        else:
            with path.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {name}: {error.strerror}") from error
    if len(content) > LARGEST_FILE:
        raise TooLarge(f"{name} is larger than {LARGEST_FILE} bytes", limit=LARGEST_FILE)
    return content, name


def carry_out(
    settings: Settings,
    session: Session,
    documents: Sequence[ImportFile],
    outcome: ImportOutcome,
    *,
    only: TargetImage | None,
    severity: str,
    author: str,
    signing: Signing | None = None,
) -> None:
    """Plan the import of ``documents`` and, unless it is a dry run, attach what is new, signed or not."""
    import datetime

    from digestry.audit.advisory_imports import ImportPlanner
    from digestry.audit.named_images import ImageFinder
    from digestry.audit.registry_queries import RegistryQueries

    trust = settings.trust()
    queries = RegistryQueries(session, timeout=60, trust=trust)
    host = settings.registry
    registry = session.registry(host)
    finder = ImageFinder(
        queries,
        host,
        registry.tags_for_digest,
        lambda digest: registry.images_with_layer(digest, limit=1),
    )
    now = datetime.datetime.now(datetime.UTC)
    planner = ImportPlanner(queries, finder, only)
    outcome.plan = planner.plan(documents, severity=severity.lower(), author=author, now=now)
    if not outcome.dry_run:
        for one in outcome.plan.images:
            if one.new:
                outcome.published[str(one.image)] = _attach(session, one, trust, signing)


def _attach(
    session: Session, plan: ImagePlan, trust: TrustPolicy, signing: Signing | None
) -> list[PublishedAdvisory]:
    """Attach what is new about an image: a document for each author."""
    from digestry.advisories import publish
    from digestry.audit.registry_queries import RegistryQueries

    target = _target(session, plan.image)
    by_author: dict[str, list[NewStatement]] = {}
    for statement in plan.new:
        by_author.setdefault(statement.author, []).append(statement)
    published = []
    for statements in by_author.values():
        published += publish.attach_statements(
            session,
            target,
            statements,
            new_queries=lambda: RegistryQueries(session, trust=trust),
            signing=signing,
        )
    for advisory in published:
        show_objection(trust, advisory.status, advisory.subject, signing)
    return published


def _target(session: Session, image: Reference) -> TargetImage:
    """Return the image in its registry, also one that the registry had and deleted."""
    from digestry.advisories import publish
    from digestry.advisories.subjects import find_subject
    from digestry.errors import NotFound
    from digestry.model.descriptor import Descriptor

    try:
        return find_subject(session, image, hint="check the name, or push it first")
    except NotFound:
        assert image.digest is not None  # noqa: S101 - for the type checker
        holders = session.repository(image).holders(image.digest)
        for one in holders.holders if holders is not None else ():
            if one.digest == image.digest:
                return publish.TargetImage(image, Descriptor(one.media_type, one.digest, one.size))
        raise


def _counts(plan: ImagePlan) -> dict[str, int]:
    counts: dict[str, int] = {}
    for statement in plan.new:
        counts[statement.status] = counts.get(statement.status, 0) + 1
    return counts


class ImportOutcome:
    """What an import did: its plan, what was attached by image, and what could not be read."""

    def __init__(self, *, dry_run: bool) -> None:
        from digestry.audit.advisory_imports import ImportPlan

        self.dry_run = dry_run
        self.plan = ImportPlan()
        self.published: dict[str, list[PublishedAdvisory]] = {}
        self.problems: list[str] = []

    def print(self, *, as_json: bool) -> None:
        """Print all of it, for people or as JSON."""
        if as_json:
            json_document(self._document())
            return
        self._print_images()
        plan = self.plan
        if self.dry_run and plan.images:
            note("digestry: nothing was written (--dry-run)")
        if plan.less_severe:
            note(f"digestry: {number_of(plan.less_severe, 'statement')} left out by --severity")
        for lost in plan.unmatched[:_MOST_SHOWN]:
            about = f" about {lost.product}" if lost.product else ""
            count = number_of(lost.statements, "statement")
            note(printable(f"digestry: {lost.file}: {count}{about} matched no image: {lost.reason}"))
        if len(plan.unmatched) > _MOST_SHOWN:
            note(f"digestry: and {len(plan.unmatched) - _MOST_SHOWN} products more; --format json lists all")
        for problem in self.problems[:_MOST_SHOWN]:
            note(printable(f"digestry: {problem}"))
        if len(self.problems) > _MOST_SHOWN:
            note(f"digestry: and {len(self.problems) - _MOST_SHOWN} problems more; --format json lists all")
        if not plan.matched and not plan.unmatched and not self.problems:
            note("digestry: nothing is stated about any vulnerability")

    def _print_images(self) -> None:
        rows = []
        for one in self.plan.images:
            counts = _counts(one)
            good = counts.get("fixed", 0) + counts.get("not_affected", 0)
            numbers = (
                counts.get("affected"), counts.get("under_investigation"), good, one.stated, one.assessed,
            )  # fmt: skip
            digest = "-" if one.image.digest is None else one.image.digest.short
            rows.append([one.image.name, digest, *(str(number or "-") for number in numbers)])
        if rows:
            table(["IMAGE", "DIGEST", "AFFECTED", "INVESTIGATED", "GOOD", "STATED", "ASSESSED"], rows)
        for name, advisories in self.published.items():
            for referrer in dict.fromkeys(advisory.referrer for advisory in advisories):
                say(printable(f"{name}: advisory {referrer}"))

    def _document(self) -> AdvisoryImport:
        from digestry.cli import documents

        return documents.AdvisoryImport(
            images=[
                documents.ImportedImage(
                    name=plan.image.name,
                    digest=str(plan.image.digest),
                    new=_counts(plan),
                    stated=plan.stated,
                    assessed=plan.assessed,
                    advisories=list(
                        dict.fromkeys(str(made.referrer) for made in self.published.get(str(plan.image), ()))
                    ),
                )
                for plan in self.plan.images
            ],
            unmatched=[
                documents.UnmatchedProduct(lost.file, lost.product or None, lost.statements, lost.reason)
                for lost in self.plan.unmatched
            ],
            less_severe=self.plan.less_severe,
            problems=self.problems,
            dry_run=self.dry_run,
        )
