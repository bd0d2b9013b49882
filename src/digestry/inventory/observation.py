"""The observations of a source: containers, problems, and notes."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

from digestry.inventory.waiting_reasons import Waiting
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference

DigestKind: TypeAlias = Literal["index", "manifest", "config", "unknown"]
FoundBy: TypeAlias = Literal["repo-digest", "image-id", "inventory"]

_BEGINNING: Final = re.compile(r"[0-9a-f]{12,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Claim:
    """One digest that a source reported for a container, before any registry confirmed it.

    ``repository`` is the one that the source names with the digest, or None. ``obtained`` is True if the
    runtime recorded the digest when it pulled or pushed; it is False if the runtime may have put name and
    digest together itself, so that the pair need never have been in any registry. ``rewritten`` is True if it
    may be the digest of a manifest that the runtime's store wrote itself, of an image that it loaded or took
    over from another store: that no registry has it does not matter then.
    """

    digest: Digest
    kind: DigestKind
    repository: Reference | None
    read_from: str
    found_by: FoundBy
    obtained: bool
    rewritten: bool = False


def pinned_claim(named: Reference | None, read_from: str) -> Claim | None:
    """Return the claim of an image's name that has a digest in it, or None if it has none.

    The runtime had to find that very digest to start the container.
    """
    if named is None or named.digest is None:
        return None
    return Claim(named.digest, "unknown", named.repository_only(), read_from, "repo-digest", obtained=True)


@dataclass(frozen=True, slots=True)
class Abbreviation:
    """The beginning of a digest, 12 hex digits or more without algorithm, where a source gave no more.

    It names an image only if nothing else in the container's repository begins so.
    """

    encoded: str
    read_from: str
    found_by: FoundBy


def abbreviation(text: str, read_from: str, found_by: FoundBy) -> Abbreviation | None:
    """Read the beginning of a digest, with or without its algorithm; None if ``text`` is not one."""
    encoded = text.removeprefix("sha256:")
    return Abbreviation(encoded, read_from, found_by) if _BEGINNING.fullmatch(encoded) else None


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The image that a container was made from, and every digest that a source gave for it.

    Containers of one image share one object where the source allows it: an audit knows them by it.
    """

    reference: str | None
    """The image's name as it was typed; None if the container was started by image ID."""
    claims: tuple[Claim, ...] = ()
    image_id: Digest | None = None
    """The runtime's image ID: a config's digest, or, in containerd's store, an index's or a manifest's."""
    platform_manifest: Digest | None = None
    """The manifest that runs, where the runtime says so."""
    platform: Platform | None = None
    platform_assumed: bool = False
    """True if ``platform`` is from the engine's record of the image, and may differ from that of its machine:
    of an image for several platforms, another one may run."""
    registry_named: bool = True
    """False if the name has no registry in it and nothing shows that the image came from one."""
    abbreviations: tuple[Abbreviation, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerObservation:
    """One container, where and when it was seen, and the image that it was made from.

    ``remarks`` are the source's own reasons.
    """

    source: str
    host: str
    namespace: str
    name: str
    id: str
    image: ImageFacts
    seen_at: datetime.datetime
    remarks: tuple[str, ...] = ()
    runs: bool = True
    """False for a template: nothing of it runs now, but something will be started from it."""
    waiting: Waiting = ""
    """Why nothing of it runs yet, if it waits to be started."""
    workload: str = ""
    """What it is a part of, as ``kind/name``: ``compose/shop/web``, ``deployment/web``."""
    created_at: datetime.datetime | None = None
    """When it was made, if the source says so."""
    started_at: datetime.datetime | None = None
    """When it was started last, if the source says so."""
    ended_at: datetime.datetime | None = None
    """When it ended, if it did and the source says so."""
    instance: str = ""
    """The source's own words for its last start, the same whoever asks; "" if it has none."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that could not be seen, where, and why. Never dropped: it is part of the result."""

    source: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Something about a source that a reader should know and that is not a failure.

    For example the format of a file, or the reason why no container in it runs.
    """

    source: str
    message: str
    hint: str = ""


Observation: TypeAlias = ContainerObservation | Unseen | Note


class Source(Protocol):
    """A place where containers run, or a list of them."""

    @property
    def name(self) -> str:
        """The source as the command line names it: ``docker``, ``file:PATH`` …"""
        ...

    def observe(self) -> Iterator[Observation]:
        """Yield every container, each as exactly one observation, and what could not be seen.

        Raises no :class:`~digestry.errors.DigestryError`: failures are problems.
        """
        ...


@runtime_checkable
class RepeatableSource(Protocol):
    """A source that can keep data between repeated observations."""

    def keep(self) -> None:
        """Keep data from one call of :meth:`Source.observe` to the next, so that fewer requests are needed.

        The observations are as current as without it.
        """
        ...


def now() -> datetime.datetime:
    """Return the present, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
