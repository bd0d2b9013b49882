"""A file that somebody else wrote: an inventory, or what a container engine's client printed.

What is in it is recognised entry by entry, so that one file may have several kinds of things, such
as ``docker inspect`` of containers and then of their images. Formats are in ``formats``. A
container that cannot be read is a problem that names its line; the others are still reported.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import parse_qsl

import msgspec

from digestry.errors import DigestryError, InvalidConfiguration, TooLarge
from digestry.fleet.sighting import Observation, Problem
from digestry.fleet.sources.engine import text
from digestry.fleet.sources.formats import EXPECTED, FORMATS
from digestry.fleet.sources.formats.columns import is_state
from digestry.fleet.sources.formats.containerd import is_table, read_table
from digestry.fleet.sources.formats.documents import Entry, Fault, Input, read_documents
from digestry.fleet.sources.formats.identities import role_of, unread
from digestry.fleet.sources.formats.inventory import RENAME, UNREAD, Inventory, read_csv
from digestry.fleet.sources.formats.metrics import is_exposition, read_exposition
from digestry.fleet.sources.formats.places import Entries, Place
from digestry.fleet.sources.formats.pod_list import read_pod_list
from digestry.fleet.sources.formats.rows import (
    Fields,
    Format,
    Made,
    Reading,
    Row,
    begins_with,
    sightings,
)
from digestry.fleet.sources.formats.states import state_of
from digestry.fleet.sources.formats.yaml_documents import is_yaml, read_yaml
from digestry.model.digest import shown

LARGEST_FILE: Final = 1 << 30
"""In bytes. CSV and JSON lines are read a line at a time, kubectl's list of pods in pieces, other JSON
as a whole."""
MOST_PROBLEMS: Final = 1000
"""Of one file; further ones are counted."""

_LISTS: Final = ("containers", "items", "images", "value")
_PREDICATE: Final = "predicate"
_AROUND: Final = frozenset({"host", "kind", "apiVersion", "metadata"})
_EMPTY: Final = (b"null", b'""', b"[]", b"{}")
_ALL: Final = "--all has those too"
_DEEPEST: Final = 5
_KEYS_SHOWN: Final = 8
_SHOWN: Final = 40
_SIZE: Final = re.compile(r"([0-9]{1,15})(KiB|MiB|GiB)?", re.ASCII)
_UNITS: Final = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}
_OTHERS: Final = (
    # What the first line looks like, what that is, and what would be read.
    (re.compile(r"[A-Z][A-Z0-9/_ ()-]*? {2,}[A-Z]"), "a table for people", "print it as JSON"),
    (re.compile(r"SPDXVersion:"), "an SPDX document in tag-value form", "write it as JSON"),
    (re.compile(r"<"), "XML or HTML", "write it as JSON"),
)


class FileSource:
    """The containers in the file ``where``; ``-`` is standard input.

    ``host`` is the host of those of which the file names none. ``largest`` is in bytes.
    """

    def __init__(
        self,
        name: str,
        where: str,
        *,
        include_stopped: bool = False,
        host: str = "",
        largest: int = LARGEST_FILE,
    ) -> None:
        self._name = name
        self._where = where
        self._include_stopped = include_stopped
        self._host = host
        self._largest = largest

    @classmethod
    def parse(cls, name: str, where: str, *, include_stopped: bool = False) -> FileSource:
        """Reads ``PATH`` or ``PATH?host=NAME&limit=SIZE``. Raises :class:`InvalidConfiguration`."""
        path, mark, query = where.rpartition("?")
        options = dict(parse_qsl(query, keep_blank_values=True)) if mark else {}
        if not options or not options.keys() <= {"host", "limit"}:
            path, options = where, {}  # the question mark is part of the name
        if not path:
            raise InvalidConfiguration(
                "the source 'file' does not say which file",
                hint="write file:PATH, or file:- for standard input",
            )
        return cls(
            name,
            path,
            include_stopped=include_stopped,
            host=options.get("host", ""),
            largest=_size(options["limit"]) if "limit" in options else LARGEST_FILE,
        )

    @property
    def name(self) -> str:
        return self._name

    def observe(self) -> Iterator[Observation]:
        reading = Reading(self._name, self._where, self._include_stopped)
        rows: list[Row] = []
        problems = 0
        # Rows wait for the end: a later entry may tell more of their images.
        for made in self._read(reading):
            if isinstance(made, Row):
                rows.append(made)
            elif isinstance(made, Problem):
                problems += 1
                if problems <= MOST_PROBLEMS:
                    yield made
            else:
                yield made
        if problems > MOST_PROBLEMS:
            yield reading.problem(f"{problems - MOST_PROBLEMS} more entries could not be read")
        yield from sightings(rows, source=self._name, host=self._host)

    def _read(self, reading: Reading) -> Iterator[Made]:
        try:
            with self._open() as file:
                source = Input(file, self._largest)
                yield from self._content(source, reading)
        except OSError as error:
            yield Problem(self._name, f"cannot read {self._where}: {error.strerror or error}")
        except TooLarge:
            yield Problem(
                self._name,
                f"{self._where} is longer than {self._largest} bytes, and was not read to its end",
                f"write file:{self._where}?limit=SIZE, or one document a line, which takes less memory",
            )

    def _open(self) -> contextlib.AbstractContextManager[BinaryIO]:
        if self._where == "-":
            try:
                # A reader of its own: Python cannot end while one that hangs has the lock of sys.stdin's.
                return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
            except (OSError, ValueError, AttributeError):
                return contextlib.nullcontext(sys.stdin.buffer)
        path = Path(self._where)
        if path.is_file() and path.stat().st_size > self._largest:
            raise TooLarge("too long", limit=self._largest)
        return path.open("rb")

    def _content(self, source: Input, reading: Reading) -> Iterator[Made]:
        first = source.line().removeprefix(codecs.BOM_UTF8)
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            # Windows' shell writes that for >.
            try:
                content = source.rest(first).decode("utf-16").encode()
            except UnicodeDecodeError:
                yield reading.problem("it begins as UTF-16, and is not", "write it as UTF-8")
                return
            source = Input(io.BytesIO(content), self._largest)
            first = source.line()
        while first.isspace():
            first = source.line()
        if not first:
            yield Problem(
                self._name,
                f"{self._where} is empty, which does not show that nothing runs",
                "a program that failed, or `docker ps --format json` where nothing runs, writes nothing",
            )
        elif first.lstrip()[:1] in (b"[", b"{"):
            pods = read_pod_list(source, first, reading)
            if pods is None:
                yield from _Entries(reading).read(read_documents(source, first))
                return
            yield from pods
            yield reading.note("read as `kubectl get pods -o json`")
            yield from _left_out_note(reading)
        else:
            yield from self._text(source, first, reading)

    def _text(self, source: Input, first: bytes, reading: Reading) -> Iterator[Made]:
        try:
            line = first.decode()
            if is_table(line):
                yield from read_table(source, reading)
                yield reading.note("read as `ctr containers ls`")
                return
            if is_exposition(line):
                yield from read_exposition(source, line, reading)
                yield from _left_out_note(reading)
                return
            for shape, what, hint in _OTHERS:
                if shape.match(line):
                    yield reading.problem(f"this is {what}, which is not read", hint)
                    return
            if is_yaml(line):
                yield from _Entries(reading).read(read_yaml(source, first))
                return
            yield from read_csv(source, line, Inventory(reading), reading)
            yield from _left_out_note(reading)
        except UnicodeDecodeError:
            yield Problem(self._name, f"{self._where}, line {source.number}: not UTF-8")


class _Entries:
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

    def read(self, entries: Iterable[Entry | Fault]) -> Iterator[Made]:
        """What is in all of ``entries``, and what they were read as."""
        for made in self._all(entries):
            self._problems += isinstance(made, Problem)
            yield made
        if self._counts:
            yield self._reading.note(f"read as {', '.join(map(_times, self._counts.items()))}")
        yield from self._nothing()

    def _all(self, entries: Iterable[Entry | Fault]) -> Iterator[Made]:
        for entry in entries:
            if isinstance(entry, Fault):
                yield Problem(self._reading.source, f"{self._reading.where}, {entry.where}: {entry.message}")
            else:
                yield from self._entry(*entry, depth=0)
        for kind, one in self._formats.items():
            for made in one.finish():
                self._useful.add(kind)
                yield made

    def _nothing(self) -> Iterator[Made]:
        """Why no container of the file is reported, or not all of them."""
        reading = self._reading
        if reading.stopped:
            yield from _left_out_note(reading, others=bool(self._useful))
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

    def _entry(self, place: Place, index: int, raw: msgspec.Raw, *, depth: int) -> Iterable[Made]:
        try:
            fields = self._objects.decode(raw)
        except msgspec.ValidationError:
            if begins_with(raw, "[") and depth < _DEEPEST:
                return self._list(place, index, raw, depth=depth)
            said = shown(bytes(memoryview(raw)[:_SHOWN]).decode(errors="replace"))
            return (self._problem(place, index, f"a container must be an object, not {said}"),)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return (self._problem(place, index, f"cannot be read: {error}"),)
        kind = self._kind(fields, place.kind)
        whole = kind is not None and getattr(kind, "whole", False)
        lists = [key for key in _LISTS if key in fields and _is_list(fields[key])]
        if lists and depth < _DEEPEST and not whole:
            return self._opened(place, index, fields, lists, depth=depth)
        if kind is None:
            if begins_with(fields.get(_PREDICATE), "{") and depth < _DEEPEST:
                # An attestation: what it states is inside.
                return self._entry(place, index, fields[_PREDICATE], depth=depth + 1)
            return (self._unknown(place, index, fields),)
        one = self._formats.get(kind)
        if one is None:
            one = self._formats[kind] = kind(self._reading)
        self._counts[kind.title] += 1
        try:
            made = (*self._not_read(place, index, fields), *one.read(raw, fields, place, index))
        except DigestryError as error:
            made = (self._problem(place, index, error.message, error.hint),)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            made = (self._problem(place, index, f"{kind.title}: {_readable(error)}"),)
        if made:
            self._useful.add(kind)
        return made

    def _kind(self, fields: Fields, kind: str) -> type[Format] | None:
        last = self._last
        if last is not None and fields.keys() == self._last_fields.keys() and last.recognises(fields, kind):
            return last
        found = next((one for one in FORMATS if one.recognises(fields, kind)), None)
        self._last, self._last_fields = found, fields
        reads: frozenset[str] | None = getattr(found, "reads", None)
        self._suspect = tuple(
            key for key in fields if reads is not None and key not in reads and role_of(key)
        )
        return found

    def _not_read(self, place: Place, index: int, fields: Fields) -> Iterator[Made]:
        """What may name an image, among the keys that the entry's format does not read."""
        for key in self._suspect:
            if bytes(fields[key]) not in _EMPTY and self._reading.first("unread", key):
                yield self._problem(place, index, f"{shown(key)} {UNREAD}", RENAME)

    def _list(self, place: Place, index: int, raw: msgspec.Raw, *, depth: int) -> Iterator[Made]:
        entries = self._arrays.decode(raw)
        inside = Entries(entries, (place, index), kind=place.kind)
        for position, entry in enumerate(entries):
            yield from self._entry(inside, position, entry, depth=depth + 1)

    def _opened(
        self, place: Place, index: int, fields: Fields, lists: Iterable[str], *, depth: int
    ) -> Iterator[Made]:
        """The entries of an object's lists; its ``host`` and ``kind`` are those of the entries."""
        host = text(_value(fields.get("host")))
        kind = text(_value(fields.get("kind"))).removesuffix("List")
        around = {key: value for key, value in fields.items() if key not in _LISTS}
        ended = any(is_state(key) and state_of(text(_value(raw))) == "ended" for key, raw in around.items())
        yield from self._unread(place, index, around)
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

    def _unread(self, place: Place, index: int, around: Fields) -> Iterator[Made]:
        """What may name an image, beside a list of containers."""
        for key, raw in around.items():
            if key not in _AROUND and (b"sha256:" in memoryview(raw).tobytes() or role_of(key)):
                found = unread({key: msgspec.json.decode(raw)})
                for path in dict.fromkeys(found):
                    if self._reading.first("unread", path):
                        yield self._problem(place, index, f"{shown(path)} {UNREAD}", RENAME)

    def _unknown(self, place: Place, index: int, fields: Fields) -> Problem:
        keys = ", ".join(shown(key) for key in list(fields)[:_KEYS_SHOWN]) or "no keys"
        said = f"there is no list of containers, nor anything else that is known, in an object with {keys}"
        found = list(dict.fromkeys(self._paths(fields)))[:_KEYS_SHOWN]
        if found:
            said += f"; {', '.join(map(shown, found))} may name an image, and was not read"
        return self._problem(place, index, said, EXPECTED)

    def _paths(self, fields: Fields) -> Iterator[str]:
        for key, raw in fields.items():
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                yield from unread({key: msgspec.json.decode(raw)})

    def _problem(self, place: Place, index: int, message: str, hint: str = "") -> Problem:
        return Problem(self._reading.source, f"{self._reading.where}, {place.where(index)}: {message}", hint)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidConfiguration(f"{shown(text)} is not a size", hint="write bytes, or such as 4GiB")
    return int(match[1]) << _UNITS[match[2] or ""]


def _is_list(raw: msgspec.Raw) -> bool:
    return begins_with(raw, "[") or bytes(memoryview(raw)[:4]) == b"null"


def _value(raw: msgspec.Raw | None) -> object:
    """The string that a value is; None if it is none."""
    if raw is None or not begins_with(raw, '"'):
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _left_out_note(reading: Reading, *, others: bool = True) -> Iterator[Made]:
    if reading.stopped:
        one = reading.stopped == 1
        said = "1 container in it does not run" if one else f"{reading.stopped:,} containers in it do not run"
        yield reading.note(said if others else f"{said}, and no other is in it", _ALL)


def _times(counted: tuple[str, int]) -> str:
    title, count = counted
    return title if count == 1 else f"{title} ({count:,} entries)"


def _readable(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
