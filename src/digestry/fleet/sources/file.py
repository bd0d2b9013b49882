"""A file that somebody else wrote: an inventory, or what a container engine's client printed.

What is in it is recognised entry by entry, so that one file may have several kinds of things, such
as ``docker inspect`` of containers and then of their images. Formats are in ``formats``. A
container that cannot be read is a problem that names its line; the others are still reported.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import parse_qsl

import msgspec

from digestry.errors import DigestryError, InvalidConfiguration, TooLarge
from digestry.fleet.sighting import Observation, Problem
from digestry.fleet.sources.engine import text
from digestry.fleet.sources.formats import EXPECTED, FORMATS
from digestry.fleet.sources.formats.containerd import is_table, read_table
from digestry.fleet.sources.formats.documents import Fault, Input, read_documents
from digestry.fleet.sources.formats.inventory import Inventory, read_csv
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
from digestry.model.digest import shown

LARGEST_FILE: Final = 1 << 30
"""In bytes. CSV and JSON lines are read a line at a time, kubectl's list of pods in pieces, other JSON
as a whole."""
MOST_PROBLEMS: Final = 1000
"""Of one file; further ones are counted."""

_LISTS: Final = ("containers", "items", "images")
_PREDICATE: Final = "predicate"
_DEEPEST: Final = 5
_KEYS_SHOWN: Final = 8
_SHOWN: Final = 40
_SIZE: Final = re.compile(r"([0-9]{1,15})(KiB|MiB|GiB)?", re.ASCII)
_UNITS: Final = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}
_OTHERS: Final = (
    # What the first line looks like, what that is, and what would be read.
    (re.compile(r"(CONTAINER ID|CONTAINER|NAMESPACE|NAME) {2,}"), "a table for people", "print it as JSON"),
    (
        re.compile(r"(---|apiVersion:|- *apiVersion:|kind:)"),
        "YAML",
        "print it as JSON: kubectl get … -o json",
    ),
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
            yield reading.problem("UTF-16, and not UTF-8", "Windows' shell writes that for >")
            return
        while first.isspace():
            first = source.line()
        if not first:
            yield Problem(
                self._name, f"{self._where} is empty", "an inventory without containers is the JSON []"
            )
        elif first.lstrip()[:1] in (b"[", b"{"):
            pods = read_pod_list(source, first, name=self._name, include_stopped=self._include_stopped)
            yield from pods if pods is not None else _Entries(reading).read(source, first)
        else:
            yield from self._text(source, first, reading)

    def _text(self, source: Input, first: bytes, reading: Reading) -> Iterator[Made]:
        try:
            line = first.decode()
            if is_table(line):
                yield from read_table(source, reading)
                return
            for shape, what, hint in _OTHERS:
                if shape.match(line):
                    yield reading.problem(f"this is {what}, which is not read", hint)
                    return
            yield from read_csv(source, line, Inventory(reading), reading)
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
        self._last: type[Format] | None = None
        self._last_fields: Fields = {}

    def read(self, source: Input, first: bytes) -> Iterator[Made]:
        """Everything in ``source``, of which ``first`` is the first line that is not blank."""
        for entry in read_documents(source, first):
            if isinstance(entry, Fault):
                yield Problem(self._reading.source, f"{self._reading.where}, {entry.where}: {entry.message}")
            else:
                yield from self._entry(*entry, depth=0)
        for kind, one in self._formats.items():
            for made in one.finish():
                self._useful.add(kind)
                yield made
        if self._useful:
            return
        if self._reading.stopped:
            yield self._reading.problem(
                f"none of the {self._reading.stopped} containers in it runs", "--all has them, too"
            )
            return
        for kind in self._formats:
            yield self._reading.problem(
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
        lists = [key for key in _LISTS if key in fields and _is_list(fields[key])]
        if lists and depth < _DEEPEST:
            return self._opened(place, index, fields, lists, depth=depth)
        if kind is None:
            if begins_with(fields.get(_PREDICATE), "{") and depth < _DEEPEST:
                # An attestation: what it states is inside.
                return self._entry(place, index, fields[_PREDICATE], depth=depth + 1)
            return (self._unknown(place, index, fields),)
        one = self._formats.get(kind)
        if one is None:
            one = self._formats[kind] = kind(self._reading)
        try:
            made = tuple(one.read(raw, fields, place, index))
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
        return found

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
        for key in lists:
            entries = self._arrays.decode(fields[key]) if begins_with(fields[key], "[") else []
            inside = Entries(entries, (place, index), (fields, key), host=host, kind=kind)
            for position, entry in enumerate(entries):
                yield from self._entry(inside, position, entry, depth=depth + 1)

    def _unknown(self, place: Place, index: int, fields: Fields) -> Problem:
        keys = ", ".join(shown(key) for key in list(fields)[:_KEYS_SHOWN]) or "no keys"
        return self._problem(
            place,
            index,
            f"there is no list of containers, nor anything else that is known, in an object with {keys}",
            EXPECTED,
        )

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


def _readable(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
