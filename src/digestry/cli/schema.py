"""``digestry schema``: print the JSON Schema of a command's output."""

from __future__ import annotations

import click

from digestry.cli.output import json_document, say


@click.command()
@click.argument("command", metavar="[COMMAND...]", nargs=-1)
def schema(*, command: tuple[str, ...]) -> None:
    """Print the JSON Schema (2020-12) of what COMMAND prints with --format json.

    Without COMMAND, the commands that have one. New keys may be added to an output; no key is removed or
    changes its meaning while the number in the schema's $id stays.
    """
    from digestry.cli.schemas import NAMES, schema_of
    from digestry.model.text import did_you_mean

    if not command:
        for name in NAMES:
            say(name)
        return
    name = " ".join(command)
    if name not in NAMES:
        raise click.UsageError(f"There is no schema of {name!r}{did_you_mean(name, NAMES)}")
    json_document(schema_of(name))
