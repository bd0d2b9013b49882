"""The options by which commands verify transparency logs."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable
from typing import Final

import click

from digestry.cli.log_trust import TrustOptions

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LENGTH: Final = r"([0-9]{1,9})([smhd])"

verify_log_option = click.option(
    "--verify-log",
    is_flag=True,
    help="Use what a tag points to only if the registry's transparency log proves it.",
)


def trust_options(function: Callable[..., object]) -> Callable[..., object]:
    """Add ``--log-key``, ``--witness``, ``--quorum`` and ``--longest-ago`` to a command, which gets them as
    ``stated``."""

    @functools.wraps(function)
    def command(
        *,
        log_keys: tuple[str, ...],
        witnesses: tuple[str, ...],
        quorum: int | None,
        longest_ago: datetime.timedelta | None,
        **others: object,
    ) -> object:
        stated = TrustOptions(log_keys, witnesses, quorum, longest_ago)
        return function(stated=stated, **others)

    wrapped: Callable[..., object] = command
    for option in (
        click.option(
            "--longest-ago",
            callback=_length,
            metavar="TIME",
            help="How long ago the witnesses may have cosigned last, such as 1h.",
        ),
        click.option(
            "--quorum",
            type=click.IntRange(min=0),
            metavar="N",
            help="How many of the witnesses must have cosigned.  [default: all]",
        ),
        click.option(
            "--witness",
            "witnesses",
            multiple=True,
            metavar="KEY",
            help="The key of a witness that must have cosigned; repeatable.",
        ),
        click.option(
            "--log-key",
            "log_keys",
            multiple=True,
            metavar="KEY",
            help="The log's key, NAME+ID+BASE64; repeatable.  [default: the settings', or the first seen]",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


def _length(_: click.Context, __: click.Parameter, text: str | None) -> datetime.timedelta | None:
    if text is None:
        return None
    match = re.fullmatch(_LENGTH, text, re.ASCII)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a time: write 30m, 12h or 7d.")
    return datetime.timedelta(seconds=int(match[1]) * _UNITS[match[2]])
