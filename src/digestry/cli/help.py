"""``digestry help``: print the help of a command."""

from __future__ import annotations

import click

from digestry.cli.output import say


@click.command("help")
@click.argument("command", metavar="[COMMAND...]", nargs=-1)
@click.option("--man", is_flag=True, help="Print the man page, for man(1) or a file.")
@click.pass_context
def help_(ctx: click.Context, *, command: tuple[str, ...], man: bool) -> None:
    """Print the help of COMMAND, as COMMAND --help does; without one, the list of all commands."""
    from digestry.cli.man_pages import page

    found, context = find_command(ctx, command)
    say(page(found, context) if man else found.get_help(context), end="" if man else "\n")


def find_command(ctx: click.Context, names: tuple[str, ...]) -> tuple[click.Command, click.Context]:
    """Return a command by its names, and a context for its help. Raises :class:`click.UsageError`."""
    from digestry.cli.man_pages import root_context

    root = ctx.find_root()
    context, command = root_context(root.command), root.command
    for name in names:
        inner = None
        if isinstance(command, click.Group):
            inner = command.resolve_command(context, [name])[1]
        if inner is None:
            raise click.UsageError(f"{context.command_path} has no commands of its own.")
        command, context = inner, click.Context(inner, parent=context, info_name=name)
    return command, context
