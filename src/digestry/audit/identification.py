"""The identification of a container's image: its claimed digests, joined with what its registry holds.

The registry's manifests make a graph, index → manifest → config, overwritten and untagged ones
included. Everything here raises what the queries raise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from digestry.audit.graph_explorer import MOST_TAGS, GraphExplorer
from digestry.audit.image_graph import ImageGraph, ImageNode
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import DigestryError, Unreachable
from digestry.inventory.observation import Claim, ImageFacts
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference


def identify(
    queries: RegistryQueries, reference: Reference, claims: tuple[Claim, ...], image: ImageFacts
) -> ImageIdentity | None:
    """Return the identity that ``claims`` and the repository of ``reference`` give together; None if it knows
    no claim.

    ``claims`` are those of ``image`` that are of this repository or of none, the most believable first. The
    reference's tag gives another place to search, and decides which of several digests of the same code the
    runtime was given.
    """
    explorer = GraphExplorer.of(queries, reference.repository_only())
    known, refused = _known(explorer, claims)
    if not known and not explorer.graph.complete:
        tag = reference.tag if reference.digest is None else None
        try:
            known = _search(explorer, claims, tag, image.platform)
        except Unreachable:
            raise
        except DigestryError as error:
            refused.append(error)
    if not known:
        if refused:
            raise refused[0]
        return None
    code = _code(explorer, claims, known, image)
    if code is None:
        return None
    if code.config is not None:
        explorer.explore(code.config, is_config=True)  # siblings that share the config are the same code
    return _identity(
        explorer, reference, claims, known, code, refused=refused, assumed=image.platform_assumed
    )


def extended(
    queries: RegistryQueries,
    identity: ImageIdentity,
    digest: Digest,
    platform: Platform | None,
    repository: Reference,
) -> ImageIdentity:
    """Return ``identity`` extended by ``digest`` of ``repository``: it may be another node that holds the
    same code.

    For a registry without the query for holders; with it, the identity is complete already. A repository
    other than the identity's is another name of it.
    """
    if digest in identity.closure or identity.config is None:
        return identity
    same_repository = identity.repository == repository
    if same_repository and identity.graph.complete:
        return identity
    explorer = GraphExplorer(queries, identity.graph if same_repository else ImageGraph(repository))
    node = explorer.nodes.get(digest) if explorer.explore(digest) else None
    if node is not None and node.is_index and not identity.closure.intersection(node.children):
        explorer.expand_children(digest, platform)
    return replace(identity, closure=identity.closure | explorer.graph.closure(identity.config))


def _identity(
    explorer: GraphExplorer,
    reference: Reference,
    claims: tuple[Claim, ...],
    known: list[Claim],
    code: _Code,
    *,
    refused: list[DigestryError],
    assumed: bool,
) -> ImageIdentity:
    """Return the identity of ``code``, with the reasons to doubt it."""
    graph = explorer.graph
    closure = graph.closure(code.config or code.manifest or code.obtained)
    reasons = [f"a digest that was given could not be looked up: {error.message}" for error in refused]
    reasons += [
        f"{claim.read_from} also names {claim.digest}, which is other code: it was not believed"
        for claim in known
        if claim.digest not in closure
    ]
    chosen = _obtained(explorer, [claim for claim in known if claim.digest in closure] or known, reference)
    running = chosen.digest
    if running not in graph.nodes:
        # Only the code was known: the runtime obtained a manifest that has it, or its index.
        running = _holding(explorer, closure, reference) or running
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
        assumed=assumed and bool(code.possible),
    )


# -- which claims the repository knows ----------------------------------------------------------


def _known(explorer: GraphExplorer, claims: tuple[Claim, ...]) -> tuple[list[Claim], list[DigestryError]]:
    """Return the claims whose digests the repository has or had, in any role, and its refusals.

    One refused query does not hide the answers to the others.
    """
    known: list[Claim] = []
    refused: list[DigestryError] = []
    for claim in claims:
        try:
            if explorer.explore(claim.digest, is_config=claim.kind == "config"):
                known.append(claim)
        except Unreachable:
            raise
        except DigestryError as error:
            refused.append(error)
    return known, refused


def _search(
    explorer: GraphExplorer, claims: tuple[Claim, ...], tag: str | None, platform: Platform | None
) -> list[Claim]:
    """Search for configs behind the tags of a registry without a query for them: behind ``tag`` first, since
    the account may pull it and still not list the others."""
    sought = [claim for claim in claims if claim.kind in {"config", "unknown"}]
    if not sought:
        return []
    refused: DigestryError | None = None
    for name in _tags(explorer, tag):
        try:
            target = explorer.queries.resolve(explorer.repository, name)
            if target is None or not explorer.expand(target.digest, platform):
                continue
        except Unreachable:
            raise
        except DigestryError as error:
            refused = refused or error
            continue
        found = [claim for claim in sought if explorer.graph.has_config({claim.digest})]
        if found:
            return found
    if refused is not None:
        raise refused
    return []


def _tags(explorer: GraphExplorer, first: str | None) -> Iterator[str]:
    if first is not None:
        yield first
    for other in explorer.queries.tags(explorer.repository, most=MOST_TAGS):
        if other != first:
            yield other


# -- which code they name -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Code:
    """The code that runs: a config, its manifest, or the manifests that it may be. ``obtained`` is the digest
    by which it was found."""

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
    explorer: GraphExplorer, claims: tuple[Claim, ...], known: list[Claim], image: ImageFacts
) -> _Code | None:
    """Return the config that runs and its manifest, or, if that is unclear, the manifests that it may be.

    None if the image ID contradicts all other claims: then they are about other code.
    """
    runs = image.platform_manifest
    node = explorer.nodes.get(runs) if runs is not None and explorer.explore(runs) else None
    if node is not None and not node.is_index:
        return _Code(node.digest, node.config, node.digest)
    ids = [claim for claim in claims if claim.found_by == "image-id"]
    _learn_images(explorer, known, [claim.digest for claim in ids], image.platform)
    for claim in ids:
        if explorer.graph.has_config({claim.digest}):
            return _Code(claim.digest, claim.digest)
        node = explorer.nodes.get(claim.digest)
        if node is not None:
            # The ID of a store that has no digest of the config: of a manifest, or of an index.
            return _of_node(explorer, node, image.platform, certain=False)
    if any(claim.kind == "config" for claim in claims):
        return None
    believed = _believed(known, ids)
    if believed is None:
        return None
    node = explorer.nodes.get(believed.digest)
    if node is None:
        return _Code(believed.digest, believed.digest)
    return _of_node(explorer, node, image.platform)


def _learn_images(
    explorer: GraphExplorer, known: list[Claim], ids: Sequence[Digest], platform: Platform | None
) -> None:
    """Look into the indexes among the known claims, until an image has one of ``ids`` as its config."""
    for claim in known:
        node = explorer.nodes.get(claim.digest)
        if node is not None and node.is_index and not explorer.graph.has_config(ids):
            explorer.expand_children(node.digest, platform)


def _believed(known: list[Claim], ids: list[Claim]) -> Claim | None:
    """Return the first known claim that may be believed where no image ID is known; None if none may."""
    if not ids or any(claim.kind in {"manifest", "index"} for claim in ids):
        return known[0]
    # Nothing here has the image ID: a pair that the runtime may have made up is no evidence.
    return next((claim for claim in known if claim.obtained), None)


def _of_node(
    explorer: GraphExplorer, node: ImageNode, platform: Platform | None, *, certain: bool = True
) -> _Code | None:
    """Return the code of a manifest or an index that the runtime obtained; None for an index without images.

    ``certain`` is False if ``platform`` is that of the machine, on which an image of another one may run
    all the same.
    """
    if node.config is not None:
        return _Code(node.digest, node.config, node.digest)
    whole = explorer.queries.manifest(explorer.repository, node.digest) is not None
    explorer.expand_children(node.digest, platform)
    every = explorer.images_of(node.digest, None) if whole else list(node.children)
    choice = (explorer.images_of(node.digest, platform) if whole else []) or every
    if not choice:
        return None
    codes = {explorer.graph.config_of(child) for child in choice}
    if len(codes) > 1:
        return _Code(node.digest, possible=frozenset(choice))
    (chosen,) = codes
    others = frozenset[Digest]()
    if not certain:
        others = frozenset(child for child in every if child not in choice)
    known = explorer.nodes.get(choice[0])
    return _Code(node.digest, None if known is None else chosen, choice[0], others)


def _contested(
    claims: tuple[Claim, ...], known: list[Claim], closure: frozenset[Digest], config: Digest | None
) -> tuple[Digest, ...]:
    """Return the digests that contradict the identity.

    A pair that the runtime may have made up does not, if the image ID is known to be of the code. If the
    image ID is the config's digest, nothing does: that is the code, by any other name of the image.
    """
    ids = [claim.digest for claim in claims if claim.found_by == "image-id"]
    if config is not None and set(ids) == {config}:
        return ()
    sure = any(digest in closure for digest in ids)
    against = [
        claim.digest for claim in known if claim.digest not in closure and (claim.obtained or not sure)
    ]
    if not sure and any(claim.obtained and claim.digest in closure for claim in known):
        # A store that records what it pulled has an ID that its registry knows, too.
        against += [
            claim.digest for claim in claims if claim.found_by == "image-id" and claim.kind == "unknown"
        ]
    return tuple(dict.fromkeys(against))


# -- by which digest it was obtained ------------------------------------------------------------


def _obtained(explorer: GraphExplorer, claims: list[Claim], reference: Reference) -> Claim:
    """Return which of several claims of the same code the runtime was given."""
    named = [claim for claim in claims if claim.found_by != "image-id"]
    if not named:
        return claims[0]
    sought: list[Digest] = []
    if reference.digest is not None:
        sought = [reference.digest]
    elif len({claim.digest for claim in named}) > 1:
        sought = _pointed(explorer, reference)
    return next((claim for digest in sought for claim in named if claim.digest == digest), named[0])


def _pointed(explorer: GraphExplorer, reference: Reference) -> list[Digest]:
    """Return where the tag of ``reference`` points and has pointed, newest first; empty if it has none."""
    tag = reference.tag if reference.digest is None else None
    if tag is None:
        return []
    target = explorer.queries.resolve(explorer.repository, tag)
    events = explorer.queries.tag_history(explorer.repository, tag) or ()
    past = [event.to_digest for event in events if event.to_digest is not None]
    return past if target is None else [target.digest, *past]


def _holding(explorer: GraphExplorer, closure: frozenset[Digest], reference: Reference) -> Digest | None:
    """Return the manifest or index by which the code was obtained, if only its config is known."""
    for digest in _pointed(explorer, reference):
        if digest in closure and digest in explorer.nodes:
            return digest
    images = sorted(node.digest for node in explorer.nodes.values() if node.config in closure)
    return images[0] if images else None


def _manifest_of(graph: ImageGraph, digest: Digest, closure: frozenset[Digest]) -> Digest | None:
    """Return the image manifest in ``closure`` that ``digest`` is, or that the index ``digest`` holds."""
    node = graph.nodes.get(digest)
    if node is None:
        return None
    if node.config is not None:
        return digest
    pending, seen = [digest], {digest}
    while pending:
        for child in graph.nodes[pending.pop(0)].children:
            if child in closure and child in graph.nodes and child not in seen:
                if graph.nodes[child].config is not None:
                    return child
                seen.add(child)
                pending.append(child)
    return None
