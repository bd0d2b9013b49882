"""Documents of strangers with the wrong types: each field of one is replaced by each type and extreme."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

_MARK: Final = "\x00here\x00"
DEEP: Final = 100_000
EXTREMES: Final[dict[str, bytes]] = {
    "null": b"null",
    "true": b"true",
    "zero": b"0",
    "negative": b"-1",
    "fraction": b"1.5",
    "64 bits and one": b"18446744073709551616",
    "400 digits": b"1" + b"0" * 400,
    "minus 400 digits": b"-1" + b"0" * 400,
    "5000 digits": b"9" * 5000,
    "too large a float": b"1e999",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "empty string": b'""',
    "string": b'"x"',
    "long string": b'"' + b"x" * 300_000 + b'"',
    "lone surrogate": rb'"\ud800"',
    "control characters": rb'"\u0000\u001b[31m\r\n"',
    "a far date": b'"9999-12-31T23:59:59.999999999+00:00"',
    "an early date": b'"0001-01-01T00:00:00+23:59"',
    "a digest of other case": b'"sha256:' + b"A" * 64 + b'"',
    "invalid UTF-8": b'"\xff\xfe"',
    "empty list": b"[]",
    "list of null": b"[null]",
    "list of lists": b"[[[]]]",
    "list of objects": b"[{}]",
    "list of numbers": b"[1e300]",
    "empty object": b"{}",
    "object of objects": b'{"":{"":{}}}',
    "object of null": b'{"x":null}',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"0" + b"}" * DEEP,
}
WHOLE: Final[dict[str, bytes]] = {
    **EXTREMES,
    "nothing": b"",
    "spaces": b" " * 1000,
    "a half": b'{"a":',
    "two": b"{}{}",
    "HTML": b"<html><body>proxy login</body></html>",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "zeros": bytes(1000),
    "keys twice": b'{"a":1,"a":[]}',
}
"""What may stand instead of a whole document."""


def sampled(few: int, *, many: int = 1) -> pytest.MarkDecorator:
    """Runs a test with each ``few``-th of many documents, and with each ``many``-th where there is time."""
    return pytest.mark.parametrize("every", [few, pytest.param(many, marks=pytest.mark.long)])


SAMPLED: Final = sampled(17)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value[:2]):
            yield from _places(item, (*path, number))


def mutations(document: Any) -> Iterator[tuple[str, bytes]]:
    """What was done, and the JSON: each field replaced by each extreme, and taken away; then each whole."""
    for path in _places(document):
        changed = copy.deepcopy(document)
        holder = changed
        for step in path[:-1]:
            holder = holder[step]
        name = "/".join(map(str, path))
        holder[path[-1]] = _MARK
        text = json.dumps(changed).encode()
        mark = json.dumps(_MARK).encode()
        for what, raw in EXTREMES.items():
            yield f"{name} is {what}", text.replace(mark, raw)
        del holder[path[-1]]
        yield f"{name} is not there", json.dumps(changed).encode()
    yield from WHOLE.items()
