"""Groups of commands that suggest a command for one that does not exist."""

from __future__ import annotations

from typing import Final

import click

from digestry.model.text import did_you_mean

_WHOLE: Final = 300
"""Characters of a command's first sentence that a list of commands has."""


class Group(click.Group):
    """A group that proposes a command for one that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` begin with. Raises :class:`click.UsageError`."""
        name = args[0]
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        from digestry.cli.other_tools import command_for, is_of_engines

        # The name of the program is not one of the command's words.
        before = ctx.command_path.split()[1:]
        words = [*before, *(word for word in args if not word.startswith("-"))]
        other = command_for(words)
        if other:
            return ctx.fail(f"There is no command {name!r}. Did you mean digestry {other}?")
        if not before and is_of_engines(name):
            return ctx.fail(
                f"There is no command {name!r}: digestry runs no containers, an engine does. "
                "Did you mean digestry audit, which shows what image each runs?"
            )
        return ctx.fail(f"There is no command {name!r}{did_you_mean(name, self.list_commands(ctx))}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, each with the whole first sentence of its help."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(_WHOLE)) for name, one in found if one is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class CommandWithCommands(Group):
    """A command that takes arguments of its own, and has commands as well.

    The first word is one of these commands if another word follows. Alone, or after ``--``, it is an
    argument.
    """

    allow_interspersed_args = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments of the command itself, or leave them to the command that they name."""
        if len(args) > 1 and args[0] in self.commands:
            ctx.invoked_subcommand = args[0]
            ctx.args = args
            return args
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command itself, or the one that was named."""
        if ctx.invoked_subcommand is None:
            return click.Command.invoke(self, ctx)
        name, command, args = self.resolve_command(ctx, ctx.args)
        assert command is not None  # noqa: S101 - its name was found
        with command.make_context(name, args, parent=ctx) as inner:
            return inner.command.invoke(inner)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters; the usage of a command of this one is written without them."""
        return super().get_params(ctx) if ctx.command is self else []

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the words of the usage, which is that of the command itself."""
        return click.Command.collect_usage_pieces(self, ctx)
