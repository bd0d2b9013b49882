"""Groups of commands that suggest a command for one that does not exist."""

from __future__ import annotations

from typing import Final

import click

from digestry.model.text import did_you_mean

# What other tools call them.
_ELSEWHERE: Final = {
    "build": "pack",
    "commit": "pack",
    "cp": "copy",
    "import": "load",
    "mirror": "copy",
    "image": "images",
    "list": "images",
    "catalog": "ls",
    "delete": "rm",
    "ps": "audit",
    "scan": "audit",
    "vex": "advisory",
}


class Group(click.Group):
    """A group that proposes a command for one that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` begin with. Raises :class:`click.UsageError`."""
        name = args[0]
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        known = self.list_commands(ctx)
        other = _ELSEWHERE.get(name)
        proposal = f". Did you mean {other}?" if other in known else did_you_mean(name, known)
        return ctx.fail(f"There is no command {name!r}{proposal}")
