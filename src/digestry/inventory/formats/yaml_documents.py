"""YAML files, as gcloud, kubectl and az print them, converted to JSON values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from digestry.inventory.formats.json_documents import Entry, Fault, Input
from digestry.inventory.formats.locations import Lines
from digestry.inventory.formats.yaml_nesting import too_deep

LARGEST: Final = 1 << 26
"""The most bytes of YAML that are read: it takes many times as long as JSON."""
_BEGINS: Final = re.compile(r"---|%YAML|#|- +\{|(- +)?[A-Za-z_][\w.-]*:( |\s*$)")


def is_yaml(first: str) -> bool:
    """Return whether ``first`` may be the first line of YAML, and not of CSV."""
    return _BEGINS.match(first) is not None


def read_yaml(source: Input, first: bytes) -> Iterator[Entry | Fault]:
    """Yield every document of ``source``, after its line ``first`` was read.

    Raises ``OSError``, and :class:`~digestry.errors.TooLarge`.
    """
    import yaml  # noqa: PLC0415 - few files are YAML

    number = source.number
    content = source.rest(first)
    if len(content) > LARGEST:
        yield Fault(f"line {number}", f"YAML of more than {LARGEST} bytes: write it as JSON")
        return
    if b"&" in content and _ANCHOR.search(content):
        # A few lines of aliases can expand to more than any memory holds.
        yield Fault(f"line {number}", "YAML with anchors is not read: write it as JSON")
        return
    deep = too_deep(content)
    if deep:
        yield Fault(f"line {number + deep - 1}", "YAML that is nested too deeply")
        return
    # Any: the available loader depends on the installed library.
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """A loader that refuses a key that is there twice: readers differ in which one counts."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key.value, str) and key.value in seen:
                    raise yaml.constructor.ConstructorError(problem=_TWICE, problem_mark=key.start_mark)
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    # YAML 1.2's core words alone, and numbers that are the same when they are written again: 1.1 takes a
    # service that is called "off" for false, the tag 1.10 for 1.1 and "22:22" for 1342.
    Loader.yaml_implicit_resolvers = {}
    for tag, pattern, begins in _WORDS:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, begins)
    place = Lines()
    try:
        for document in yaml.load_all(content, Loader=Loader):
            if document is not None:
                yield place, number, msgspec.Raw(msgspec.json.encode(document, enc_hook=_plain))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = number + mark.line if mark is not None else number
        twice = getattr(error, "problem", None) == _TWICE
        yield Fault(f"line {where}", _TWICE if twice else "not YAML that can be read")


_TWICE: Final = "a key is there twice, and it is not known which of the two counts"
_ANCHOR: Final = re.compile(rb"(?:^|[\s\[{,:-])&[A-Za-z0-9_]+(?:\s|$)")


_WORDS: Final = (
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("int", re.compile(r"(?:0|-?[1-9][0-9]{0,17})$"), list("-0123456789")),
)


def _plain(value: Any) -> str:
    return str(value)
