"""``digestry ls``: list the repositories of a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli import exit_codes
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import note, printable
from digestry.cli.timeout_options import timeout_option

if TYPE_CHECKING:
    from digestry.client.registry import Registry

LISTING = Listing(
    "ls",
    "The repositories of a registry, in the order of their names.",
    (
        Column("repository", "text", "The name in the registry, such as team/app."),
        Column("registry", "text", "The registry's host and port.", shown=False),
        Column("name", "text", "The whole name, with the registry.", shown=False),
    ),
)


@click.command()
@click.argument("registry", metavar="[REGISTRY[/PREFIX]]", required=False)
@click.option("--limit", "-n", type=click.IntRange(min=1), metavar="N", help="Stop after so many.")
@listing_options(LISTING)
@timeout_option
@click.pass_context
def ls(ctx: click.Context, *, registry: str | None, limit: int | None, view: View) -> None:
    """List the repositories of a registry that you may see, by default of the setting `registry`.

    With a PREFIX such as localhost:5000/team, those below it. Exit code 3, and a message, if an entry of the
    list is not a repository, or the list is incomplete; the others are shown.

    JSON: a list of objects with repository, registry, name.
    """
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.model.reference import check_host, check_repository

    settings = load()
    host, _, prefix = (registry or settings.registry).rstrip("/").partition("/")
    check_host(host)
    if prefix:
        check_repository(prefix)
    with open_session(settings) as session:
        names, problems = _names(session.registry(host), prefix, limit)
    view.show([{"repository": name, "registry": host, "name": f"{host}/{name}"} for name in names])
    for problem in problems:
        note(printable(f"{host}: {problem}"))
    if problems:
        ctx.exit(exit_codes.REMOTE)


def _names(registry: Registry, prefix: str, limit: int | None) -> tuple[list[str], list[str]]:
    """Return the names, each once and in their order, and the errors of the list."""
    from digestry.errors import RemoteError

    names: dict[str, None] = {}
    problems: list[str] = []
    try:
        for name in registry.repositories(problems.append):
            if prefix in {"", name} or name.startswith(f"{prefix}/"):
                names.setdefault(name)
            if limit is not None and len(names) >= limit:
                break
    except RemoteError as error:
        if not names and not problems:
            raise
        problems.append(f"the list came short: {error.message}")
    return sorted(names), problems
