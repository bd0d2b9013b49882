"""Which code a container runs: its claimed digests, joined with what its registry holds.

The registry's manifests make a graph, index → manifest → config, overwritten and untagged ones
included. A container's code is a config; its closure is every node of the graph that is that config
or holds it. Whether a container runs something is membership in its closure, and never a
comparison of two strings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from digestry.audit.image_graph import MOST_TAGS, ImageGraph, ImageNode
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import DigestryError, Unreachable
from digestry.inventory.observation import Claim, FoundBy
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class ImageIdentity:
    """What a container runs, as far as one repository can tell.

    ``running`` is what the runtime obtained, ``manifest`` the platform's manifest if it is known,
    ``config`` the code. ``closure`` is everything that is or holds the code. ``possible`` are an
    index's children that may be what runs: all of them where it is not known which one does, and the
    others where one was chosen by a platform of which the runtime is not certain. ``confirmed`` tells
    whether the registry knows ``running``. ``contested`` are digests of other code that the source also
    gave, though no runtime can have made them up: what runs is one or the other.
    ``assumed`` tells that one of ``possible`` was chosen by a platform that need not be the one that runs.
    """

    repository: Reference
    graph: ImageGraph
    running: Digest
    found_by: FoundBy
    confirmed: bool
    closure: frozenset[Digest]
    config: Digest | None = None
    manifest: Digest | None = None
    possible: frozenset[Digest] = frozenset()
    reasons: tuple[str, ...] = ()
    contested: tuple[Digest, ...] = ()
    assumed: bool = False

    def holding(self, image: Digest) -> frozenset[Digest]:
        """``image``, one of those that may be what runs, and all that holds its code."""
        node = self.graph.nodes.get(image)
        if node is None or node.config is None:
            return self.graph.closure(image)
        return self.graph.closure(node.config) - {node.config}


def identify(
    lookup: RegistryQueries,
    reference: Reference,
    claims: tuple[Claim, ...],
    *,
    platform: Platform | None = None,
    platform_manifest: Digest | None = None,
    platform_assumed: bool = False,
) -> ImageIdentity | None:
    """Joins ``claims`` with what the repository of ``reference`` holds; None if it knows none.

    ``claims`` are of this repository or of none, the most believable first. The reference's tag
    says where else to look, and which of several digests of the same code the runtime was given.
    Raises what the lookup raises.
    """
    graph = ImageGraph(reference.repository_only(), lookup)
    tag = reference.tag if reference.digest is None else None
    known, refused = _known(graph, claims)
    if not known and not graph.complete:
        try:
            known = _search(graph, claims, tag, platform)
        except Unreachable:
            raise
        except DigestryError as error:
            refused.append(error)
    if not known:
        if refused:
            raise refused[0]
        return None
    code = _code(graph, claims, known, platform, platform_manifest)
    if code is None:
        return None
    if code.config is not None:
        graph.learn(code.config, is_config=True)  # siblings that share the config are the same code
    closure = graph.closure(code.config or code.manifest or code.obtained)
    reasons = [f"a digest that was given could not be looked up: {error.message}" for error in refused]
    reasons += [
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
        reasons.append(_which(code))
    return ImageIdentity(
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
        contested=_contested(claims, known, closure | code.possible, code.config),
        assumed=platform_assumed and bool(code.possible),
    )


def _contested(
    claims: tuple[Claim, ...], known: list[Claim], closure: frozenset[Digest], config: Digest | None
) -> tuple[Digest, ...]:
    """The digests that speak against what was found out. A pair that the runtime may have made up does
    not, where the image ID is known to be of the code; and where it is the config's digest, nothing does:
    that is the code, whatever else the image was called by."""
    ids = [claim.digest for claim in claims if claim.found_by == "image-id"]
    if config is not None and set(ids) == {config}:
        return ()
    sure = any(digest in closure for digest in ids)
    against = [
        claim.digest for claim in known if claim.digest not in closure and (claim.obtained or not sure)
    ]
    if not sure and any(claim.obtained and claim.digest in closure for claim in known):
        # A store that writes down what it pulled has an ID that the registry of it knows, too.
        against += [one.digest for one in claims if one.found_by == "image-id" and one.kind == "unknown"]
    return tuple(dict.fromkeys(against))


def unconfirmed(
    lookup: RegistryQueries, repository: Reference, claims: tuple[Claim, ...], reason: str
) -> ImageIdentity:
    """An identity on the runtime's word alone: that of the first of ``claims``."""
    first = claims[0]
    config = next((claim.digest for claim in claims if claim.kind == "config"), None)
    return ImageIdentity(
        repository=repository,
        graph=ImageGraph(repository, lookup),
        running=first.digest,
        found_by=first.found_by,
        confirmed=False,
        closure=frozenset({first.digest} if config is None else {first.digest, config}),
        config=config,
        reasons=(reason,),
    )


