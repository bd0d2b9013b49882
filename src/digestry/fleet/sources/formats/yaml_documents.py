"""YAML, as gcloud, kubectl and az print it: each document as the JSON that it amounts to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from digestry.fleet.sources.formats.documents import Entry, Fault, Input
from digestry.fleet.sources.formats.places import Lines

LARGEST: Final = 1 << 26
"""Bytes of YAML that are read: it takes many times as long as JSON."""
_BEGINS: Final = re.compile(r"---|%YAML|#|(- +)?[A-Za-z_][\w.-]*:( |\s*$)")


def is_yaml(first: str) -> bool:
    """Whether ``first`` may be the first line of YAML, and is none of CSV."""
    return _BEGINS.match(first) is not None


def read_yaml(source: Input, first: bytes) -> Iterator[Entry | Fault]:
    """Every document of ``source``, of which the line ``first`` was read.

    Raises ``OSError``, and :class:`~digestry.errors.TooLarge`.
    """
    import yaml  # noqa: PLC0415 - few files are YAML

    begins = source.number
    content = source.rest(first)
    if len(content) > LARGEST:
        yield Fault(f"line {begins}", f"YAML of more than {LARGEST} bytes: write it as JSON")
        return
    if b"&" in content and _ANCHOR.search(content):
        # A few lines of aliases can stand for more than any memory holds.
        yield Fault(f"line {begins}", "YAML with anchors is not read: write it as JSON")
        return
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    place = Lines()
    try:
        for document in yaml.load_all(content, Loader=loader):
            if document is not None:
                yield place, begins, msgspec.Raw(msgspec.json.encode(document, enc_hook=_plain))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = begins + mark.line if mark is not None else begins
        yield Fault(f"line {where}", "not YAML that can be read")


_ANCHOR: Final = re.compile(rb"(?:^|[\s\[{,:-])&[A-Za-z0-9_]+(?:\s|$)")


def _plain(value: Any) -> str:
    return str(value)
