"""The target of a ``digestry fleet`` command: a digest, an image's name, or a vulnerability."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.output import note, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from digestry.cli.settings import Settings
    from digestry.client.fleet import Fleet, FleetChoice
    from digestry.client.registry import Registry
    from digestry.model.digest import Digest
    from digestry.model.digest_prefix import DigestPrefix

MOST_ROWS: Final = 1000
"""Rows that are listed unless more are asked for."""
_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*-[A-Za-z0-9][A-Za-z0-9.:_-]*", re.ASCII)
_DATABASES: Final = frozenset(
    {
        "cve",
        "ghsa",
        "gsd",
        "osv",
        "pysec",
        "rustsec",
        "rhsa",
        "rhba",
        "usn",
        "dsa",
        "dla",
        "go",
        "elsa",
        "alas",
    }
)
"""The first words of vulnerabilities' names, which may be written in lower case, too."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The fleet of a registry, and the choice that a command's target makes."""

    host: str
    fleet: Fleet
    choice: FleetChoice


def registry_option(function: Callable[..., object]) -> Callable[..., object]:
    """Give a command the option ``--registry``."""
    return click.option(
        "--registry",
        metavar="HOST",
        help="The registry that agents report to.  [default: the setting registry]",
    )(function)


def place_option(function: Callable[..., object]) -> Callable[..., object]:
    """Give a command the option ``--place``."""
    return click.option("--place", default="", metavar="NAME", help="Only in this host or cluster.")(function)


def limit_option(rows: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Return what gives a command the option ``--limit`` for its ``rows``."""
    return click.option(
        "--limit",
        "-n",
        type=click.IntRange(min=1),
        default=MOST_ROWS,
        show_default=True,
        metavar="N",
        help=f"The most {rows} to list.",
    )


@contextmanager
def open_fleet(registry: str | None, target: str | None = None, place: str = "") -> Iterator[Asked]:
    """Open the fleet of the registry that is meant, with the choice of ``target``, if there is one.

    A target with a registry's name in it is asked of that registry, unless another one is named.
    """
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import check_value, load
    from digestry.client.fleet import FleetChoice

    settings = load()
    host = settings.registry if registry is None else check_value("registry", registry)
    if registry is None and target is not None:
        host = _host_in(target) or host
    with open_session(settings) as session:
        asked = session.registry(host)
        choice = FleetChoice(place=place) if target is None else _choice(settings, asked, target, place)
        yield Asked(host, asked.fleet, choice)


def is_vulnerability(target: str) -> bool:
    """Return whether ``target`` is a vulnerability's name: no image's name has upper-case letters in its last
    part, or begins as those of the well-known databases."""
    if not _IDENTIFIER.fullmatch(target):
        return False
    first = target.partition("-")[0]
    return target.partition(":")[0] != target.partition(":")[0].lower() or (
        first in _DATABASES and any(letter.isdigit() for letter in target)
    )


def _host_in(target: str) -> str | None:
    from digestry.model.reference import DOCKER_HUB, Reference

    if target.startswith(("sha256:", "sha512:")) or is_vulnerability(target):
        return None
    first, slash, _ = target.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost"):
        return None
    host = Reference.parse(target).host
    return None if host == DOCKER_HUB else host


def _choice(settings: Settings, registry: Registry, target: str, place: str) -> FleetChoice:
    from digestry.client.fleet import FleetChoice
    from digestry.errors import InvalidReference
    from digestry.model.digest_prefix import DigestPrefix
    from digestry.model.reference import Reference

    if is_vulnerability(target):
        first = target.partition("-")[0]
        name = target.upper() if first in {"cve", "rhsa", "rhba", "usn", "dsa", "dla"} else target
        return FleetChoice(vulnerability=name, place=place)
    named = target.startswith(("sha256:", "sha512:"))
    prefix = DigestPrefix.parse(target) if named else DigestPrefix.read(target)
    if prefix is not None:
        return FleetChoice(digest=_digest(registry, prefix), place=place)
    try:
        reference = Reference.parse(target, default_host=registry.host)
    except InvalidReference as error:
        raise InvalidReference(
            error.message, hint="write a digest, an image's name, or a vulnerability such as CVE-2026-1505"
        ) from error
    text = str(reference)
    if reference.host == registry.host:
        text = text.removeprefix(f"{reference.host}/")
    return FleetChoice(reference=text, place=place)


def _digest(registry: Registry, prefix: DigestPrefix) -> Digest:
    from digestry.errors import DigestryError
    from digestry.model.digest import Digest

    try:
        return Digest.parse(str(prefix))
    except DigestryError:
        found = registry.find_digest(prefix)
        note(printable(f"{prefix} is {found}"))
        return found
