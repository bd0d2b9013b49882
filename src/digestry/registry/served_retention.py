"""The retention that a registry is served with, recorded for commands that are given no configuration."""

from __future__ import annotations

import contextlib
from typing import Final

import msgspec

from digestry.catalog.retention_rules import Retention
from digestry.coordination.note_files import SUFFIX
from digestry.coordination.protocol import Notes
from digestry.errors import InvalidConfiguration, StorageError
from digestry.model.json_types import prepared
from digestry.model.text import length_of_time

_NOTE: Final = "kept"
FILE: Final = f"{_NOTE}{SUFFIX}"
"""The file in the root with the retention of the registry that was served there last."""


class _Kept(msgspec.Struct, frozen=True):
    untagged: float | None
    sighted: float | None


def record(notes: Notes, retention: Retention) -> None:
    """Record the retention of the registry that is served now, for :func:`check_default`.

    Raises :class:`StorageError`.
    """
    content = msgspec.json.encode(_Kept(retention.untagged, retention.sighted))
    with contextlib.suppress(StorageError):
        if notes.read(_NOTE) == content:
            return
    notes.write(_NOTE, content)


def check_default(notes: Notes, retention: Retention) -> None:
    """Check that ``retention``, the default, removes nothing that the served registry keeps.

    Raises :class:`InvalidConfiguration` if it does, :class:`StorageError` if that cannot be known.
    """
    content = notes.read(_NOTE)
    if content is None:
        return  # it was never served, or not since digestry notes that
    try:
        kept = msgspec.json.decode(content, type=prepared(_Kept))
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{notes.location(_NOTE)} is damaged: {error}",
            hint="give --config; the server's next start writes it anew",
        ) from error
    for key, served, mine in (
        ("untagged", kept.untagged, retention.untagged),
        ("sighted", kept.sighted, retention.sighted),
    ):
        if mine is not None and (served is None or mine < served):
            long = "off" if served is None else length_of_time(served)
            raise InvalidConfiguration(
                f"the registry is served with {key} = {long}; without a configuration, what that keeps would"
                f" go after {length_of_time(mine)} ({notes.location(_NOTE)})",
                hint="give the server's registry.toml with --config",
            )
