"""Bulk answers of a registry, read as answers to the single questions."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from digestry.audit.query_cache import Question
from digestry.errors import InvalidManifest
from digestry.model import media_types
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

    ``contents`` were verified against their digests.
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
        yield ("resolve", repository, state.tag), state.target
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
