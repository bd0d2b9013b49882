"""Which code a container runs: its claimed digests, joined with what its registry holds.

The registry's manifests make a graph, index → manifest → config, overwritten and untagged ones
included. A container's code is a config; its closure is every node of the graph that is that config
or holds it. Whether a container runs something is membership in its closure, and never a
comparison of two strings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from digestry.fleet.graph import MOST_TAGS, Graph
from digestry.fleet.lookup import Lookup
from digestry.fleet.sighting import Claim, FoundBy
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class Identity:
    """What a container runs, as far as one repository can tell.

    ``running`` is what the runtime obtained, ``manifest`` the platform's manifest if it is known,
    ``config`` the code. ``closure`` is everything that is or holds the code. ``possible`` are an
    index's children of which one runs, and it is not known which. ``confirmed`` tells whether the
    registry knows ``running``.
    """

    repository: Reference
    graph: Graph
    running: Digest
    found_by: FoundBy
    confirmed: bool
    closure: frozenset[Digest]
    config: Digest | None = None
    manifest: Digest | None = None
    possible: frozenset[Digest] = frozenset()
    reasons: tuple[str, ...] = ()


def identify(
    lookup: Lookup,
    reference: Reference,
    claims: tuple[Claim, ...],
    *,
    platform: Platform | None = None,
    platform_manifest: Digest | None = None,
) -> Identity | None:
    """Joins ``claims`` with what the repository of ``reference`` holds; None if it knows none.

    ``claims`` are of this repository or of none, the most believable first. The reference's tag
    says where else to look, and which of several digests of the same code the runtime was given.
    Raises what the lookup raises.
    """
    graph = Graph(reference.repository_only(), lookup)
    tag = reference.tag if reference.digest is None else None
    known = [claim for claim in claims if graph.learn(claim.digest, is_config=claim.kind == "config")]
    if not known and not graph.complete:
        known = _search(graph, claims, tag, platform)
    if not known:
        return None
    code = _code(graph, claims, known, platform, platform_manifest)
    if code is None:
        return None
    if code.config is not None:
        graph.learn(code.config, is_config=True)  # siblings that share the config are the same code
    closure = graph.closure(code.config or code.manifest or known[0].digest)
    reasons = [
        f"{claim.read_from} also names {claim.digest}, which is other code: it was not believed"
        for claim in known
        if claim.digest not in closure
    ]
    chosen = _obtained(graph, [claim for claim in known if claim.digest in closure] or known, reference)
    running = chosen.digest
    if running not in graph.nodes:
        # Only the code was known: what the runtime obtained is a manifest that has it, or its index.
        running = _holding(graph, closure, tag) or running
        reasons.append(f"found by the image ID, the digest of a config that {running} holds")
    if code.possible:
        reasons.append(
            f"the index has {len(code.possible)} different images, and it is not known which of them runs"
        )
    return Identity(
        repository=graph.repository,
        graph=graph,
        running=running,
        found_by=chosen.found_by,
        confirmed=True,
        closure=closure,
        config=code.config,
        manifest=code.manifest or _manifest_of(graph, running, closure),
        possible=code.possible,
        reasons=tuple(reasons),
    )


def unconfirmed(lookup: Lookup, repository: Reference, claims: tuple[Claim, ...], reason: str) -> Identity:
    """An identity on the runtime's word alone: that of the first of ``claims``."""
    first = claims[0]
    config = next((claim.digest for claim in claims if claim.kind == "config"), None)
    return Identity(
        repository=repository,
        graph=Graph(repository, lookup),
        running=first.digest,
        found_by=first.found_by,
        confirmed=False,
        closure=frozenset({first.digest} if config is None else {first.digest, config}),
        config=config,
        reasons=(reason,),
    )


def extended(
    identity: Identity, digest: Digest, platform: Platform | None, repository: Reference
) -> Identity:
    """``identity``, with ``digest`` of ``repository`` looked into: it may be another node that holds
    the same code.

    For a registry that cannot say who holds what; elsewhere nothing is left to be learnt. Another
    repository than the identity's is another name of it.
    """
    if digest in identity.closure or identity.config is None:
        return identity
    same = identity.repository == repository
    graph = identity.graph if same else Graph(repository, identity.graph.lookup)
    if same and graph.complete:
        return identity
    node = graph.nodes.get(digest) if graph.learn(digest) else None
    if node is not None and node.is_index and not identity.closure.intersection(node.children):
        graph.learn_children(digest, platform)
    return replace(identity, closure=identity.closure | graph.closure(identity.config))


