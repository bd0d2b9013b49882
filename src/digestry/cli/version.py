"""``digestry version``."""

from __future__ import annotations

import click

from digestry import __version__
from digestry.cli.output import say


@click.command()
def version() -> None:
    """Print the version."""
    say(f"digestry {__version__}")
