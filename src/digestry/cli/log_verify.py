"""``digestry log verify``: verify a history, or a proof, against a registry's transparency log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli import exit_codes
from digestry.cli.image_names import IMAGE
from digestry.cli.log_options import trust_options
from digestry.cli.output import complain, json_document, json_option, note, printable, say
from digestry.cli.timeout_options import timeout_option
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.cli import documents
    from digestry.cli.log_trust import TrustOptions
    from digestry.cli.settings import Settings
    from digestry.errors import ContentError
    from digestry.model.reference import Reference
    from digestry.verifier.bundles import VerifiedBundle
    from digestry.verifier.log_view import LogVerifier
    from digestry.verifier.repository_check import RepositoryReport
    from digestry.verifier.trust import LogTrust

_SCANNED = 200_000


@click.command()
@click.argument("reference", metavar="[REPO[:TAG]]", type=IMAGE, required=False)
@click.option(
    "--bundle",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Verify this proof of `log bundle`, without a network; REPO[:TAG] is what it must be of.",
)
@trust_options
@click.option(
    "--scan",
    type=click.IntRange(min=0),
    default=_SCANNED,
    show_default=True,
    metavar="N",
    help="How many entries of the log to read to find hidden ones; the next call reads on.",
)
@click.option(
    "--trust-anew",
    is_flag=True,
    help="Put aside what was seen of this log, and trust what it shows now.",
)
@json_option
@timeout_option
@click.pass_context
def verify(
    ctx: click.Context,
    *,
    reference: str | None,
    file: Path | None,
    stated: TrustOptions,
    scan: int,
    trust_anew: bool,
    as_json: bool,
) -> None:
    """Verify that the history of REPO, or of its tag, is the one in the registry's transparency log.

    The log's checkpoint must be signed by its key, be cosigned as required, and continue the checkpoint that
    was seen last, which is kept. Each entry of the history must be in it, and each entry that it has of REPO
    in the history. Exit code 1 if something is not so; the checkpoints that contradict each other are kept.

    JSON: an object with registry, repository, tag, origin, size, root, keys, seen_size, seen_at, witnesses,
    witnessed_at, entries (a list of objects with at, tag, event, from_digest, to_digest, number, index,
    state, reason), complete (null if it is not known), complete_reason, problems and evidence.
    """
    from digestry.cli.log_trust import log_trust, open_verifier
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference

    settings = load()
    if reference is None and file is None:
        raise click.UsageError("Give REPO[:TAG], or --bundle FILE.", ctx)
    if file is not None and trust_anew:
        raise click.UsageError("--trust-anew is about a registry, and --bundle asks none.", ctx)
    wanted = None if reference is None else settings.reference(reference)
    verifier = open_verifier(settings, stated)
    if file is not None:
        host = "" if wanted is None else wanted.host
        trust = log_trust(settings, host, stated)
        _verify_bundle(ctx, file, verifier, trust, wanted, as_json=as_json)
        return
    assert wanted is not None  # noqa: S101 - one of the two was given
    if wanted.digest is not None:
        raise InvalidReference(
            f"{reference} has a digest; the history is that of a tag or of a repository",
            hint="a proof can be of a digest: digestry log verify REPO:TAG@DIGEST --bundle FILE",
        )
    if trust_anew:
        kept = verifier.seen.of(wanted.host).put_aside(verifier.now())
        if kept is not None:
            note(printable(f"digestry: what was seen of the log of {wanted.host} is now in {kept}"))
    _verify(ctx, settings, verifier, wanted, scan=scan, as_json=as_json)


def _verify(
    ctx: click.Context,
    settings: Settings,
    verifier: LogVerifier,
    wanted: Reference,
    *,
    scan: int,
    as_json: bool,
) -> None:
    from digestry.cli.sessions import open_session
    from digestry.errors import ContentError
    from digestry.verifier.history import verify_history

    with open_session(settings) as session:
        try:
            report = verify_history(verifier, session.repository(wanted), wanted.tag, most=scan)
        except ContentError as error:
            if as_json:
                json_document(_alarm(wanted, error))
            _complain(error)
            ctx.exit(exit_codes.FINDINGS)
    if as_json:
        json_document(_document(report))
    else:
        _tell(report, wanted)
    if report.problems:
        ctx.exit(exit_codes.FINDINGS)


def _complain(error: ContentError) -> None:
    from digestry.errors import LogContradiction

    alarm = isinstance(error, LogContradiction)
    complain(f"ALARM: {error.message}" if alarm else f"not verified: {error.message}", error.hint)


def _tell(report: RepositoryReport, wanted: Reference) -> None:
    from digestry.translog.notes import parse_note, parse_verifier_key

    view = report.view
    signatures = parse_note(view.note).signatures
    made = [key for key in view.keys if any(map(parse_verifier_key(key.vkey).made, signatures))]
    key = made[-1]  # the newest of those that signed
    why = {
        "first use": f"trusted since {rfc3339(key.since)}, when it was seen first",
        "given": "as it was given",
        "rotated": f"declared by the one before it, {rfc3339(key.since)}",
    }[key.why]
    before = view.before
    seen = (
        "nothing was seen before: from now on it is"
        if before is None
        else f"it continues the {before.size} entries that were seen at {rfc3339(before.at)}"
    )
    count = len(report.entries)
    states = ", ".join(
        f"{number} {state}"
        for state in ("included", "pending", "missing", "different")
        if (number := sum(entry.state == state for entry in report.entries))
    )
    names = ", ".join(each.key.name for each in view.cosignatures)
    fresh = (
        f"cosigned at {rfc3339(view.witnessed_at)} by {names}"
        if view.witnessed_at is not None
        else "not known: no witness states a time"
    )
    complete = "yes" if report.completeness.known else f"not known: {report.completeness.reason}"
    rows = [
        ("log", f"{view.checkpoint.origin}, {view.size} entries"),
        ("key", f"{key.vkey}, {why}"),
        ("seen", seen),
        ("fresh", fresh),
        ("history", f"{count} {'entry' if count == 1 else 'entries'}: {states or 'nothing'}"),
        ("complete", complete),
    ]
    for name, text in rows:
        say(printable(f"{name + ':':<10}{text}"))
    for problem in report.problems:
        say(printable(f"PROBLEM: {problem}"))
    if not report.problems:
        say(printable(f"{wanted}: the history is the log's"))


def _verify_bundle(
    ctx: click.Context,
    file: Path,
    verifier: LogVerifier,
    trust: LogTrust,
    wanted: Reference | None,
    *,
    as_json: bool,
) -> None:
    from digestry.errors import ContentError
    from digestry.fsio import read_file, storage_errors
    from digestry.verifier.bundles import LARGEST, verify_bundle

    with storage_errors("read", file):
        content = read_file(file, LARGEST)
    try:
        found = verify_bundle(content, verifier, trust, wanted=wanted)
    except ContentError as error:
        if as_json:
            json_document(_alarm(wanted, error))
        complain(f"{file}: not verified: {error.message}", error.hint)
        ctx.exit(exit_codes.FINDINGS)
    if as_json:
        json_document(_bundle_document(found))
        return
    entry, checkpoint = found.entry.entry, found.signed.checkpoint
    says = "was deleted" if entry.to_digest is None else f"came to {entry.to_digest}"
    named = f"{found.registry}/{entry.repository}:{entry.tag}"
    say(printable(f"log:       {checkpoint.origin}, {checkpoint.size} entries"))
    say(printable(f"witnesses: {', '.join(each.key.name for each in found.cosignatures) or '-'}"))
    say(printable(f"entry:     {found.entry.index}: {named} {says} at {rfc3339(entry.at)}"))
    note("a proof says that the log had this entry; whether the tag moved later, it does not say")


def _alarm(wanted: Reference | None, error: ContentError) -> documents.LogVerification:
    from digestry.cli import documents

    return documents.LogVerification(
        registry=None if wanted is None else wanted.host,
        repository=None if wanted is None else wanted.repository,
        tag=None if wanted is None else wanted.tag,
        problems=[error.message],
        evidence=getattr(error, "evidence", "") or None,
    )


def _document(report: RepositoryReport) -> documents.LogVerification:
    from digestry.cli import documents

    view = report.view
    return documents.LogVerification(
        registry=view.host,
        repository=report.repository,
        tag=report.tag,
        origin=view.checkpoint.origin,
        size=view.size,
        root=view.checkpoint.root.hex(),
        keys=[documents.LogKey(key.vkey, rfc3339(key.since), key.why) for key in view.keys],
        seen_size=None if view.before is None else view.before.size,
        seen_at=None if view.before is None else rfc3339(view.before.at),
        witnesses=[each.key.name for each in view.cosignatures],
        witnessed_at=None if view.witnessed_at is None else rfc3339(view.witnessed_at),
        entries=[
            documents.LogEntry(
                rfc3339(entry.event.at),
                entry.event.tag,
                entry.event.event,
                entry.event.from_digest,
                entry.event.to_digest,
                entry.event.number,
                entry.index,
                entry.state,
                entry.reason,
            )
            for entry in report.entries
        ],
        complete=True if report.completeness.known else None,
        complete_reason=report.completeness.reason,
        problems=report.problems,
    )


def _bundle_document(found: VerifiedBundle) -> documents.LogVerification:
    from digestry.cli import documents

    entry, checkpoint = found.entry.entry, found.signed.checkpoint
    return documents.LogVerification(
        registry=found.registry,
        repository=entry.repository,
        tag=entry.tag,
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        witnesses=[each.key.name for each in found.cosignatures],
        entries=[
            documents.LogEntry(
                rfc3339(entry.at),
                entry.tag,
                entry.event,
                entry.from_digest,
                entry.to_digest,
                entry.number,
                found.entry.index,
                "included",
                "",
            )
        ],
        complete_reason="a proof is of one entry",
    )
