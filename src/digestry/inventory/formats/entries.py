"""The entries of JSON documents, each recognised by its keys and read by its format."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Final

import msgspec

from digestry.errors import DigestryError, InvalidConfiguration
from digestry.inventory.formats.columns import is_state
from digestry.inventory.formats.container_states import state_of
from digestry.inventory.formats.digest_columns import role_of, unread
from digestry.inventory.formats.inventory import RENAME, UNREAD
from digestry.inventory.formats.json_documents import Entry, Fault
from digestry.inventory.formats.known_formats import EXPECTED, FORMATS
from digestry.inventory.formats.kubernetes import Kubernetes
from digestry.inventory.formats.locations import Entries, SourceLocation
from digestry.inventory.formats.rows import Fields, Format, Item, Reading, begins_with
from digestry.inventory.observation import Unseen
from digestry.model.digest import shown
from digestry.model.json_values import as_text

_LISTS: Final = ("containers", "items", "images", "value", "revisions")
_USAGE: Final = ("Containers", "Images")
_USAGE_MARK: Final = "LayersSize"
"""``GET /system/df`` has it. ``docker system df --verbose`` does not: its containers have no state."""
_PREDICATE: Final = "predicate"
_AROUND: Final = frozenset({"host", "kind", "apiVersion", "metadata"})
_EMPTY: Final = (b"null", b'""', b"[]", b"{}")
_NEXT: Final = frozenset({"continue", "remainingitemcount", "nexttoken", "nextlink", "nextpagetoken"})
_PAGE: Final = "write all of it: the other pages are not read"
_DEEPEST: Final = 5
_KEYS_SHOWN: Final = 8
_SHOWN: Final = 40
_ALL: Final = "--all has those too"


class EntryReader:
    """Recognises the entries of JSON documents, and has each read by its format."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._arrays = msgspec.json.Decoder(list[msgspec.Raw])
        self._formats: dict[type[Format], Format] = {}
        self._useful: set[type[Format]] = set()
        self._counts: Counter[str] = Counter()
        self._problems = 0
        self._last: type[Format] | None = None
        self._last_fields: Fields = {}
        self._suspect: tuple[str, ...] = ()

    def read(self, entries: Iterable[Entry | Fault]) -> Iterator[Item]:
        """Yield the containers of all ``entries``, the problems, and a note of the formats."""
        for item in self._all(entries):
            self._problems += isinstance(item, Unseen)
            yield item
        if self._counts:
            yield self._reading.note(f"read as {', '.join(map(_times, self._counts.items()))}")
        yield from self._nothing()

    def _all(self, entries: Iterable[Entry | Fault]) -> Iterator[Item]:
        for entry in entries:
            if isinstance(entry, Fault):
                yield Unseen(self._reading.source, f"{self._reading.where}, {entry.where}: {entry.message}")
            else:
                yield from self._entry(*entry, depth=0)
        for kind, reader in self._formats.items():
            for item in reader.finish():
                self._useful.add(kind)
                yield item

    def _nothing(self) -> Iterator[Item]:
        """Yield the reason why no container of the file is reported, or not all of them."""
        reading = self._reading
        if reading.stopped:
            yield from left_out_note(reading, others=bool(self._useful))
        elif self._useful or self._problems:
            return
        elif reading.answered:
            yield reading.note("it says that there is no container")
        elif not self._formats:
            yield reading.problem(
                "there is nothing in it, which does not show that nothing runs",
                "an empty list may be one of anything",
            )
        else:
            for kind in self._formats:
                yield reading.problem(
                    f"{kind.title}, with nothing in it to be used", f"expected {kind.usable}"
                )

    def _entry(self, place: SourceLocation, index: int, raw: msgspec.Raw, *, depth: int) -> Iterable[Item]:
        try:
            fields = self._objects.decode(raw)
        except msgspec.ValidationError:
            if begins_with(raw, "[") and depth < _DEEPEST:
                return self._list(place, index, raw, depth=depth)
            start = shown(bytes(memoryview(raw)[:_SHOWN]).decode(errors="replace"))
            return (self._problem(place, index, f"a container must be an object, not {start}"),)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return (self._problem(place, index, f"cannot be read: {error}"),)
        kind = self._kind(fields, place.kind)
        whole = kind is not None and getattr(kind, "whole", False)
        lists: list[str] = [key for key in _LISTS if key in fields and _is_list(fields[key])]
        if not lists and _USAGE_MARK in fields and all(key in fields for key in _USAGE):
            lists = [key for key in _USAGE if _is_list(fields[key])]
        if "apiVersion" in fields and "kind" in fields:
            # Only the items of Kubernetes' lists are what they list: not the images of a Kustomization.
            lists = [key for key in lists if key == "items"]
        if lists and depth < _DEEPEST and not whole:
            return self._opened(place, index, fields, lists, depth=depth)
        if kind is None:
            if begins_with(fields.get(_PREDICATE), "{") and depth < _DEEPEST:
                # An attestation: its statement is inside.
                return self._entry(place, index, fields[_PREDICATE], depth=depth + 1)
            return (self._unknown(place, index, fields),)
        reader = self._formats.get(kind)
        if reader is None:
            reader = self._formats[kind] = kind(self._reading)
        self._counts[kind.title] += 1
        try:
            if kind is not Kubernetes:
                _once(raw, fields)
            items = (
                *self._more(place, index, fields),
                *self._not_read(place, index, fields),
                *reader.read(raw, fields, place, index),
            )
        except DigestryError as error:
            items = (self._problem(place, index, error.message, error.hint),)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            items = (self._problem(place, index, f"{kind.title}: {_readable(error)}"),)
        if items:
            self._useful.add(kind)
        return items

    def _kind(self, fields: Fields, kind: str) -> type[Format] | None:
        last = self._last
        if last is not None and fields.keys() == self._last_fields.keys() and last.recognises(fields, kind):
            return last
        found = next((candidate for candidate in FORMATS if candidate.recognises(fields, kind)), None)
        self._last, self._last_fields = found, fields
        reads: frozenset[str] | None = getattr(found, "reads", None)
        self._suspect = tuple(
            key for key in fields if reads is not None and key not in reads and role_of(key)
        )
        return found

    def _not_read(self, place: SourceLocation, index: int, fields: Fields) -> Iterator[Item]:
        """Yield a problem for each key that may name an image and that the entry's format does not read."""
        for key in self._suspect:
            if bytes(fields[key]) not in _EMPTY and self._reading.first("unread", key):
                yield self._problem(place, index, f"{shown(key)} {UNREAD}", RENAME)

    def _list(self, place: SourceLocation, index: int, raw: msgspec.Raw, *, depth: int) -> Iterator[Item]:
        entries = self._arrays.decode(raw)
        inside = Entries(entries, (place, index), kind=place.kind)
        for position, entry in enumerate(entries):
            yield from self._entry(inside, position, entry, depth=depth + 1)

    def _opened(
        self, place: SourceLocation, index: int, fields: Fields, lists: Collection[str], *, depth: int
    ) -> Iterator[Item]:
        """Yield the entries of an object's lists. Its ``host`` and ``kind`` hold for them all."""
        host = as_text(_value(fields.get("host")))
        kind = as_text(_value(fields.get("kind"))).removesuffix("List")
        around = {key: value for key, value in fields.items() if key not in _LISTS and key not in lists}
        ended = any(
            is_state(key) and state_of(as_text(_value(raw))) == "ended" for key, raw in around.items()
        )
        yield from self._unread(place, index, around)
        yield from self._more(place, index, around)
        for key in lists:
            entries = self._arrays.decode(fields[key]) if begins_with(fields[key], "[") else []
            if not entries and (kind == "Pod" or host) and key != "images":
                self._reading.answered = True
            if ended and entries and self._reading.left_out(runs=False):
                self._reading.stopped += len(entries) - 1
                continue
            inside = Entries(entries, (place, index), (fields, key), host=host, kind=kind)
            for position, entry in enumerate(entries):
                yield from self._entry(inside, position, entry, depth=depth + 1)

    def _unread(self, place: SourceLocation, index: int, around: Fields) -> Iterator[Item]:
        """Yield a problem for each key beside a list of containers that may name an image."""
        for key, raw in around.items():
            if key not in _AROUND and (b"sha256:" in memoryview(raw).tobytes() or role_of(key)):
                found = unread({key: msgspec.json.decode(raw)})
                for path in dict.fromkeys(found):
                    if self._reading.first("unread", path):
                        yield self._problem(place, index, f"{shown(path)} {UNREAD}", RENAME)

    def _more(self, place: SourceLocation, index: int, fields: Fields) -> Iterator[Item]:
        """Yield a problem for a list that is one page of a longer one."""
        around = {**fields, **self._metadata(fields)}
        for key, raw in around.items():
            value = bytes(raw) if key.lower() in _NEXT else b""
            if value and value not in {*_EMPTY, b"0"} and self._reading.first("more", key):
                yield self._problem(
                    place, index, f"{shown(key)} says that there is more than this file has", _PAGE
                )

    def _metadata(self, fields: Fields) -> Fields:
        raw = fields.get("metadata")
        if raw is None or not begins_with(raw, "{"):
            return {}
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._objects.decode(raw)
        return {}

    def _unknown(self, place: SourceLocation, index: int, fields: Fields) -> Unseen:
        keys = ", ".join(shown(key) for key in list(fields)[:_KEYS_SHOWN]) or "no keys"
        message = f"there is no list of containers, nor anything else that is known, in an object with {keys}"
        found = list(dict.fromkeys(self._paths(fields)))[:_KEYS_SHOWN]
        if found:
            message += f"; {', '.join(map(shown, found))} may name an image, and was not read"
        return self._problem(place, index, message, EXPECTED)

    def _paths(self, fields: Fields) -> Iterator[str]:
        for key, raw in fields.items():
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                yield from unread({key: msgspec.json.decode(raw)})

    def _problem(self, place: SourceLocation, index: int, message: str, hint: str = "") -> Unseen:
        return Unseen(self._reading.source, f"{self._reading.where}, {place.where(index)}: {message}", hint)


