"""``digestry scan``: have a scanner look at an image, and state what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.advisories.statements import SEVERITIES
from digestry.cli.advised_image import find_target
from digestry.cli.advisory_import import (
    ImportOutcome,
    carry_out,
    read_documents,
)
from digestry.cli.image_location import local_option
from digestry.cli.image_names import IMAGE
from digestry.cli.output import json_option, note, printable
from digestry.cli.signing_options import signing_options
from digestry.cli.timeout_options import transfer_timeout_option

if TYPE_CHECKING:
    from digestry.advisories.attestation_forms import Signing
    from digestry.advisories.publish import TargetImage
    from digestry.advisories.scanners import Scanner
    from digestry.audit.advisory_imports import ImportFile
    from digestry.cli.settings import Settings
    from digestry.client.session import Session
    from digestry.model.platform import Platform


@click.command()
@click.argument("image", metavar="IMAGE", type=IMAGE)
@click.option(
    "--scanner",
    default="",
    metavar="NAME|COMMAND",
    envvar="DIGESTRY_SCANNER",
    help="trivy, grype, or a command in which {layout} is the image's folder.  [default: what is installed]",
)
@click.option(
    "--platform",
    "platforms",
    metavar="OS/ARCH",
    multiple=True,
    help="An image of an index to scan; may be given several times.  [default: this machine's]",
)
@local_option
@click.option(
    "--severity",
    type=click.Choice(SEVERITIES, case_sensitive=False),
    help="Leave out what is less severe.  [default: leave out nothing]",
)
@click.option("--dry-run", is_flag=True, help="Scan, say what would be stated, and state nothing.")
@signing_options
@json_option
@transfer_timeout_option
@click.pass_context
def scan(
    ctx: click.Context,
    *,
    image: str,
    scanner: str,
    platforms: tuple[str, ...],
    local: bool,
    severity: str | None,
    dry_run: bool,
    signing: Signing | None,
    as_json: bool,
) -> None:
    """Have a scanner look at an image, and state what it finds as advisories of the image.

    The image is fetched and verified by digestry, by its digest, and given to the scanner as a folder; so the
    scanner needs no login. What it finds is stated as by `advisory import`: a document for each image. The
    scanner's messages, and where it gets its database from, are its own. With --local the bytes come from the
    local store; the advisories are in the registry all the same.

    JSON: as of `digestry advisory import`.
    """
    from digestry.advisories.scanners import find_scanner
    from digestry.cli import exit_codes
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.model.platform import Platform

    program = find_scanner(scanner)
    chosen = tuple(Platform.chosen(text) for text in platforms) or (Platform.of_host(),)
    settings = load()
    outcome = ImportOutcome(dry_run=dry_run)
    with open_session(settings) as session:
        target = find_target(settings, session, image)
        scanning = _Scanning(settings, session, target, program, local=local)
        documents = scanning.reports(chosen, outcome)
        carry_out(
            settings, session, documents, outcome, only=target, severity=severity or "",
            author=scanning.author(documents), signing=signing,
        )  # fmt: skip
    outcome.print(as_json=as_json)
    if outcome.problems or outcome.plan.unmatched:
        ctx.exit(exit_codes.REMOTE)


class _Scanning:
    """The scans of one image."""

    def __init__(
        self, settings: Settings, session: Session, target: TargetImage, scanner: Scanner, *, local: bool
    ) -> None:
        self._settings = settings
        self._session = session
        self._target = target
        self._scanner = scanner
        self._local = local

    def reports(self, platforms: tuple[Platform, ...], outcome: ImportOutcome) -> list[ImportFile]:
        """Return the reports on the image for each platform; an image that is no index has one."""
        import tempfile

        from digestry.advisories.importing import LARGEST_FILE
        from digestry.advisories.scanners import run_scanner
        from digestry.model import media_types

        is_index = self._target.descriptor.media_type in media_types.INDEXES
        documents: list[ImportFile] = []
        home = self._settings.store.with_name("transfers")
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix="scan-", dir=home) as folder:
            for number, platform in enumerate(platforms if is_index else platforms[:1]):
                layout = Path(folder) / str(number)
                self._fetch(layout, (platform,) if is_index else ())
                what = f"{self._target.image.name} for {platform}" if is_index else str(self._target.image)
                note(printable(f"digestry: {self._scanner.name} scans {what}"))
                report = run_scanner(self._scanner, layout, limit=LARGEST_FILE)
                documents += read_documents(report, self._scanner.name, outcome.problems)
        return documents

    def author(self, documents: list[ImportFile]) -> str:
        """Return who states it: the scanner with its version, and the date of its database."""
        from digestry.advisories.scanner_reports import with_database
        from digestry.advisories.scanners import database_date

        said = next((one.document.author for one in documents if one.document.author), self._scanner.name)
        return with_database(said, database_date(self._scanner))

    def _fetch(self, layout: Path, platforms: tuple[Platform, ...]) -> None:
        from digestry.cli.sessions import open_surroundings
        from digestry.copy.copy import CopyOptions
        from digestry.copy.location import parse_location
        from digestry.copy.request import CopyRequest, run_copy

        around = open_surroundings(self._settings, self._session)
        transport = "local:" if self._local else "docker://"
        request = CopyRequest(
            parse_location(f"{transport}{self._target.image}", around.read),
            parse_location(f"oci:{layout}:scan", around.read),
        )
        run_copy(request, around, CopyOptions(platforms, parallel=self._session.options.parallel))