def _search(
    graph: Graph, claims: tuple[Claim, ...], tag: str | None, platform: Platform | None
) -> list[Claim]:
    """Looks for configs behind the tags of a registry that cannot be asked for them."""
    wanted = [claim for claim in claims if claim.kind in {"config", "unknown"}]
    if not wanted:
        return []
    others = [other for other in graph.lookup.tags(graph.repository, most=MOST_TAGS) if other != tag]
    for name in ([tag] if tag else []) + others:
        target = graph.lookup.resolve(graph.repository, name)
        if target is None or not graph.learn(target.digest):
            continue
        if graph.nodes[target.digest].is_index:
            graph.learn_children(target.digest, platform)
        found = [c for c in wanted if any(node.config == c.digest for node in graph.nodes.values())]
        if found:
            return found
    return []


@dataclass(frozen=True, slots=True)
class _Code:
    config: Digest | None = None
    manifest: Digest | None = None
    possible: frozenset[Digest] = frozenset()


def _code(
    graph: Graph,
    claims: tuple[Claim, ...],
    known: list[Claim],
    platform: Platform | None,
    platform_manifest: Digest | None,
) -> _Code | None:
    """The config that runs and its manifest, or, if it cannot be told, which manifests it may be.

    None if the runtime is sure of a config that nothing known here holds: then the claims are about
    other code.
    """
    if platform_manifest is not None and graph.learn(platform_manifest):
        return _Code(graph.nodes[platform_manifest].config, platform_manifest)
    image_ids = [claim.digest for claim in claims if claim.found_by == "image-id"]
    for claim in known:
        node = graph.nodes.get(claim.digest)
        if node is not None and node.is_index and not _has_config(graph, image_ids):
            graph.learn_children(node.digest, platform)
    for digest in image_ids:
        if _has_config(graph, [digest]):
            return _Code(digest)
    if any(claim.kind == "config" for claim in claims):
        return None
    node = graph.nodes.get(known[0].digest)
    if node is None:
        return _Code(known[0].digest)
    if node.config is not None:
        return _Code(node.config, node.digest)
    known_whole = graph.lookup.manifest(graph.repository, node.digest) is not None
    graph.learn_children(node.digest, platform)
    choice = graph.images_of(node.digest, platform) if known_whole else node.children
    images = [graph.nodes[child] for child in choice if child in graph.nodes]
    if len({image.config for image in images}) == 1:
        return _Code(images[0].config, images[0].digest)
    return _Code(possible=frozenset(image.digest for image in images))


def _has_config(graph: Graph, configs: list[Digest]) -> bool:
    return any(node.config in configs for node in graph.nodes.values())


def _obtained(graph: Graph, claims: list[Claim], reference: Reference) -> Claim:
    """Which of several digests of the same code the runtime was given."""
    named = [claim for claim in claims if claim.found_by != "image-id"]
    if not named:
        return claims[0]
    wanted: list[Digest] = []
    if reference.digest is not None:
        wanted = [reference.digest]
    elif reference.tag is not None and len({claim.digest for claim in named}) > 1:
        wanted = _pointed(graph, reference.tag)
    return next((claim for digest in wanted for claim in named if claim.digest == digest), named[0])


def _pointed(graph: Graph, tag: str) -> list[Digest]:
    """Where ``tag`` points and has pointed, newest first."""
    target = graph.lookup.resolve(graph.repository, tag)
    events = graph.lookup.tag_history(graph.repository, tag) or ()
    past = [event.to_digest for event in events if event.to_digest is not None]
    return past if target is None else [target.digest, *past]


def _holding(graph: Graph, closure: frozenset[Digest], tag: str | None) -> Digest | None:
    """The manifest or index by which code was obtained of which only the config is known."""
    for digest in _pointed(graph, tag) if tag is not None else ():
        if digest in closure and digest in graph.nodes:
            return digest
    images = sorted(node.digest for node in graph.nodes.values() if node.config in closure)
    return images[0] if images else None


def _manifest_of(graph: Graph, digest: Digest, closure: frozenset[Digest]) -> Digest | None:
    """The image manifest in ``closure`` that ``digest`` is, or that the index ``digest`` holds."""
    node = graph.nodes.get(digest)
    if node is None:
        return None
    if node.config is not None:
        return digest
    waiting, seen = [digest], {digest}
    while waiting:
        inside = graph.nodes[waiting.pop(0)].children
        for child in inside:
            if child in closure and child in graph.nodes and child not in seen:
                if graph.nodes[child].config is not None:
                    return child
                seen.add(child)
                waiting.append(child)
    return None
