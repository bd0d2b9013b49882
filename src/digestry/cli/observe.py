"""``digestry observe``: observe where the tags of other registries point, and report what moved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.command_group import Group
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.observe_report import report
from digestry.cli.output import note, printable, say
from digestry.cli.registry_options import registry_options
from digestry.model.text import length_of_time, number_of

if TYPE_CHECKING:
    from digestry.catalog.catalog import Catalog
    from digestry.registry.config import RegistryConfig

LISTING: Final = Listing(
    "observe list",
    "The repositories of other registries that are observed.",
    (
        Column("name", "text", "The repository, with its registry.", heading="REPOSITORY"),
        Column("tags", "texts", "Patterns of the tags that are observed."),
        Column(
            "every",
            "number",
            "The interval, in seconds.",
            show=lambda row, _: length_of_time(float(str(row["every"]))),
        ),
        Column("keep", "flag", "Whether all content is fetched."),
        Column("observed", "number", "How many tags are observed now.", heading="TAGS NOW"),
        Column("late", "number", "For how many seconds an observation is due, at most.", shown=False),
        Column("by", "text", "Who asked for it: configuration or command.", heading="BY"),
        Column("repository", "text", "The repository of this registry that records it.", heading="HERE"),
    ),
)

_LONGEST_KEPT: Final = 3650 * 86400.0


@click.group(cls=Group)
def observe() -> None:
    """Observe where the tags of other registries point, and report what moved.

    A registry asks again and again, and writes each move into the journal of the repository that mirrors the
    other one. [observe] in registry.toml says what is observed; so does the command add, at once and without
    a change of that file.
    """


observe.add_command(report)


@observe.command()
@registry_options
@click.option(
    "--tag", "-t", "tags", multiple=True, metavar="PATTERN", help="Which tags, such as 3.*  [default: *]"
)
@click.option(
    "--every", default="5min", show_default=True, metavar="TIME", help="How often each is asked for."
)
@click.option(
    "--keep", is_flag=True, help="Fetch all content of each image, not its manifests and configs alone."
)
@click.option(
    "--keep-for",
    metavar="TIME",
    help="With --keep: for how long an image is kept after a tag left it.  [default: while it is observed]",
)
@click.argument("repository")
def add(
    *,
    registry: RegistryConfig,
    tags: tuple[str, ...],
    every: str,
    keep: bool,
    keep_for: str | None,
    repository: str,
) -> None:
    """Observe REPOSITORY, as docker names it: alpine, or ghcr.io/team/app.

    A running registry begins within seconds. How its registry is asked (its address, a login, a certificate
    authority) is said by its [mirror] or [observe-registry] section of registry.toml; without one it is asked
    over HTTPS without a login.
    """
    from digestry.catalog import clock
    from digestry.catalog.observation_plan import ObservationRule
    from digestry.errors import Conflict, InvalidConfiguration
    from digestry.model.name_pattern import check_pattern
    from digestry.model.reference import check_repository
    from digestry.registry.observability.audit_events import note_command, operator
    from digestry.registry.observe_config import LONGEST, SHORTEST, repository_name
    from digestry.registry.observed_targets import obstacles, targets

    name = repository_name(repository)
    patterns = tuple(check_pattern(tag) for tag in dict.fromkeys(tags)) or ("*",)
    seconds = _seconds(every, "--every", SHORTEST, LONGEST)
    if keep_for is not None and not keep:
        raise click.UsageError("--keep-for needs --keep.")
    kept = (
        None if keep_for is None else int(_seconds(keep_for, "--keep-for", 1, _LONGEST_KEPT) * clock.SECOND)
    )
    if any(one.name == name for one in registry.observe.repositories):
        raise Conflict(f"{name} is observed already: registry.toml says so")
    command = "digestry observe add"
    interval = int(seconds * clock.SECOND)
    rule = ObservationRule(name, patterns, interval, keep, clock.now(), operator(command)["user"], kept)
    (target,) = [one for one in targets(registry, [rule]) if one.name == name]
    check_repository(target.local_name)
    if registry.read_only:
        raise InvalidConfiguration("this registry is read-only: it observes nothing")
    catalog = _open(registry)
    try:
        plan = catalog.observation_plan
        others = [one for one in plan.rules() if one.repository != name]
        reason = obstacles(registry, plan, targets(registry, [*others, rule])).get(name)
        if reason is not None:
            host = target.registry.host
            raise Conflict(
                f"{name} cannot be observed: {reason}",
                hint=f'give it another name here: a prefix in [observe-registry."{host}"] of registry.toml',
            )
        plan.add(rule)
    finally:
        catalog.close()
    note_command(registry.scratch, command, "add-observation", repository=target.local_name, of=name)
    say(printable(f"{name} is observed every {length_of_time(seconds)}, as {target.local_name}"))


def _seconds(text: str, option: str, least: float, most: float) -> float:
    from digestry.registry import toml

    try:
        found = toml.span(least, most)(text, toml.Where(Path()))
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint=option) from error
    assert isinstance(found, float)  # noqa: S101 - for the type checker
    return found


@observe.command()
@registry_options
@click.argument("repository")
def remove(registry: RegistryConfig, repository: str) -> None:
    """Observe REPOSITORY no longer. What was observed stays: the journal, and the images, for as long as
    garbage collection keeps what no tag points to."""
    from digestry.errors import Conflict
    from digestry.registry.observability.audit_events import note_command
    from digestry.registry.observe_config import repository_name

    name = repository_name(repository)
    if any(one.name == name for one in registry.observe.repositories):
        raise Conflict(f"registry.toml says that {name} is observed", hint="remove its section there")
    catalog = _open(registry)
    try:
        catalog.observation_plan.remove(name)
    finally:
        catalog.close()
    note_command(registry.scratch, "digestry observe remove", "remove-observation", of=name)
    say(printable(f"{name} is observed no longer"))


@observe.command("list")
@registry_options
@listing_options(LISTING)
def list_(registry: RegistryConfig, view: View) -> None:
    """List what is observed.

    JSON: a list of objects with name, tags (patterns), every (seconds), keep, observed (how many tags), late
    (seconds), by (configuration or command) and repository.
    """
    from digestry.catalog import clock
    from digestry.registry.observed_targets import targets

    catalog = _open(registry)
    try:
        plan = catalog.observation_plan
        counts, now = plan.repositories(), registry.backend().now()
        rows = [
            {
                "name": one.name,
                "tags": list(one.patterns),
                "every": one.interval // clock.SECOND,
                "keep": one.keep,
                "observed": max(0, counts.get(one.local_name, 0) - one.lists),
                "late": plan.lag(now, one.local_name) // clock.SECOND,
                "by": "command" if one.by_command else "configuration",
                "repository": one.local_name,
            }
            for one in targets(registry, plan.rules())
        ]
    finally:
        catalog.close()
    view.show(rows)


@observe.command()
@registry_options
@click.option("--due", is_flag=True, help="Only what is due, and not all.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=600.0, show_default=True, metavar="SECONDS",
    help="Stop after so long; the rest stays due.",
)  # fmt: skip
@click.argument("repositories", nargs=-1, metavar="[REPOSITORY]...")
@click.pass_context
def run(
    ctx: click.Context, *, registry: RegistryConfig, due: bool, timeout: float, repositories: tuple[str, ...]
) -> None:
    """Observe all, or REPOSITORIES, once and at once, and say what moved and what could not be asked.

    If the registry is served, the observation is its server's; else this command makes it.

    Exit code 1 if something moved, 3 if something could not be observed.
    """
    from digestry.cli import exit_codes
    from digestry.cli.observe_report import address_of, tell_gaps, tell_moves
    from digestry.cli.serve import upstream
    from digestry.observer.single_round import observe_all_once
    from digestry.registry.observe_config import repository_name
    from digestry.registry.root import check_user

    names = {repository_name(one) for one in repositories}
    backend = registry.backend()
    catalog = _open(registry)
    check_user(backend)
    try:
        found = observe_all_once(registry, backend, catalog, upstream, names=names, due=due, seconds=timeout)
    finally:
        catalog.close()
    if not found.report.repositories:
        note("digestry: nothing is observed: say what, with digestry observe add")
    tell_moves(found.report, address_of(registry))
    tell_gaps(found.report)
    if found.unfinished:
        note(f"digestry: {number_of(found.unfinished, 'observation')} did not end in time")
    count = number_of(len(found.report.repositories), "repository", "repositories")
    say(f"{count}, {number_of(found.answered, 'answer')}, {found.failed} failed")
    if found.failed or found.unfinished:
        ctx.exit(exit_codes.REMOTE)
    if found.report.moves:
        ctx.exit(exit_codes.FINDINGS)


def _open(registry: RegistryConfig) -> Catalog:
    backend = registry.backend()
    backend.catalog_store.check_schema()  # a directory that is no registry must not become one
    return backend.open_catalog()
