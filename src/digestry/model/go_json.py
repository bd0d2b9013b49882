"""Read the JSON of manifests as Go's ``encoding/json`` does.

Go accepts null for an absent field, a field's name in any case, and text that is not UTF-8. This module
normalizes such manifests of other registries to the form that the types of this package read. Other errors
stay: a wrong type is wrong for Go, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_TOP: Final = (
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
)
_DESCRIPTOR: Final = (
    "mediaType",
    "digest",
    "size",
    "urls",
    "annotations",
    "data",
    "platform",
    "artifactType",
)
_PLATFORM: Final = ("architecture", "os", "os.version", "os.features", "variant")
_NAMES: Final = frozenset(name.encode() for name in (*_TOP, *_DESCRIPTOR, *_PLATFORM))
_LOWER: Final = frozenset(name.lower() for name in _NAMES)
_SMALL: Final = 64 << 10
_WORD: Final = re.compile(rb'"([A-Za-z.]{2,13})"')
_SURROGATE: Final = "[\ud800-\udfff]"

Fields = dict[str, Callable[[object], object]]


def is_odd(raw: bytes) -> bool:
    """Return whether ``raw`` has a field's name, or a text like one, in the wrong case."""
    if len(raw) <= _SMALL:
        words = _WORD.findall(raw)
        return not _NAMES.issuperset(words) and any(word.lower() in _LOWER for word in set(words) - _NAMES)
    # One pass for each name: with many quoted words the expression above would be slow.
    lower = raw.lower()
    return any(lower.count(b'"%b"' % name.lower()) != raw.count(b'"%b"' % name) for name in _NAMES)


def plain(raw: bytes) -> bytes:
    """Return the manifest or index ``raw`` normalized: without nulls, with names in the right case.

    Raises :class:`ValueError` for invalid JSON, and :class:`RecursionError`.
    """
    import json  # noqa: PLC0415 - few manifests are odd

    document = json.loads(raw.decode("utf-8", "replace"), parse_constant=_no_constant)
    return json.dumps(_object(document, _TOP, _MANIFEST)).encode()


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _object(value: object, names: tuple[str, ...], kinds: Fields) -> object:
    if not isinstance(value, dict):
        return value
    cases = {name.lower(): name for name in names}
    result: dict[str, object] = {}
    for key, item in value.items():
        name = cases.get(key.lower(), str(key))
        if item is None:
            continue
        kind = kinds.get(name)
        result[_go_text(name)] = _texts(item) if kind is None else kind(item)
    return result


def _list_of(kind: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: [kind(item) for item in value] if isinstance(value, list) else value


def _map(value: object) -> object:
    """Return a map of texts, with an empty text in place of a null."""
    if not isinstance(value, dict):
        return value
    return {_text(key): _text("" if item is None else item) for key, item in value.items()}


def _text(value: object) -> object:
    return _go_text(value) if isinstance(value, str) else value


def _go_text(text: str) -> str:
    return re.sub(_SURROGATE, "\ufffd", text)


def _texts(value: object) -> object:
    """Return a value with all text in it as Go reads it."""
    match value:
        case str():
            return _text(value)
        case list():
            return [_texts(item) for item in value]
        case dict():
            return {_text(key): _texts(item) for key, item in value.items()}
        case _:
            return value


def _text_or_empty(value: object) -> object:
    return "" if value is None else _text(value)


def _platform(value: object) -> object:
    return _object(value, _PLATFORM, {"os.features": _list_of(_text_or_empty)})


def _descriptor(value: object) -> object:
    kinds: Fields = {"urls": _list_of(_text_or_empty), "annotations": _map, "platform": _platform}
    return _object(value, _DESCRIPTOR, kinds)


_MANIFEST: Final[Fields] = {
    "config": _descriptor,
    "layers": _list_of(_descriptor),
    "manifests": _list_of(_descriptor),
    "subject": _descriptor,
    "annotations": _map,
}
