"""Where a container's tag points now, where it has pointed, and whether that is what runs."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from digestry.audit.image_graph import ImageGraph
from digestry.audit.image_identity import ImageIdentity, extended
from digestry.audit.image_names import NO_NAMES, ImageNames
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import DigestryError, Unreachable
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.platform import Platform
from digestry.model.reference import Reference
from digestry.model.timestamps import rfc3339

State: TypeAlias = Literal["current", "moved", "pinned", "never", "unknown"]


@dataclass(frozen=True, slots=True)
class TagVerdict:
    """``digest`` is where the tag points now, None if it is not known or the tag is gone.

    ``moved_at`` is when it first left what the container runs. ``complete`` is False if the registry
    failed to say what it was asked.
    """

    state: State
    digest: Digest | None = None
    moved_at: datetime.datetime | None = None
    reasons: tuple[str, ...] = ()
    complete: bool = True


def judge_tag(
    lookup: RegistryQueries,
    reference: Reference,
    identity: ImageIdentity | None,
    platform: Platform | None,
    names: ImageNames = NO_NAMES,
    *,
    claims: tuple[Digest, ...] = (),
) -> TagVerdict:
    """Compares ``reference``'s tag with what runs; None for ``identity`` is code that the tag's
    repository does not know. Errors are reasons.

    ``claims`` are all digests that the runtime gave: the tag is only said never to have pointed to
    what runs if the registry's whole history has none of them, as an index, a manifest or a config.
    The repository's other ``names`` are asked only if its registry cannot be reached.
    """
    if reference.digest is not None:
        return TagVerdict("pinned")
    tag = reference.tag
    if tag is None:
        return TagVerdict("unknown", reasons=("the reference has no tag",))
    repository = reference.repository_only()
    try:
        target = lookup.resolve(repository, tag)
    except Unreachable as error:
        return judge_tag_elsewhere(
            lookup, reference, identity, platform, names=names, error=error, claims=claims
        )
    except DigestryError as error:
        return _failed("the tag could not be looked up", error, None)
    current = None if target is None else target.digest
    if identity is not None and current is not None:
        try:
            if identity.repository == repository or _same(names, identity.repository, repository):
                identity = extended(identity, current, platform, repository)
        except DigestryError as error:
            return _failed("what the tag points to could not be read", error, current)
        if current in identity.closure and identity.contested:
            why = f"it may as well be {identity.contested[0]} that runs, which the tag does not point to"
            return TagVerdict("unknown", current, reasons=(why,))
        if current in identity.closure:
            stale = lookup.stale(repository, tag)
            if stale:
                why = f"{repository.host} mirrors the tag, and could not see where it points now: {stale}"
                return TagVerdict("unknown", current, reasons=(why,))
            try:
                contradiction = lookup.contradiction(repository, tag)
            except DigestryError as error:
                return _failed("the tag could not be asked for once more", error, current)
            if contradiction:
                return TagVerdict("unknown", current, reasons=(contradiction,))
            return TagVerdict("current", current)
        try:
            other = _pointed_instead(lookup, repository, identity, current)
        except DigestryError as error:
            return _failed("what the tag points to could not be read", error, current)
        if other is not None:
            why = f"it may be {other} that runs, which the tag points to"
            return TagVerdict("unknown", current, reasons=(why,))
    try:
        history = lookup.tag_history(repository, tag)
    except DigestryError as error:
        return _failed("the tag's history could not be read", error, current)
    if history is None:
        return _without_history(reference, current)
    closure = frozenset[Digest]() if identity is None else identity.closure
    verdict = _with_history(lookup, reference, history, current, closure=closure, claims=claims)
    if verdict.state == "moved" and identity is not None:
        pointed = {event.to_digest for event in history}
        elsewhere = next((one for one in identity.contested if one not in pointed), None)
        if elsewhere is not None:
            why = f"it may as well be {elsewhere} that runs, which the tag is not known to have pointed to"
            return TagVerdict("unknown", current, reasons=(why,))
    return verdict


def _pointed_instead(
    lookup: RegistryQueries, repository: Reference, identity: ImageIdentity, current: Digest
) -> Digest | None:
    """An image that may be what runs in place of the one that was believed, and that ``current``, where
    the tag points, is or holds; None if there is none. Raises what the lookup raises."""
    others: set[Digest] = set(identity.possible)
    for digest in identity.contested:
        node = identity.graph.nodes.get(digest)
        inside = identity.graph.images_of(digest, None) if node is not None and node.is_index else [digest]
        others.update((digest, *inside))
    if not others - identity.closure:
        return None
    graph = ImageGraph(repository, lookup)
    if graph.learn(current) and graph.nodes[current].is_index:
        graph.learn_children(current, None)
    for digest in sorted(others - identity.closure):
        known = identity.graph.nodes.get(digest)
        config = None if known is None else known.config
        graph.learn(config or digest, is_config=config is not None)
        if current in graph.closure(config or digest):
            return digest
    return None


def judge_tag_elsewhere(
    lookup: RegistryQueries,
    reference: Reference,
    identity: ImageIdentity | None,
    platform: Platform | None,
    *,
    names: ImageNames,
    error: Unreachable,
    claims: tuple[Digest, ...] = (),
) -> TagVerdict:
    """As :func:`judge_tag`, if ``error`` is all that the reference's own registry says: by the first
    of the repository's other names that can be asked about tags. A mirror may be behind."""
    for other in names.others(reference.repository_only()):
        if not other.tags or reference.tag is None:
            continue
        verdict = judge_tag(
            lookup, other.repository.with_tag(reference.tag), identity, platform, claims=claims
        )
        if verdict.complete:
            why = f"{reference.host} does not answer: the tag is judged by {other.repository.name}"
            return replace(verdict, reasons=(why, *verdict.reasons))
    return _failed("the tag could not be looked up", error, None)


