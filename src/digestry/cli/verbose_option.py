"""``--verbose``: each request to a registry on standard error, as it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import click

_KEY: Final = "digestry.verbose"
_Command = TypeVar("_Command", bound="Callable[..., object] | click.Command")


def keep(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Remember the option's value for the whole command line."""
    if value:
        ctx.meta[_KEY] = True


def verbose_option(command: _Command) -> _Command:
    """Add ``--verbose`` to a command; :func:`request_printer` evaluates it."""
    return click.option(
        "--verbose",
        "-v",
        is_flag=True,
        expose_value=False,
        callback=keep,
        help="Say each request to a registry as it is made, without logins.",
    )(command)


def request_printer() -> Callable[[str], None] | None:
    """Return a function that prints a line for each request, or None without the option."""
    context = click.get_current_context(silent=True)
    if context is None or not context.meta.get(_KEY):
        return None
    from digestry.cli.output import note, printable

    return lambda line: note(printable(line))