def extended(
    identity: ImageIdentity, digest: Digest, platform: Platform | None, repository: Reference
) -> ImageIdentity:
    """``identity``, with ``digest`` of ``repository`` looked into: it may be another node that holds
    the same code.

    For a registry that cannot say who holds what; elsewhere nothing is left to be learnt. Another
    repository than the identity's is another name of it.
    """
    if digest in identity.closure or identity.config is None:
        return identity
    same = identity.repository == repository
    graph = identity.graph if same else ImageGraph(repository, identity.graph.lookup)
    if same and graph.complete:
        return identity
    node = graph.nodes.get(digest) if graph.learn(digest) else None
    if node is not None and node.is_index and not identity.closure.intersection(node.children):
        graph.learn_children(digest, platform)
    return replace(identity, closure=identity.closure | graph.closure(identity.config))


def _known(graph: ImageGraph, claims: tuple[Claim, ...]) -> tuple[list[Claim], list[DigestryError]]:
    """The claims whose digests the repository has or had, in any role, and what it refused to answer.

    One question that is refused does not hide the answers to the others.
    """
    known: list[Claim] = []
    refused: list[DigestryError] = []
    for claim in claims:
        try:
            if graph.learn(claim.digest, is_config=claim.kind == "config"):
                known.append(claim)
        except Unreachable:
            raise
        except DigestryError as error:
            refused.append(error)
    return known, refused


def _search(
    graph: ImageGraph, claims: tuple[Claim, ...], tag: str | None, platform: Platform | None
) -> list[Claim]:
    """Looks for configs behind the tags of a registry that cannot be asked for them: behind ``tag``
    first, since who may pull it may not be allowed to list the others."""
    wanted = [claim for claim in claims if claim.kind in {"config", "unknown"}]
    if not wanted:
        return []
    refused: DigestryError | None = None
    for name in _names(graph, tag):
        try:
            target = graph.lookup.resolve(graph.repository, name)
            if target is None or not graph.learn(target.digest):
                continue
            if graph.nodes[target.digest].is_index:
                graph.learn_children(target.digest, platform)
        except Unreachable:
            raise
        except DigestryError as error:
            refused = refused or error
            continue
        found = [c for c in wanted if any(node.config == c.digest for node in graph.nodes.values())]
        if found:
            return found
    if refused is not None:
        raise refused
    return []


def _names(graph: ImageGraph, tag: str | None) -> Iterator[str]:
    if tag is not None:
        yield tag
    for other in graph.lookup.tags(graph.repository, most=MOST_TAGS):
        if other != tag:
            yield other


@dataclass(frozen=True, slots=True)
class _Code:
    """What runs: a config, its manifest, or which manifests it may be. ``obtained`` is the digest by
    which it was found."""

    obtained: Digest
    config: Digest | None = None
    manifest: Digest | None = None
    possible: frozenset[Digest] = frozenset()


def _which(code: _Code) -> str:
    if code.config is not None or code.manifest is not None:
        return (
            f"the index has {len(code.possible)} more images, and the runtime does not say which one runs: "
            "the one for its own platform was taken"
        )
    return f"the index has {len(code.possible)} different images, and it is not known which of them runs"


