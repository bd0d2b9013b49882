"""Bulk answers of a registry, read as answers to the single questions."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from digestry.audit.query_cache import Question
from digestry.audit.referred_parts import ReferredPart, ReferredParts, base_reference
from digestry.errors import InvalidManifest, InvalidReference
from digestry.model import media_types
from digestry.model.age_answers import PassedOver
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.history import Holders, TagSpan
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference
from digestry.model.resolution import Resolution


def single_answers(
    host: str, resolution: Resolution, contents: Mapping[str, str]
) -> Iterator[tuple[Question, object]]:
    """Yield each question of the audit that ``resolution`` answers, and its answer.

    ``contents`` were verified against their digests. Of a tag whose target is passed over for its age, that
    is said, and what a pull gets is left to the single question.
    """
    repository = Reference(host, resolution.repository)
    nodes = {node.digest: node for node in resolution.nodes}
    for text, holding in resolution.holders.items():
        digest = Digest.parse(text)
        if all(holder in nodes for holder in holding):
            yield ("holders", repository, digest), Holders(digest, tuple(nodes[holder] for holder in holding))
        if all(str(holder) in resolution.spans for holder in holding):
            spans = [span for holder in holding for span in resolution.spans[str(holder)]]
            yield ("whose", repository, digest), tuple(sorted(spans, key=_since, reverse=True))
    for state in resolution.tags:
        if state.target is not None and (state.served is not None or state.refused):
            passed_over = PassedOver(state.target.digest, state.refused)
            yield ("passed over", repository, state.tag), passed_over
        elif state.served is None:
            yield ("resolve", repository, state.tag), state.target
            # There was no HEAD that a GET could contradict.
            yield ("contradiction", repository, state.tag), ""
        if not state.more:
            yield ("history", repository, state.tag), state.events
    for encoded, digests in resolution.prefixes.items():
        yield ("prefix", repository, encoded), digests
    for node in resolution.nodes:
        if node.config is None and str(node.digest) in contents:
            index = Descriptor(node.media_type, node.digest, node.size)
            yield from _manifest(repository, index, contents)
    for text, referrers in resolution.referrers.items():
        yield ("referrers", repository, Digest.parse(text)), referrers
        for referrer in referrers:
            yield from _manifest(repository, referrer, contents)
    yield from _parts(repository, resolution, contents)


def _parts(
    repository: Reference, resolution: Resolution, contents: Mapping[str, str]
) -> Iterator[tuple[Question, object]]:
    """Yield which layers and configs of each image have referrers, and those."""
    configs = {node.config for node in resolution.nodes}
    referred: dict[Digest, dict[Reference, None]] = {}
    for found in resolution.part_referrers:
        try:
            there = Reference(repository.host, found.repository)
        except InvalidReference:
            continue
        referred.setdefault(found.part, {})[there] = None
        if not (resolution.upstream and there == repository):
            yield ("referrers", there, found.part), found.referrers
        for referrer in found.referrers:
            yield from _manifest(there, referrer, contents)
    for text, digests in resolution.parts.items():
        parts = []
        for digest in digests:
            base = resolution.bases.get(str(digest))
            parts.append(
                ReferredPart(
                    digest,
                    "config" if digest in configs else "layer",
                    tuple(referred.get(digest, ())),
                    None if base is None else base_reference(repository.host, base),
                )
            )
        answer = ReferredParts(tuple(parts), everywhere=not resolution.upstream)
        yield ("parts", repository, Digest.parse(text)), answer
    for text, holding in resolution.holders.items():
        if not holding:
            yield ("parts", repository, Digest.parse(text)), ReferredParts()


def _since(span: TagSpan) -> datetime.datetime:
    return span.since


def _manifest(
    repository: Reference, descriptor: Descriptor, contents: Mapping[str, str]
) -> Iterator[tuple[Question, object]]:
    """Yield a manifest that was sent along, and its layers."""
    text = contents.get(str(descriptor.digest))
    if text is None or descriptor.media_type not in media_types.MANIFESTS:
        return
    digest = descriptor.digest
    try:
        manifest = Manifest.parse(text.encode(), descriptor.media_type, algorithm=digest.algorithm)
    except InvalidManifest:
        return  # a single query for it gets the error
    yield ("manifest", repository, digest), manifest
    for layer in manifest.layers:
        content = contents.get(str(layer.digest))
        if content is not None and len(encoded := content.encode()) == layer.size:
            yield ("blob", repository, layer.digest, layer.size), encoded
