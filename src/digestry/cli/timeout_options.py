"""``--timeout`` and ``--time-limit``: limits on waiting for registries, and on the whole command."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeVar

import click

from digestry.cli.verbose_option import verbose_option

DEFAULT: Final = 30.0
QUESTIONS: Final = 900.0
"""Seconds for a command that asks registries."""
TRANSFERS: Final = 43200.0
"""Seconds for a command that moves images."""
_KEY: Final = "digestry.timeout"
_LIMIT: Final = "digestry.time-limit"
_LONGEST: Final = 7 * 86400.0
_Command = TypeVar("_Command", bound="Callable[..., object] | click.Command")


class Seconds(click.ParamType[float]):
    """A number of seconds, more than 0, from ``least`` to ``most``."""

    name = "seconds"

    def __init__(self, least: float = 0, most: float = _LONGEST) -> None:
        self._least, self._most = least, most

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (seconds > 0 and self._least <= seconds <= self._most):
            self.fail(
                f"{value!r} is not a number of seconds from {self._least:g} to {self._most:.0f}", param, ctx
            )
        return seconds


def _keep(key: str) -> Callable[[click.Context, click.Parameter, float], None]:
    def keep(ctx: click.Context, _: click.Parameter, value: float) -> None:
        ctx.meta[key] = value

    return keep


def _seconds(name: str, key: str, default: float, says: str) -> Callable[[_Command], _Command]:
    return click.option(
        name,
        type=Seconds(),
        default=default,
        metavar="SECONDS",
        expose_value=False,
        callback=_keep(key),
        help=f"{says}  [default: {default:g}]",
    )


def _limited(longest: float) -> Callable[[_Command], _Command]:
    timeout: Callable[[_Command], _Command] = _seconds(
        "--timeout",
        _KEY,
        DEFAULT,
        "Give up when registries have kept this command waiting for so long in all: silent, slower than "
        "1 KiB/s, or asking to wait.",
    )
    limit: Callable[[_Command], _Command] = _seconds(
        "--time-limit",
        _LIMIT,
        longest,
        "Give up after this time in all, even if the transfer makes progress.",
    )

    def both(command: _Command) -> _Command:
        return timeout(limit(verbose_option(command)))

    return both


timeout_option = _limited(QUESTIONS)
"""Adds ``--timeout``, ``--time-limit`` and ``--verbose`` to a command; :func:`timeout` and :func:`time_limit`
are their values."""
transfer_timeout_option = _limited(TRANSFERS)
"""The same for a command that moves images."""


def timeout() -> float:
    """Return the seconds that the command may wait."""
    return _option_value(_KEY, DEFAULT)


def time_limit() -> float:
    """Return the seconds that the command may take."""
    return _option_value(_LIMIT, TRANSFERS)


def _option_value(key: str, default: float) -> float:
    context = click.get_current_context(silent=True)
    value = default if context is None else context.meta.get(key, default)
    return float(value)
