"""``--annotation`` and ``--remove-annotation``: annotations of manifests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click


def annotation_option(function: Callable[..., object]) -> Callable[..., object]:
    """Add the option ``--annotation``."""
    return click.option(
        "--annotation",
        multiple=True,
        metavar="KEY=VALUE",
        help="An annotation to set. Repeatable.",
    )(function)


def annotation_options(function: Callable[..., object]) -> Callable[..., object]:
    """Add the options ``--annotation`` and ``--remove-annotation``."""
    return annotation_option(
        click.option(
            "--remove-annotation", multiple=True, metavar="KEY", help="An annotation to remove. Repeatable."
        )(function)
    )


def annotation_changes(set_: Sequence[str], removed: Sequence[str] = ()) -> dict[str, str | None]:
    """Return the annotations to set, and with None those to remove. Raises :class:`click.UsageError`."""
    changes: dict[str, str | None] = dict.fromkeys(removed)
    changes.update(annotations_of(set_))
    return changes


def annotations_of(set_: Sequence[str]) -> dict[str, str]:
    """Return the annotations to set. Raises :class:`click.UsageError` for text that is not ``KEY=VALUE``."""
    found: dict[str, str] = {}
    for text in set_:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise click.UsageError(f"--annotation {text!r} is not KEY=VALUE.")
        found[key] = value
    return found
