"""Questions on the terminal before something is removed."""

from __future__ import annotations

import sys

import click

from digestry.cli.output import note, printable


def confirmed(question: str) -> bool:
    """Return whether the user answers a question with yes; a no is acknowledged.

    Raises :class:`click.UsageError` without a terminal, and :class:`click.Abort` if the user interrupts.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("Without a terminal, --yes must say that this is to be removed.")
    if click.confirm(printable(question), err=True):
        return True
    note("nothing was removed")
    return False
