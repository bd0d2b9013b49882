"""``--timeout``: for how long a command waits for registries, all together."""

from __future__ import annotations

import math
from typing import Final

import click

DEFAULT: Final = 60.0
_KEY: Final = "digestry.timeout"
_LONGEST: Final = 7 * 86400.0


def _keep(ctx: click.Context, _: click.Parameter, value: float) -> None:
    if not math.isfinite(value):
        raise click.BadParameter("it is not a number of seconds")
    ctx.meta[_KEY] = value


timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0, _LONGEST, min_open=True),
    default=DEFAULT,
    show_default=f"{DEFAULT:g}",
    metavar="SECONDS",
    expose_value=False,
    callback=_keep,
    help="Give up when registries have kept this command waiting for so long in all: silent, slower than "
    "1 KiB/s, or asking to wait.",
)
"""Adds ``--timeout`` to a command; :func:`timeout` is what was said."""


def timeout() -> float:
    """The seconds that the command may wait."""
    context = click.get_current_context(silent=True)
    value = DEFAULT if context is None else context.meta.get(_KEY, DEFAULT)
    return float(value)
