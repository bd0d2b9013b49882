"""``digestry audit``: find which digest every container runs, and whether it is affected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli import audit_output, exit_codes
from digestry.cli.timeout_options import Seconds
from digestry.cli.verbose_option import verbose_option

if TYPE_CHECKING:
    from digestry.audit.findings import AuditReport
    from digestry.audit.recording import Recording
    from digestry.audit.reports.grouping import By
    from digestry.audit.reports.words import FailState
    from digestry.audit.timelines import Timeline
    from digestry.cli.audit_output import Wanted
    from digestry.cli.settings import Settings
    from digestry.inventory.observation import Source, Unseen

_FORMATS = ("table", "json", "csv", "sarif", "junit", "markdown", "html")
_SUFFIXES = {
    ".json": "json", ".csv": "csv", ".sarif": "sarif", ".xml": "junit", ".md": "markdown", ".html": "html",
}  # fmt: skip
_FAIL_STATES = ("affected", "not-from-tag", "moved", "unknown", "not-assessed")
_SPELLINGS = {"not-from-tag": "never", "not-assessed": "not_assessed"}
_WITH_FIXES = ("table", "json", "markdown", "html")
_EVERY = 30.0


class _States(click.ParamType[frozenset[str]]):
    """States, separated by commas, such as ``affected,unknown``; ``none`` is none of them."""

    name = "states"

    def convert(
        self, value: str | frozenset[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[str]:
        if isinstance(value, frozenset):
            return value
        words = {word.strip() for word in value.split(",") if word.strip()}
        words = {_SPELLINGS.get(word.replace("_", "-"), word) for word in words}
        known = {_SPELLINGS.get(state, state) for state in _FAIL_STATES}
        unknown = words - {*known, "none"}
        if unknown or not words or (len(words) > 1 and "none" in words):
            self.fail(f"write some of {', '.join(_FAIL_STATES)}, divided by commas, or none", param, ctx)
        return frozenset(words - {"none"})


def _print_schema(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from digestry.audit.reports import values
    from digestry.cli.output import json_document

    json_document(values.schema())
    ctx.exit()


@click.command()
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="KIND[:WHERE]",
    help="Where containers run; repeatable. docker[:URL or CONTEXT], podman[:URL or CONNECTION],"
    " containerd[:SOCKET][?namespace=a,b], cri[:SOCKET],"
    " kubernetes[:CONTEXT][?namespace=a,b&selector=app%3Dx], file:PATH (file:- is standard input;"
    " inventories, and what docker, podman, kubectl, crictl, ctr and nerdctl print, are recognised)."
    " docs/sources.md has them all. Without it: the engines of this machine that answer.",
)
@click.option(
    "--config",
    "fleet_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A fleet file: sources, aliases and mirrors (docs/fleet-file.md).",
)
@click.option(
    "--fleet",
    "fleet_host",
    is_flag=False,
    flag_value="",
    metavar="[HOST]",
    help="What agents reported to a registry, without asking any host (docs/fleet.md). Without HOST: the"
    " setting registry.",
)
@click.option("--all", "include_stopped", is_flag=True, help="Containers that do not run, too.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(_FORMATS),
    help="How to say it.  [default: table, or by the ending of --output]",
)
@click.option(
    "--output",
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write it to a file, all at once when it is complete.",
)  # fmt: skip
@click.option(
    "--by",
    type=click.Choice(["host", "image", "namespace", "advisory"]),
    help="Group the table's rows.  [default: by image if there are more than 20]",
)
@click.option("--all-rows", is_flag=True, help="A row for every container; none share a line.")
@click.option("--no-trunc", is_flag=True, help="Whole digests, names and reasons.")
@click.option(
    "--fail-on",
    type=_States(),
    default="affected",
    show_default=True,
    metavar="STATES",
    help="End with 1 if a container is in one of these: affected, not-from-tag (or never), moved,"
    " unknown, not-assessed; or none.",
)
@click.option(
    "--record",
    is_flag=True,
    help="Report to each digestry registry which of its digests run where, so that it keeps them.",
)
@click.option("--fix-plan", is_flag=True, help="Write the commands that would fix it to a file; run none.")
@click.option(
    "--watch",
    type=click.FloatRange(min=1),
    is_flag=False,
    flag_value=_EVERY,
    metavar="[SECONDS]",
    help=f"Repeat the audit every so many seconds, {_EVERY:g} unless given, until interrupted.",
)
@click.option(
    "--timeout",
    type=Seconds(0.1, 3600),
    default=10.0,
    metavar="SECONDS",
    help="How long to wait for each answer of an engine or a registry.  [default: 10]",
)
@click.option(
    "--time-limit",
    type=Seconds(1),
    default=3600.0,
    metavar="SECONDS",
    help="Ask registries nothing more after so long: what is not known by then is unknown. Of each round of "
    "--watch.  [default: 3600]",
)
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of --format json, and exit.",
)
@verbose_option
def audit(
    *,
    sources: tuple[str, ...],
    fleet_file: Path | None,
    fleet_host: str | None,
    include_stopped: bool,
    format_: str | None,
    output: Path | None,
    by: By | None,
    all_rows: bool,
    no_trunc: bool,
    fail_on: frozenset[FailState],
    record: bool,
    fix_plan: bool,
    watch: float | None,
    timeout: float,
    time_limit: float,
) -> None:
    """Find which digest every container really runs, and whether it is vulnerable.

    The engines report the digests of every container; the images' registries report what those
    digests are, where the tags pointed, and which advisories are attached. Every container is
    counted; what could not be seen is listed under problems.

    With --fleet, the containers are those that agents reported to a registry. They are judged here, with
    your own access to registries. A place that is silent is a problem: what it runs is not known.

    With --record, a message on standard error says what each registry recorded; a registry that could
    not record it is a warning there, and does not change the exit code.

    Exit code 1 if a container is in a state of --fail-on; 3 if none is, but something could not be seen,
    or it is unknown whether the image of a container is affected; 0 only if everything was checked.
    """
    chosen = format_ or (_SUFFIXES.get(output.suffix.lower(), "table") if output else "table")
    if fix_plan and chosen not in _WITH_FIXES:
        raise click.UsageError(f"--fix-plan is for the formats {', '.join(_WITH_FIXES)}")
    if watch and chosen != "table" and output is None:
        raise click.UsageError(f"--watch writes {chosen} to a file only: name it with --output")
    from digestry.audit.reports.table_layout import TableOptions
    from digestry.cli.settings import load

    auditor = _Auditor(
        load(),
        sources,
        fleet_file,
        include_stopped,
        timeout,
        fleet_host=fleet_host,
        time_limit=time_limit,
        record=record,
        again=bool(watch),
    )
    wanted = audit_output.Wanted(
        format=chosen,
        output=output,
        look=TableOptions(width=audit_output.width(output), by=by, every=all_rows, whole=no_trunc),
        fail_on=fail_on,
        fixes=auditor.origins if fix_plan else None,
    )
    if watch:
        audit_output.watch(auditor.run, wanted, seconds=watch, then=auditor.say_recorded)
    report, histories = auditor.run(wanted)
    audit_output.write(report, wanted, histories)
    auditor.say_recorded()
    raise click.exceptions.Exit(_status(report, wanted))


def _status(report: AuditReport, wanted: Wanted) -> int:
    from digestry.audit.reports.words import states

    if any(not wanted.fail_on.isdisjoint(states(finding)) for finding in report.findings):
        return exit_codes.FINDINGS
    unknown = any(finding.assessment.state == "unknown" for finding in report.findings)
    return exit_codes.REMOTE if report.problems or unknown else exit_codes.OK


def _registry(settings: Settings, host: str) -> str:
    from digestry.cli.settings import check_value

    return check_value("registry", host) if host else settings.registry


class _Auditor:
    """An audit with its sources, ready to be run once or again and again."""

    def __init__(
        self,
        settings: Settings,
        sources: tuple[str, ...],
        fleet_file: Path | None,
        include_stopped: bool,
        timeout: float,
        *,
        fleet_host: str | None,
        time_limit: float,
        record: bool,
        again: bool = False,
    ) -> None:
        from digestry.audit.configuration import FleetConfiguration
        from digestry.audit.configuration import load as load_fleet
        from digestry.inventory.gathering import keep
        from digestry.inventory.source_selection import parse_source

        self._settings = settings
        self._fleet_host = fleet_host if fleet_host is None else _registry(settings, fleet_host)
        self._include_stopped = include_stopped
        self._timeout = timeout
        self._time_limit = time_limit
        self._record = record
        self._recording: Recording | None = None
        self._fleet = FleetConfiguration() if fleet_file is None else load_fleet(fleet_file)
        self._sources: list[Source] = [
            parse_source(text, include_stopped=include_stopped, timeout=timeout)
            for text in dict.fromkeys(sources)
        ]
        self._sources += self._fleet.sources(include_stopped=include_stopped, timeout=timeout)
        if again:
            keep(self._sources)

    @property
    def origins(self) -> dict[str, str]:
        """The sources of the fleet file, by name."""
        return {entry.name: entry.text for entry in self._fleet.entries if entry.name}

    def say_recorded(self) -> None:
        """Print what the last run recorded in registries, if it recorded anything."""
        if self._recording is not None:
            audit_output.recorded(self._recording)

    def run(self, wanted: Wanted) -> tuple[AuditReport, list[Timeline]]:
        """Audit, and record if requested; return the tags' histories if the format shows them."""
        from digestry.audit.audit import audit as run
        from digestry.audit.findings import AuditReport
        from digestry.audit.registry_queries import RegistryQueries
        from digestry.audit.timelines import timelines
        from digestry.cli.sessions import client_options
        from digestry.cli.signals import end_promptly
        from digestry.client.session import Session
        from digestry.inventory.source_selection import engines_here, nothing_found

        end_promptly()
        chosen: list[Source] = list(self._sources)
        silent: list[Unseen] = []
        if not chosen and self._fleet_host is None:
            chosen, silent = engines_here(include_stopped=self._include_stopped, timeout=self._timeout)
        if not chosen and self._fleet_host is None:
            # Nothing was looked at: that must not pass for "nothing was found".
            nothing = () if silent else (nothing_found(),)
            return AuditReport((), (*silent, *nothing, *self._fleet.problems)), []
        options = client_options(self._settings).replace(
            insecure_hosts=self._fleet.plain_hosts,
            timeout=self._timeout,
            patience=self._timeout,
            waiting=None,
            longest_command=self._time_limit,
            # So that a registry that limits is one that answered, within the time of one question.
            longest_pause=self._timeout / 4,
            retries=1,
        )
        with Session(options) as session:
            lookup = RegistryQueries(session, timeout=self._timeout, trust=self._settings.trust())
            if self._fleet_host is not None:
                from digestry.inventory.sources.fleet import ReportedFleet

                fleet = session.registry(self._fleet_host).fleet
                chosen = [*chosen, ReportedFleet(self._fleet_host, fleet)]
            report = run(chosen, lookup, names=self._fleet.names)
            histories = timelines(report, lookup) if wanted.format == "html" else []
            if self._record:
                from digestry.audit.recording import record

                self._recording = record(report, lookup, self.origins)
        return replace(report, problems=(*silent, *report.problems, *self._fleet.problems)), histories
