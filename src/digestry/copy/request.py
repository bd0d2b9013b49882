"""A request to copy: the source and its images, the target and their names there."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from digestry.copy.copy import CopyOptions, CopyResult, copy_images
from digestry.copy.location import Location
from digestry.copy.places import OpenSource, OpenTarget, Surroundings, open_source, open_target
from digestry.errors import InvalidConfiguration, InvalidReference, NotFound
from digestry.images.transfer import TransferObserver
from digestry.model import media_types
from digestry.model.name_pattern import check_pattern, matches
from digestry.model.reference import DEFAULT_TAG, Reference
from digestry.model.text import number_of

_ENGINES = frozenset({"docker-archive", "docker-daemon", "containers-storage"})
"""Transports whose images have full names."""
_LAYOUTS = frozenset({"oci", "oci-archive"})
"""Transports whose images may have any names."""
_LIST_TAG: Final = re.compile("(?:sha256|sha512)-([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """One image, or with ``all_tags`` or ``tags`` (patterns) many of one repository or place."""

    source: Location
    target: Location
    all_tags: bool = False
    tags: tuple[str, ...] = ()
    min_age: int | None = None
    """Of each tag, the newest digest that has stood under it for so many seconds."""

    @property
    def is_many(self) -> bool:
        """Whether images are chosen by their tags."""
        return self.all_tags or bool(self.tags)


def run_copy(
    request: CopyRequest,
    around: Surroundings,
    options: CopyOptions,
    *,
    observer: TransferObserver | None = None,
    tell: Callable[[str], None] | None = None,
) -> CopyResult:
    """Carry out ``request``.

    ``tell`` is called with a sentence about losses in the target, before anything is sent. Raises
    :class:`InvalidConfiguration` for a contradictory request, :class:`NotFound` for a pattern that no tag
    matches, and as :func:`copy_images` does.
    """
    check_request(request)
    with ExitStack() as opened:
        source = open_source(request.source, around, opened)
        target = open_target(request.target, around, opened)
        if tell is not None and source.remark:
            tell(f"{source.source.description}: {source.remark}")
        if tell is not None and target.target.loss:
            tell(f"{target.target.description}: {target.target.loss}")
        names = _many(request, source) if request.is_many else [_single(request, source, target)]
        if request.all_tags and options.referrers:
            names = _without_lists(source, names, tell)
        if request.min_age is not None:
            names = _aged(request, around, names, tell)
        return copy_images(source.source, target.target, names, options, observer=observer, tell=tell)


def _without_lists(
    source: OpenSource,
    names: list[tuple[str | None, str | None]],
    tell: Callable[[str], None] | None,
) -> list[tuple[str | None, str | None]]:
    """Return the names without the tags that list referrers, which are copied as what they are.

    The target has lists of its own, in which other referrers may be ("Referrers Tag Schema").
    """
    lists = {name for name, _ in names if name is not None and _is_list(source, name)}
    if not lists or len(lists) == len(names):
        return names
    if tell is not None:
        tell(f"{number_of(len(lists), 'tag')} of lists of referrers: the target gets what they list")
    return [(name, new) for name, new in names if name not in lists]


def _is_list(source: OpenSource, name: str) -> bool:
    of = _LIST_TAG.fullmatch(name)
    if of is None:
        return False
    found = source.source.resolve(name)
    # `cosign copy` leaves the image itself at such a tag.
    return found.media_type in media_types.INDEXES and not found.digest.encoded.startswith(of[1])


def _aged(
    request: CopyRequest,
    around: Surroundings,
    names: list[tuple[str | None, str | None]],
    tell: Callable[[str], None] | None,
) -> list[tuple[str | None, str | None]]:
    """Return the names with the digest that each tag of the source has had for long enough, in its place."""
    assert request.source.reference is not None  # noqa: S101 - a registry's has one
    assert request.min_age is not None  # noqa: S101 - the caller's condition
    remote = around.session.repository(request.source.reference)
    found: list[tuple[str | None, str | None]] = []
    for name, new in names:
        from digestry.client.aged_tags import aged_tag  # noqa: PLC0415 - few copies ask for an age

        age = aged_tag(remote, name or DEFAULT_TAG, request.min_age)
        assert age.stood is not None  # noqa: S101 - else it is an error
        if tell is not None:
            tell(age.reason)
        found.append((str(age.stood.digest), new))
    return found


def check_request(request: CopyRequest) -> None:
    """Raise :class:`InvalidConfiguration` for a request that means nothing."""
    if request.min_age is not None and (
        request.source.transport != "docker" or ":" in (request.source.name or "")
    ):
        raise InvalidConfiguration(
            f"--min-age is for tags of a registry, which {request.source} is not",
            hint="a digest, an archive and a local image have no age",
        )
    if request.all_tags and request.tags:
        raise InvalidConfiguration("--all-tags and --tags exclude each other")
    for pattern in request.tags:
        check_pattern(pattern)
    for place, what in ((request.source, "source"), (request.target, "target")):
        if request.is_many and _is_single(place):
            raise InvalidConfiguration(
                f"--all-tags and --tags choose the tags: the {what} {place} names one",
                hint="leave the tag out",
            )


def _is_single(place: Location) -> bool:
    if place.transport in {"docker", "oci", "oci-archive"}:
        return place.name is not None
    return place.transport == "local" and "@" in (place.name or "")


def _many(request: CopyRequest, source: OpenSource) -> list[tuple[str | None, str | None]]:
    names = list(source.source.names())
    chosen = [
        (name, tag)
        for name in names
        if (tag := _tag(name)) is not None
        and (request.all_tags or any(matches(pattern, tag) for pattern in request.tags))
    ]
    if not chosen:
        what = f"that matches {' or '.join(request.tags)}" if request.tags else "at all"
        raise NotFound(f"{source.source.description} has no tag {what}: it has {len(names)} tags")
    given = [_full(request.target, source, name, tag) for name, tag in chosen]
    if len(set(given)) == len(given):
        return [(name, new) for (name, _), new in zip(chosen, given, strict=True)]
    if request.target.transport not in _LAYOUTS:
        raise InvalidConfiguration(
            f"{source.source.description} has images of several repositories with the same tag, which"
            f" {request.target} cannot tell apart",
            hint="copy them one by one, or into a layout: oci:DIR",
        )
    return [(name, name) for name, _ in chosen]


def _single(request: CopyRequest, source: OpenSource, target: OpenTarget) -> tuple[str | None, str | None]:
    wanted = source.name
    if wanted is None and request.source.transport == "docker":
        wanted = DEFAULT_TAG
    name = target.name
    if name is None and request.target.transport in {"docker", "local"}:
        name = DEFAULT_TAG
    if name is None and request.target.transport == "docker-archive":
        known = source.reference
        name = str(known) if known is not None and known.tag is not None and known.digest is None else None
    return wanted, name


def _tag(name: str) -> str | None:
    """Return the tag of a name of a place; None for a place without tags."""
    try:
        Reference("localhost", "any", name)
    except InvalidReference:
        pass
    else:
        return name
    try:
        return Reference.parse(name).tag
    except InvalidReference:
        return None


def _full(target: Location, source: OpenSource, name: str, tag: str) -> str:
    """Return the name that the image ``name`` of ``source``, with ``tag``, gets in ``target``."""
    if target.transport not in _ENGINES:
        return tag
    base = target.reference or source.reference
    if base is None:
        if name != tag:
            return name  # a full one
        raise InvalidConfiguration(
            f"{target} needs the name of a repository for the tags", hint=f"write {target}:REPO"
        )
    return str(base.repository_only().with_tag(tag))