def _same(names: ImageNames, repository: Reference, own: Reference) -> bool:
    return any(other.repository == repository for other in names.others(own))


def point(lookup: RegistryQueries, reference: Reference) -> TagVerdict:
    """Where ``reference``'s tag points, for a container of which nothing is known that could be
    compared with it. Errors are reasons."""
    try:
        target = lookup.resolve(reference.repository_only(), reference.tag or "")
    except DigestryError as error:
        return _failed("the tag could not be looked up", error, None)
    if target is None:
        return TagVerdict("unknown", reasons=(f"there is no tag {reference.tag!r}",))
    return TagVerdict("unknown", target.digest)


def _failed(what: str, error: DigestryError, current: Digest | None) -> TagVerdict:
    return TagVerdict("unknown", current, reasons=(f"{what}: {error.message}",), complete=False)


def _without_history(reference: Reference, current: Digest | None) -> TagVerdict:
    keeps_none = f"{reference.host} keeps no tag history"
    if current is None:
        return TagVerdict(
            "unknown",
            reasons=(f"there is no tag {reference.tag} now, and {keeps_none} to tell if there was one",),
        )
    return TagVerdict(
        "unknown",
        current,
        reasons=(f"the tag points to something else, and {keeps_none} to tell if it pointed here before",),
    )


