"""``digestry audit``: find which digest every container really runs, and whether it is a bad one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli import exit_codes
from digestry.cli.output import complain, format_option, json_document, printable, say, table

if TYPE_CHECKING:
    from digestry.fleet.audit import Report
    from digestry.fleet.sighting import Problem


@click.command()
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="KIND[:WHERE]",
    help="Where containers run; repeatable. docker, docker:URL, podman, podman:URL, file:PATH"
    " (JSON or CSV; file:- is standard input). Without it: the engines of this machine that answer.",
)
@click.option("--all", "include_stopped", is_flag=True, help="Containers that do not run, too.")
@click.option("--no-trunc", is_flag=True, help="Whole digests, names and reasons.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds to wait for each answer of an engine or a registry.",
)
@format_option
def audit(
    sources: tuple[str, ...], include_stopped: bool, no_trunc: bool, timeout: float, format_: str
) -> None:
    """Find which digest every container really runs, and whether it is a bad one.

    Asks the engines for every container's digests, and the images' registries for what those
    digests are, where the tags pointed, and which advisories hang on them. Every container has a
    row; what could not be seen is listed under problems.

    Ends with 1 if something vulnerable runs, and with 3 if nothing vulnerable was found but
    something could not be seen.
    """
    from digestry.cli.settings import load
    from digestry.client.options import ClientOptions
    from digestry.client.session import Session
    from digestry.fleet import reports
    from digestry.fleet.audit import Report
    from digestry.fleet.audit import audit as run
    from digestry.fleet.lookup import Lookup
    from digestry.fleet.sources import answering, parse_source

    settings = load()
    silent: list[Problem] = []
    if sources:
        chosen = [
            parse_source(text, include_stopped=include_stopped, timeout=timeout)
            for text in dict.fromkeys(sources)
        ]
    else:
        chosen, silent = answering(include_stopped=include_stopped, timeout=timeout)
    options = ClientOptions(
        insecure_hosts=frozenset(settings.insecure_registries),
        docker_config=settings.docker_config,
        timeout=timeout,
        retries=1,
    )
    if chosen:
        with Session(options) as session:
            report = run(chosen, Lookup(session, timeout=timeout))
    else:
        # Nothing was looked at: that must not pass for "nothing was found".
        report = Report((), tuple(silent))
    if format_ == "json":
        json_document(reports.as_values(report))
    else:
        if not chosen:
            complain("no container engine answers", "name one with --source, such as docker:tcp://HOST:2375")
        _print(report, trunc=not no_trunc)
    if report.affected:
        raise click.exceptions.Exit(exit_codes.FINDINGS)
    if report.problems:
        raise click.exceptions.Exit(exit_codes.REMOTE)


def _print(report: Report, *, trunc: bool) -> None:
    from digestry.fleet import reports

    if report.findings:
        headings, rows = reports.table(report, trunc=trunc, clean=printable)
        table(headings, rows, styles=[_coloured])
        below = reports.findings(report, trunc=trunc)
        if below:
            say()
            say("FINDINGS")
            for line in below:
                say(printable(line))
        say()
    if report.problems:
        say("PROBLEMS")
        for problem in report.problems:
            say(printable(f"  {problem.source}: {problem.message}"))
            if problem.hint:
                say(printable(f"    hint: {problem.hint}"))
        say()
    say(printable(reports.summary(report)))


def _coloured(cell: str) -> str:
    colours = {"VULNERABLE": "red", "unknown": "yellow", "FIXED": "green"}
    word = cell.strip()
    return click.style(cell, fg=colours.get(word), bold=word == "VULNERABLE")
