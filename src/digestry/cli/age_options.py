"""The option ``--min-age``, and what commands print about ages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from digestry.client.repository import Repository
    from digestry.model.age_answers import TagAge
    from digestry.model.reference import Reference


class Age(click.ParamType[int]):
    """A length of time such as ``7d`` or ``12h``, in seconds."""

    name = "age"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from digestry.model.age_answers import seconds_of_age

        try:
            return seconds_of_age(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


def min_age_option(*, required: bool = False) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Return the option ``--min-age``, in seconds; None if it is not given."""
    return click.option(
        "--min-age",
        type=Age(),
        metavar="AGE",
        required=required,
        help="The newest digest that has stood under the tag for so long, such as 7d or 36h.",
    )


def resolve_aged(remote: Repository, wanted: Reference, seconds: int) -> tuple[Reference, TagAge]:
    """Return the tag with the digest that it has had for long enough, and why. Raises as
    :func:`digestry.client.aged_tags.aged_tag` does, and :class:`InvalidConfiguration` for a digest."""
    from digestry.client.aged_tags import aged_tag
    from digestry.model.reference import Reference

    tag = checked_tag(wanted)
    found = aged_tag(remote, tag, seconds)
    assert found.stood is not None  # noqa: S101 - it was checked
    return Reference(wanted.host, wanted.repository, tag, found.stood.digest), found


def checked_tag(wanted: Reference) -> str:
    """Return the tag of a name. Raises :class:`InvalidConfiguration` if it has a digest."""
    from digestry.errors import InvalidConfiguration

    if wanted.tag is None or wanted.digest is not None:
        raise InvalidConfiguration(f"--min-age is for a tag; {wanted} names a digest, which has no age")
    return wanted.tag