def _code(
    graph: ImageGraph,
    claims: tuple[Claim, ...],
    known: list[Claim],
    platform: Platform | None,
    platform_manifest: Digest | None,
) -> _Code | None:
    """The config that runs and its manifest, or, if it cannot be told, which manifests it may be.

    None if the image ID speaks against all else that is known: then the claims are about other code.
    """
    if platform_manifest is not None and graph.learn(platform_manifest):
        node = graph.nodes[platform_manifest]
        if not node.is_index:
            return _Code(platform_manifest, node.config, platform_manifest)
    ids = [claim for claim in claims if claim.found_by == "image-id"]
    digests = [claim.digest for claim in ids]
    for claim in known:
        found = graph.nodes.get(claim.digest)
        if found is not None and found.is_index and not _has_config(graph, digests):
            graph.learn_children(found.digest, platform)
    for digest in digests:
        if _has_config(graph, [digest]):
            return _Code(digest, digest)
        if digest in graph.nodes:
            # The ID of a store that has no digest of the config: of a manifest, or of an index.
            return _of_node(graph, graph.nodes[digest], platform, certain=False)
    if any(claim.kind == "config" for claim in claims):
        return None
    believable = known
    if ids and not any(claim.kind in {"manifest", "index"} for claim in ids):
        # Nothing here has the image ID: a pair that the runtime may have made up is no evidence.
        believable = [claim for claim in known if claim.obtained]
    if not believable:
        return None
    first = believable[0].digest
    named = graph.nodes.get(first)
    return _Code(first, first) if named is None else _of_node(graph, named, platform)


def _of_node(
    graph: ImageGraph, node: ImageNode, platform: Platform | None, *, certain: bool = True
) -> _Code | None:
    """What runs, of a manifest or an index that the runtime obtained. ``certain`` is False if
    ``platform`` is that of the machine, on which an image of another one may run all the same."""
    if node.config is not None:
        return _Code(node.digest, node.config, node.digest)
    whole = graph.lookup.manifest(graph.repository, node.digest) is not None
    graph.learn_children(node.digest, platform)
    every = graph.images_of(node.digest, None) if whole else list(node.children)
    choice = (graph.images_of(node.digest, platform) if whole else []) or every
    if not choice:
        return None  # an index of no image
    codes = {_config_of(graph, child) for child in choice}
    if len(codes) > 1:
        return _Code(node.digest, possible=frozenset(choice))
    (chosen,) = codes
    others = frozenset[Digest]()
    if not certain:
        others = frozenset(child for child in every if child not in choice)
    known = graph.nodes.get(choice[0])
    return _Code(node.digest, None if known is None else chosen, choice[0], others)


def _config_of(graph: ImageGraph, manifest: Digest) -> Digest:
    """The config of an image; the manifest itself, where the registry does not have it."""
    node = graph.nodes.get(manifest)
    return manifest if node is None or node.config is None else node.config


def _has_config(graph: ImageGraph, configs: list[Digest]) -> bool:
    return any(node.config in configs for node in graph.nodes.values())


def _obtained(graph: ImageGraph, claims: list[Claim], reference: Reference) -> Claim:
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


def _pointed(graph: ImageGraph, tag: str) -> list[Digest]:
    """Where ``tag`` points and has pointed, newest first."""
    target = graph.lookup.resolve(graph.repository, tag)
    events = graph.lookup.tag_history(graph.repository, tag) or ()
    past = [event.to_digest for event in events if event.to_digest is not None]
    return past if target is None else [target.digest, *past]


def _holding(graph: ImageGraph, closure: frozenset[Digest], tag: str | None) -> Digest | None:
    """The manifest or index by which code was obtained of which only the config is known."""
    for digest in _pointed(graph, tag) if tag is not None else ():
        if digest in closure and digest in graph.nodes:
            return digest
    images = sorted(node.digest for node in graph.nodes.values() if node.config in closure)
    return images[0] if images else None


def _manifest_of(graph: ImageGraph, digest: Digest, closure: frozenset[Digest]) -> Digest | None:
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
