"""The output of ``kubectl get pods -A -o json``, read incrementally.

That list is the one document that is often too long for memory: a pod in it takes 10 kB. kubectl indents it
always the same way, so that its entries are found without reading it whole. The end of an entry is a guess
until it has been decoded, and with it the next one: pieces that are objects, with commas between them, have
only one reading. A file that is not exactly such a list of pods and nodes is not read here: nothing of it is
used, and it is read anew as any other file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Literal

import msgspec

from digestry.inventory.formats.json_documents import Input
from digestry.inventory.formats.pod_fields import decode_pod
from digestry.inventory.formats.pods import observe_pods, platforms_of_nodes
from digestry.inventory.formats.rows import Reading
from digestry.inventory.observation import ContainerObservation, ImageFacts, Observation
from digestry.model.json_types import prepared
from digestry.model.json_values import as_object, as_text
from digestry.model.platform import Platform

_PIECE: Final = 1 << 22
"""Bytes that are read at once."""
_LONGEST: Final = 1 << 25
"""The most bytes of one entry, and of the text after the last one."""
_KEY: Final = re.compile(rb' +"apiVersion": "v1",\n')
_ITEMS: Final = re.compile(rb'( +)"items": \[\n')
_FIRST: Final = re.compile(rb"( +)\{\n")


class _Unfit(Exception):
    """It is not such a list."""


class _Metadata(msgspec.Struct, frozen=True):
    """``continue`` marks an incomplete list, with further pages."""

    following: str | None = msgspec.field(default=None, name="continue")
    remaining: int | None = msgspec.field(default=None, name="remainingItemCount")


class _Tail(msgspec.Struct, forbid_unknown_fields=True):
    """The text after the entries: without further ``items``, since the last would count."""

    kind: Literal["List"]
    metadata: _Metadata = _Metadata()


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    apiVersion: Literal["v1"]  # noqa: N815 - Kubernetes' name
    kind: Literal["Pod", "Node"]
    metadata: msgspec.Raw
    spec: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()


_tail: Final = msgspec.json.Decoder(prepared(_Tail))
_entry: Final = msgspec.json.Decoder(prepared(_Entry))


def read_pod_list(source: Input, first: bytes, reading: Reading) -> list[Observation] | None:
    """Return the containers of the pods in ``source``, after its line ``first`` was read.

    None, with ``source`` at its old position, if it has other content, or no containers. Raises ``OSError``,
    and :class:`~digestry.errors.TooLarge`.
    """
    if first != b"{\n":
        return None
    start = source.mark()
    if start is None:
        return None
    nodes: list[object] = []
    ended: list[int] = []
    try:
        seen = list(
            observe_pods(
                _pods(_pieces(source), nodes),
                source=reading.source,
                include_stopped=reading.include_stopped,
                left_out=ended.append,
            )
        )
    except (_Unfit, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        seen = []
    if not seen:
        source.back(start)
        return None
    reading.stopped += sum(ended)
    # kubectl prints the nodes after the pods.
    platforms = platforms_of_nodes(nodes)
    return _with_platforms(seen, platforms) if platforms else seen


def _with_platforms(seen: list[Observation], platforms: dict[str, Platform]) -> list[Observation]:
    """Return ``seen`` with the platform of each container's node, where that is known."""
    images: dict[tuple[int, str], ImageFacts] = {}  # containers of one image share one object
    found: list[Observation] = []
    for item in seen:
        if isinstance(item, ContainerObservation) and item.host in platforms:
            platform = platforms[item.host]
            key = id(item.image), str(platform)
            image = images.get(key)
            if image is None:
                image = images[key] = replace(item.image, platform=platform)
            found.append(replace(item, image=image))
        else:
            found.append(item)
    return found


def _pods(pieces: Iterator[bytes], nodes: list[object]) -> Iterator[object]:
    """Yield the pods among the entries, adding the nodes to ``nodes``."""
    for piece in pieces:
        if _entry.decode(piece).kind == "Node":
            nodes.append(msgspec.json.decode(piece))
            continue
        pod = decode_pod(piece)
        if not as_text(as_object(pod.get("metadata")).get("name")):
            raise _Unfit
        yield pod


def _pieces(source: Input) -> Iterator[bytes]:
    """Yield the entries of the list. Raises :class:`_Unfit` at the latest when it has ended."""
    key, items, begin = _KEY.fullmatch(source.line()), _ITEMS.fullmatch(source.line()), source.line()
    first = _FIRST.fullmatch(begin)
    if key is None or items is None or first is None:
        raise _Unfit
    indent = first[1]
    ending = b"\n" + indent + b"}"
    between = ending + b",\n" + begin
    last = ending + b"\n" + items[1] + b"]"
    opening = b"{\n"
    rest = b""
    while (at := rest.find(last)) < 0:
        piece = source.piece(_PIECE)
        if not piece or len(rest) > _LONGEST:
            raise _Unfit
        *whole, rest = (rest + piece).split(between)
        for item in whole:
            yield b"".join((opening, item, ending))
    yield b"".join((opening, rest[:at], ending))
    tail = rest[at + len(last) :]
    while piece := source.piece(_PIECE):
        tail += piece
        if len(tail) > _LONGEST:
            raise _Unfit
    if not tail.startswith(b","):
        raise _Unfit
    metadata = _tail.decode(b"{" + tail[1:]).metadata
    if metadata.following or metadata.remaining:
        raise _Unfit