def _once(raw: msgspec.Raw, fields: Fields) -> None:
    """Raise :class:`InvalidConfiguration` for an object with a key twice: readers differ in which counts."""
    content = bytes(raw)
    if b"\\u" not in content and all(content.count(b'"%s"' % key.encode()) == 1 for key in fields):
        return
    json.loads(content, object_pairs_hook=_unique, parse_int=str, parse_float=str)


def _unique(pairs: list[tuple[str, object]]) -> None:
    names = Counter(name for name, _ in pairs)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise InvalidConfiguration(
            f"it has {shown(twice)} twice, and it is not known which of the two counts"
        )


def left_out_note(reading: Reading, *, others: bool = True) -> Iterator[Item]:
    if reading.stopped:
        one = reading.stopped == 1
        message = (
            "1 container in it does not run" if one else f"{reading.stopped:,} containers in it do not run"
        )
        yield reading.note(message if others else f"{message}, and no other is in it", _ALL)


def _is_list(raw: msgspec.Raw) -> bool:
    return begins_with(raw, "[") or bytes(memoryview(raw)[:4]) == b"null"


def _value(raw: msgspec.Raw | None) -> object:
    """Return the string that a value is, or None if it is not a string."""
    if raw is None or not begins_with(raw, '"'):
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _times(counted: tuple[str, int]) -> str:
    title, count = counted
    return title if count == 1 else f"{title} ({count:,} entries)"


def _readable(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
