"""``digestry scrub``: read all content of a registry again, and report what is damaged."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from digestry.cli import exit_codes
from digestry.cli.output import complain, human_size, json_document, json_option, note, say, table
from digestry.cli.registry_options import registry_options
from digestry.model.text import number_of
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.backend import Backend
    from digestry.blobs.protocols import BlobStore
    from digestry.catalog.catalog import Catalog
    from digestry.catalog.damage import Affected, DamagedContent
    from digestry.cli import registry_documents as documents
    from digestry.model.digest import Digest
    from digestry.model.digest_prefix import DigestPrefix
    from digestry.registry.config import RegistryConfig
    from digestry.registry.scrub import Pass

_MOST: Final = 1000
_TAGS: Final = 20
_TAGS_IN_A_CELL: Final = 3
_RATE: Final = "100 MiB"


def _speed(_: click.Context, __: click.Parameter, value: str) -> int:
    from digestry.registry import scrub, toml

    try:
        found = toml.size(int(value) if re.fullmatch("[0-9]{1,15}", value) else value, toml.Where(Path()))
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
    if found < scrub.SLOWEST:
        raise click.BadParameter(f"{scrub.SLOWEST >> 10} KiB a second or more are required.")
    return found


@click.command()
@registry_options
@click.option(
    "--rate",
    metavar="SIZE",
    callback=_speed,
    default=_RATE,
    show_default=True,
    help="The most to read per second.",
)
@click.option("--from-start", is_flag=True, help="Start a new pass, rather than continue the last one.")
@click.option(
    "--list", "list_only", is_flag=True, help="Read nothing; only list what is known to be damaged."
)
@json_option
@click.argument("digests", metavar="[DIGEST]...", nargs=-1)
@click.pass_context
def scrub(
    ctx: click.Context,
    *,
    registry: RegistryConfig,
    rate: int,
    from_start: bool,
    list_only: bool,
    as_json: bool,
    digests: tuple[str, ...],
) -> None:
    """Read all content of a registry again, and find what is damaged.

    With DIGESTs (the first 7 or more digits are enough), only that content, at once: for example content
    that a client received damaged.

    Content that does not match its digest is moved to ROOT/quarantine, and no longer served: a push of an
    image that contains it restores it. A served registry does the same on its own schedule; one scrub runs
    at a time. After an interruption the next call continues. Exit code 1 if anything is damaged, now or
    from before.

    JSON: an object with pass (null if there was none; else started_at, finished_at, blobs, bytes,
    damaged, unread), and damaged, the first 1000: digest, problem, found_at, files in quarantine, and
    repositories, each with name, the tags that need it, and how many more_tags there are.
    """
    from digestry.model.digest_prefix import DigestPrefix
    from digestry.registry.root import check_user
    from digestry.registry.scrub import last

    if from_start and digests:
        raise click.UsageError("--from-start is for all that the registry holds.")
    prefixes = [DigestPrefix.parse(text) for text in dict.fromkeys(digests)]
    backend = registry.backend()
    backend.catalog_store.check_schema()  # a directory that is no registry must not become one
    catalog = backend.open_catalog()
    try:
        among = [_whole(catalog, backend, prefix) for prefix in prefixes]
        if list_only:
            found = last(catalog)
        else:
            check_user(backend)
            found = _run(catalog, backend, registry.scratch, rate, from_start=from_start, among=among)
        rows = catalog.damage.listed(limit=_MOST, among=among)
        damaged = len(rows) if among else catalog.damage.count()
        if as_json:
            from digestry.cli import registry_documents as documents

            last_pass = None if found is None else _pass(found)
            json_document(documents.Scrub(last_pass, _damaged(catalog, backend.blobs, rows)))
        else:
            _tell(catalog, backend.blobs, found, rows, damaged)
    finally:
        catalog.close()
    if found is not None and found.finished_at is None and not list_only:
        ctx.exit(exit_codes.INTERRUPTED)
    if damaged:
        ctx.exit(exit_codes.FINDINGS)
    if found is not None and found.unread and not list_only:
        ctx.exit(exit_codes.STORAGE)


def _whole(catalog: Catalog, backend: Backend, prefix: DigestPrefix) -> Digest:
    """Return the one digest with this prefix that the registry holds. Raises NotFound and Ambiguous."""
    digest = prefix.whole or prefix.only_match(
        catalog.digest_prefixes.of_content(prefix, limit=20), f"the registry in {backend.location}"
    )
    if str(prefix) != str(digest):
        note(f"{prefix} is {digest}")
    return digest


def _run(
    catalog: Catalog, backend: Backend, scratch: Path, rate: int, *, from_start: bool, among: Sequence[Digest]
) -> Pass:
    import logging

    from digestry.errors import Conflict
    from digestry.registry import scrub as scrubbing
    from digestry.registry.observability.audit_events import DamageEvents, operator
    from digestry.registry.observability.audit_log import AuditLog, recorded_path

    # The lines that a server would log are in the table at the end.
    scrubbing.log.addHandler(logging.NullHandler())
    stop = threading.Event()
    audit = AuditLog(recorded_path(scratch), scratch)
    findings = DamageEvents(audit, operator("digestry scrub"))
    try:
        with _watching() as watch, _stopping(stop):
            job = scrubbing.Scrub(catalog, backend, rate=rate, note=findings)
            all_of_it = partial(job.run, from_start=from_start, watch=watch)
            found = job.look_at(among, stop) if among else all_of_it(stop)
    except Conflict as error:
        under_way = scrubbing.last(catalog)
        far = (
            ""
            if under_way is None
            else f" ({under_way.done:.0%} done, {human_size(under_way.rate)} a second)"
        )
        hint = "--list tells what is known; a served registry's own scrub is set in [scrub] of registry.toml"
        raise Conflict(f"{error.message}{far}", hint=hint) from error
    finally:
        audit.close()
    if found.finished_at is None and not among:
        note(f"interrupted at {found.done:.0%}; call it again to go on there")
    for problem in found.problems:
        complain(problem)
    return found


@contextlib.contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Make SIGINT and SIGTERM end the scrub between two reads, so that its position is kept."""
    import signal

    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _watching() -> Iterator[Callable[[Pass], None]]:
    """Yield the display of the progress: a bar on a terminal, nothing elsewhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=1.0, told="")

        def watch(current: Pass) -> None:
            counts = f"{current.blobs} blobs, {human_size(current.bytes)}, {current.damaged} damaged"
            progress.update(task, completed=current.done, told=counts)

        yield watch


def _tell(
    catalog: Catalog, blobs: BlobStore, found: Pass | None, rows: list[DamagedContent], damaged: int
) -> None:
    from digestry.catalog import clock
    from digestry.registry.quarantine import HEALS

    if damaged:
        table(
            ["DIGEST", "FOUND", "PROBLEM", "NEEDED BY"],
            [
                [
                    str(row.digest),
                    rfc3339(clock.to_datetime(row.found_at)),
                    row.problem,
                    ", ".join(map(_cell, catalog.damage.affected(row.digest, limit=_TAGS_IN_A_CELL))) or "-",
                ]
                for row in rows
            ],
        )
        if damaged > len(rows):
            note(f"and {damaged - len(rows)} more")
    say(f"{_summary(found)}; {damaged} damaged now")
    if damaged:
        note(f"  hint: {HEALS}; what was bad is kept in the quarantine of {blobs.location}")


def _summary(found: Pass | None) -> str:
    from digestry.catalog import clock

    if found is None:
        return "nothing was scrubbed yet"
    if found.finished_at is None:
        state = f"a scrub is at {found.done:.0%}"
    else:
        state = f"scrubbed until {rfc3339(clock.to_datetime(found.finished_at))}"
    unread = f", {found.unread} could not be read" if found.unread else ""
    return f"{state}: {number_of(found.blobs, 'blob')}, {human_size(found.bytes)}{unread}"


def _cell(affected: Affected) -> str:
    if not affected.tags:
        return affected.repository
    more = f" and {affected.more} more" if affected.more else ""
    return f"{affected.repository}:{','.join(affected.tags)}{more}"


def _pass(found: Pass) -> documents.ScrubPass:
    from digestry.catalog import clock
    from digestry.cli import registry_documents as documents

    return documents.ScrubPass(
        started_at=rfc3339(clock.to_datetime(found.started_at)),
        finished_at=None if found.finished_at is None else rfc3339(clock.to_datetime(found.finished_at)),
        blobs=found.blobs,
        bytes=found.bytes,
        damaged=found.damaged,
        unread=found.unread,
    )


def _damaged(catalog: Catalog, blobs: BlobStore, rows: list[DamagedContent]) -> list[documents.DamagedBlob]:
    from digestry.catalog import clock
    from digestry.cli import registry_documents as documents

    return [
        documents.DamagedBlob(
            digest=str(row.digest),
            problem=row.problem,
            found_at=rfc3339(clock.to_datetime(row.found_at)),
            files=[blob.name for blob in blobs.quarantined(row.digest)],
            repositories=[
                documents.DamagedRepository(affected.repository, affected.tags, affected.more)
                for affected in catalog.damage.affected(row.digest, limit=_TAGS)
            ],
        )
        for row in rows
    ]