def _with_history(
    lookup: RegistryQueries,
    reference: Reference,
    history: tuple[TagEvent, ...],
    current: Digest | None,
    *,
    closure: frozenset[Digest],
    claims: Iterable[Digest],
) -> TagVerdict:
    tag = reference.tag
    gone: tuple[str, ...] = ()
    if current is None:
        newest = history[0] if history else None
        if newest is not None and newest.event == "deleted":
            gone = (f"the tag {tag!r} was deleted at {moment(newest.at)}",)
        else:
            gone = (f"there is no tag {tag!r}",)
    for position, event in enumerate(history):
        if event.to_digest not in closure:
            continue
        if position == 0:
            return TagVerdict("unknown", current, reasons=(_contradicted(reference, history, current),))
        return TagVerdict("moved", current, history[position - 1].at.astimezone(datetime.UTC), gone)
    if history and history[-1].from_digest in closure:
        return TagVerdict("moved", current, history[-1].at.astimezone(datetime.UTC), gone)
    try:
        doubt = _cut(reference, history, current) or _doubt(
            lookup, reference.repository_only(), history, closure.union(claims)
        )
    except DigestryError as error:
        return _failed("what the tag pointed to could not be looked up", error, current)
    if doubt:
        return TagVerdict("unknown", current, reasons=(doubt, *gone))
    return TagVerdict("never", current, reasons=(f"the tag {tag!r} never pointed to what runs", *gone))


def _contradicted(reference: Reference, history: tuple[TagEvent, ...], current: Digest | None) -> str:
    last = history[0].to_digest if history else None
    now = "nowhere" if current is None else f"to {current}"
    then = "nowhere" if last is None else f"to {last}"
    return (
        f"the tag points {now}, and by the history that {reference.host} keeps {then}: it moved while the "
        "audit ran, or one of the two is wrong"
    )


def _cut(reference: Reference, history: tuple[TagEvent, ...], current: Digest | None) -> str:
    """Why ``history`` cannot be all that became of the tag; empty if nothing speaks against it."""
    if (history[0].to_digest if history else None) != current:
        return _contradicted(reference, history, current)
    if history and history[-1].from_digest is not None:
        return (
            f"the history that {reference.host} keeps begins when the tag left {history[-1].from_digest}: "
            "what it pointed to before is not known"
        )
    return ""


def _doubt(
    lookup: RegistryQueries, repository: Reference, history: tuple[TagEvent, ...], digests: frozenset[Digest]
) -> str:
    """Why it cannot be said that the tag never pointed to any of ``digests``; empty if it can be said.

    It can where the registry knows all that the tag pointed to, down to the configs, and none of that
    is one of ``digests``. Raises what the lookup raises.
    """
    observed = next((event.observed_in for event in history if event.observed_in), "")
    if observed:
        return (
            f"{repository.host} only mirrors {observed}: it knows what the tag pointed to when it was asked, "
            "and not what it pointed to in between"
        )
    if not digests:
        return "nothing is known of what runs that could be compared with the tag's history"
    if not history and not lookup.shows(repository):
        return f"{repository.name} is not there, or not shown to the account that asks"
    pointed = tuple(dict.fromkeys(event.to_digest for event in history if event.to_digest is not None))
    lookup.learn_digests(repository, (*pointed, *digests))
    graph = ImageGraph(repository, lookup)
    for digest in digests:
        graph.learn(digest)
    for digest in pointed:
        if digest not in graph.nodes and not graph.learn(digest):
            return (
                f"the tag pointed to {digest}, of which {repository.host} does not know any more what it was"
            )
    for digest in pointed:
        missing = _unknown_inside(graph, digest)
        if missing is not None:
            return (
                f"the tag pointed to {digest}, and {repository.host} never had {missing}, which belongs to it"
            )
    if not graph.complete:
        return f"{repository.host} cannot say which images hold what runs"
    for digest in digests:
        holding = graph.closure(digest)
        found = next((one for one in pointed if one in holding), None)
        if found is not None:
            return (
                f"the tag pointed to {found}, which holds {digest}: it is not certain that this is what runs"
            )
    return ""


def _unknown_inside(graph: ImageGraph, digest: Digest) -> Digest | None:
    """What an index lists, at any depth, that the registry never had; None if it had all."""
    pending = list(graph.nodes[digest].children)
    seen: set[Digest] = set()
    while pending:
        child = pending.pop()
        if child in seen:
            continue
        seen.add(child)
        if child not in graph.nodes and not graph.learn(child):
            return child
        pending += graph.nodes[child].children
    return None


moment = rfc3339
"""A time as every report prints it, and ``--at`` takes it."""
