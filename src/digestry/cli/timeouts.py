"""``--timeout`` and ``--time-limit``: for how long a command waits for registries, and goes on at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

DEFAULT: Final = 30.0
QUESTIONS: Final = 900.0
"""Seconds for a command that asks registries."""
TRANSFERS: Final = 43200.0
"""Seconds for a command that moves images."""
_KEY: Final = "digestry.timeout"
_LIMIT: Final = "digestry.time-limit"
_LONGEST: Final = 7 * 86400.0
_Command = TypeVar("_Command", bound="Callable[..., Any] | click.Command")


def _keep(key: str) -> Callable[[click.Context, click.Parameter, float], None]:
    def keep(ctx: click.Context, _: click.Parameter, value: float) -> None:
        if not math.isfinite(value):
            raise click.BadParameter("it is not a number of seconds")
        ctx.meta[key] = value

    return keep


def _limited(longest: float) -> Callable[[_Command], _Command]:
    timeout = click.option(
        "--timeout",
        type=click.FloatRange(0, _LONGEST, min_open=True),
        default=DEFAULT,
        show_default=f"{DEFAULT:g}",
        metavar="SECONDS",
        expose_value=False,
        callback=_keep(_KEY),
        help="Give up when registries have kept this command waiting for so long in all: silent, slower than "
        "1 KiB/s, or asking to wait.",
    )
    limit = click.option(
        "--time-limit",
        type=click.FloatRange(0, _LONGEST, min_open=True),
        default=longest,
        show_default=f"{longest:g}",
        metavar="SECONDS",
        expose_value=False,
        callback=_keep(_LIMIT),
        help="Give up after so long in all, however well it goes on.",
    )

    def both(command: _Command) -> _Command:
        return timeout(limit(command))

    return both


timeout_option = _limited(QUESTIONS)
"""Adds ``--timeout`` and ``--time-limit`` to a command; :func:`timeout` and :func:`time_limit` are what was
said."""
transfer_timeout_option = _limited(TRANSFERS)
"""The same for a command that moves images."""


def timeout() -> float:
    """The seconds that the command may wait."""
    return _said(_KEY, DEFAULT)


def time_limit() -> float:
    """The seconds that the command may take."""
    return _said(_LIMIT, TRANSFERS)


def _said(key: str, default: float) -> float:
    context = click.get_current_context(silent=True)
    value = default if context is None else context.meta.get(key, default)
    return float(value)
