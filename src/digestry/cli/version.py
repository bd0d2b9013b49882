"""``digestry version``: print the version."""

from __future__ import annotations

import click

from digestry.cli.output import say
from digestry.version import __version__


@click.command()
def version() -> None:
    """Print the version."""
    say(f"digestry {__version__}")
