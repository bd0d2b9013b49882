"""``digestry sync``: copy the images that a file declares, once or repeatedly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from digestry.cli.age_options import min_age_option
from digestry.cli.log_options import verify_log_option
from digestry.cli.output import complain, human_size, json_document, json_option, note, printable, table
from digestry.cli.timeout_options import Seconds, transfer_timeout_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from digestry.copy.sync import Synced

_SHORTEST: Final = 10.0


@click.command()
@click.argument("file", metavar="FILE")
@verify_log_option
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and copy nothing.")
@click.option(
    "--every",
    type=Seconds(_SHORTEST),
    metavar="SECONDS",
    help="Repeat it, with this pause after each round, until interrupted.  [default: once]",
)
@min_age_option()
@json_option
@transfer_timeout_option
def sync(
    *, file: str, verify_log: bool, dry_run: bool, every: float | None, min_age: int | None, as_json: bool
) -> None:
    """Copy images as FILE declares; only what has changed moves.

    FILE is TOML (or YAML, if it is called so): a [[copy]] with source and target as `copy` takes them, and
    all-tags, tags (patterns), platforms, referrers, min-age; --min-age is for the copies that state none.
    After a failure the others are still copied; the exit code is that of the first failure.

    JSON: dry_run, copies (a list of objects with source, target, images, bytes_sent, error).
    """
    import time
    from pathlib import Path

    from digestry.cli import exit_codes
    from digestry.cli.sessions import open_session, open_surroundings
    from digestry.cli.settings import load
    from digestry.copy.sync import sync as sync_all
    from digestry.copy.sync_file import read_sync_file

    settings = load()
    while True:
        done: list[Synced] = []
        with open_session(settings) as session:
            around = open_surroundings(settings, session, verify_log=verify_log)
            # Read anew for each round: it may have been changed.
            copies = read_sync_file(Path(file), settings.reference, min_age=min_age)
            for synced in sync_all(
                copies,
                around,
                dry_run=dry_run,
                parallel=session.options.parallel,
                tell=lambda text: note(printable(text)),
            ):
                done.append(synced)
                if synced.error is not None:
                    complain(f"{synced.request.source}: {synced.error.message}", synced.error.hint)
        if as_json:
            _print_json(done, dry_run)
        else:
            _print(done, dry_run)
        if every is None:
            break
        time.sleep(every)
    failed = next((synced.error for synced in done if synced.error is not None), None)
    if failed is not None:
        raise SystemExit(exit_codes.of(failed))


def _print(done: Sequence[Synced], dry_run: bool) -> None:
    rows = []
    for synced in done:
        if synced.result is None:
            rows.append([synced.request.source.text, synced.request.target.text, "-", "-", "failed"])
            continue
        count = f"{synced.moved} of {len(synced.result.images)}"
        state = ("would copy" if dry_run else "copied") if synced.moved else "up to date"
        rows.append(
            [
                synced.request.source.text,
                synced.request.target.text,
                count,
                human_size(synced.result.bytes_sent),
                state,
            ]
        )
    table(["SOURCE", "TARGET", "CHANGED", "SENT", "STATE"], rows)


def _print_json(done: Sequence[Synced], dry_run: bool) -> None:
    from digestry.cli import documents
    from digestry.cli.copy import copied_document

    json_document(
        documents.Sync(
            dry_run=dry_run,
            copies=[
                documents.DeclaredCopy(
                    source=synced.request.source.text,
                    target=synced.request.target.text,
                    images=[]
                    if synced.result is None
                    else [copied_document(image) for image in synced.result.images],
                    bytes_sent=0 if synced.result is None else synced.result.bytes_sent,
                    error=None if synced.error is None else synced.error.message,
                )
                for synced in done
            ],
        )
    )
