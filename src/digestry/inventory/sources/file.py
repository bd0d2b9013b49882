"""The source ``file``: an inventory, or saved output of a container engine's client.

Its content is recognised entry by entry, so that one file may have several kinds of entries, such as ``docker
inspect`` of containers and then of their images. Formats are in ``formats``. A container that cannot be read
is a problem that names its line; the others are still reported.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import parse_qsl

from digestry.errors import InvalidConfiguration, TooLarge
from digestry.inventory.formats.containerd import is_table, read_table
from digestry.inventory.formats.csv_inventory import read_csv
from digestry.inventory.formats.entries import EntryReader, left_out_note
from digestry.inventory.formats.inventory import Inventory
from digestry.inventory.formats.json_documents import Input, read_documents
from digestry.inventory.formats.metrics import is_exposition, read_exposition
from digestry.inventory.formats.pod_list import read_pod_list
from digestry.inventory.formats.rows import (
    Item,
    Reading,
    Row,
    observe_rows,
)
from digestry.inventory.formats.yaml_documents import is_yaml, read_yaml
from digestry.inventory.observation import Observation, Unseen
from digestry.model.digest import shown
from digestry.model.text import number_of

LARGEST_FILE: Final = 1 << 30
"""In bytes. CSV and JSON lines are read a line at a time, kubectl's list of pods in pieces, other JSON
as a whole."""
MOST_PROBLEMS: Final = 1000
"""The most problems of one file that are named; further ones are counted."""

_SIZE: Final = re.compile(r"([0-9]{1,15})(KiB|MiB|GiB)?", re.ASCII)
_UNITS: Final = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}
_OTHERS: Final = (
    # A pattern of the first line, the kind of such a file, and the file to use instead.
    (re.compile(r"[A-Z][A-Z0-9/_ ()-]*? {2,}[A-Z]"), "a table for people", "print it as JSON"),
    (re.compile(r"SPDXVersion:"), "an SPDX document in tag-value form", "write it as JSON"),
    (re.compile(r"<"), "XML or HTML", "write it as JSON"),
)
_UNIT: Final = re.compile(
    rb"\[(Unit|Service|Container|Pod|Kube|Image|Install|Build|Volume|Network|Artifact)\]\s*$"
)
_COMMENTS: Final = (b"#", b";")
_MOST_COMMENTS: Final = 100
_MESSAGE: Final = re.compile(
    rb"(?:warn(?:ing)?|error|err|info|debug|notice|fatal)(?::(?=\s+\S)|\[\d+\]|\s*>)"
    rb"|error (?:response )?from |time=[\"\d]|level=\w|[IWEF]\d{4} \d\d:\d\d:|flag --\S+ has been|ssh: "
    rb"|emulate docker cli using |picked up _?java|unable to connect to the server",
    re.IGNORECASE,
)
"""What engines, kubectl and cloud programs print before their list, if both of their outputs are written to
one file: logrus, klog, and words with a colon."""
_MOST_MESSAGES: Final = 10
_LONGEST_MESSAGE: Final = 300
_COLOURS: Final = re.compile(rb"\x1b\[[0-9;]*m")
_RECORD: Final = b"\x1e"
_UNIT_HINT: Final = "audit what runs: --source podman, or what `podman inspect` prints"
_COMPRESSED: Final = (
    (b"\x1f\x8b", "a gzip file", "gzip -dc"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "zstd -dc"),
    (b"\xfd7zXZ", "an xz file", "xz -dc"),
    (b"BZh", "a bzip2 file", "bzip2 -dc"),
    (b"PK\x03\x04", "a zip file, or a workbook", "unzip -p"),
)


class FileSource:
    """The containers in the file ``where``; ``-`` is standard input.

    ``host`` is the host of containers for which the file names none. ``largest`` is in bytes.
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
        """Read ``PATH`` or ``PATH?host=NAME&limit=SIZE``. Raises :class:`InvalidConfiguration`."""
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
        # Rows wait for the end: a later entry may complete their images.
        for item in self._read(reading):
            if isinstance(item, Row):
                rows.append(item)
            elif isinstance(item, Unseen):
                problems += 1
                if problems <= MOST_PROBLEMS:
                    yield item
            else:
                yield item
        if problems > MOST_PROBLEMS:
            yield reading.problem(
                f"{number_of(problems - MOST_PROBLEMS, 'more entry', 'more entries')} could not be read"
            )
        yield from observe_rows(rows, source=self._name, host=self._host)

    def _read(self, reading: Reading) -> Iterator[Item]:
        try:
            with self._open() as file:
                source = Input(file, self._largest)
                yield from self._content(source, reading)
        except OSError as error:
            yield Unseen(self._name, f"cannot read {self._where}: {error.strerror or error}")
        except TooLarge:
            yield Unseen(
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

    def _content(self, source: Input, reading: Reading) -> Iterator[Item]:
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
        messages, first = _after_messages(source, first)
        for line, text in messages[:_MOST_MESSAGES]:
            yield Unseen(
                self._name,
                f"{self._where}, line {line}: this is a message of a program, and no part of its list:"
                f" {shown(text.decode(errors='replace').strip())}",
                "keep messages out of the file (2>messages), and see whether the list is whole",
            )
        if messages and not first:
            return
        if _COLOURS.match(first) or first.startswith(_RECORD):
            # jq -C colours what it prints; JSON text sequences (RFC 7464) begin each text with a control
            # character. JSON has neither inside a text.
            plain = _COLOURS.sub(b"", source.rest(first)).replace(_RECORD, b"")
            source = Input(io.BytesIO(plain), self._largest, after=source.number - 1)
            first = source.line()
        packed = next((one for one in _COMPRESSED if first.startswith(one[0])), None)
        if packed is not None:
            yield reading.problem(
                f"this is {packed[1]}, which is not read",
                f"{packed[2]} FILE | digestry audit --source file:-",
            )
        elif b"\0" in first:
            yield reading.problem(
                "it has bytes that are 0: it is no text, or UTF-16 without a byte order mark",
                "write it as UTF-8",
            )
        elif _UNIT.match(_after_comments(source, first).lstrip()):
            yield reading.problem(
                "this is a unit of systemd, or a Quadlet, which says what is to be started", _UNIT_HINT
            )
        elif not first:
            yield Unseen(
                self._name,
                f"{self._where} is empty, which does not show that nothing runs",
                "a program that failed, or `docker ps --format json` where nothing runs, writes nothing",
            )
        elif first.lstrip()[:1] in (b"[", b"{"):
            pods = read_pod_list(source, first, reading)
            if pods is None:
                yield from EntryReader(reading).read(read_documents(source, first))
                return
            yield from pods
            yield reading.note("read as `kubectl get pods -o json`")
            yield from left_out_note(reading)
        else:
            yield from self._text(source, first, reading)

    def _text(self, source: Input, first: bytes, reading: Reading) -> Iterator[Item]:
        try:
            line = first.decode()
            if is_table(line):
                yield from read_table(source, reading)
                yield reading.note("read as `ctr containers ls`")
                return
            if is_exposition(line):
                yield from read_exposition(source, line, reading)
                yield from left_out_note(reading)
                return
            for shape, what, hint in _OTHERS:
                if shape.match(line):
                    yield reading.problem(f"this is {what}, which is not read", hint)
                    return
            while line.startswith("#"):
                # Of YAML; or of CSV, as PowerShell's Export-Csv begins it.
                first = source.line()
                line = first.decode()
            if first.lstrip()[:1] in (b"[", b"{"):
                yield from EntryReader(reading).read(read_documents(source, first))
                return
            if not line or line.isspace() or is_yaml(line):
                yield from EntryReader(reading).read(read_yaml(source, first))
                return
            yield from read_csv(source, line, Inventory(reading), reading)
            yield from left_out_note(reading)
        except UnicodeDecodeError:
            yield Unseen(self._name, f"{self._where}, line {source.number}: not UTF-8")


def _after_messages(source: Input, first: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the messages at the beginning, each with its line's number, and the first line after them."""
    messages: list[tuple[int, bytes]] = []
    while _MESSAGE.match(first) and len(messages) < _MOST_COMMENTS:
        messages.append((source.number, first[:_LONGEST_MESSAGE]))
        first = source.line()
        while first.isspace():
            first = source.line()
    return messages, first


def _after_comments(source: Input, first: bytes) -> bytes:
    """Return the first line that is no comment of a unit, and go back to ``first``."""
    mark = source.mark() if first.startswith(_COMMENTS) else None
    if mark is None:
        return first
    line = first
    for _ in range(_MOST_COMMENTS):
        if line and (line.isspace() or line.startswith(_COMMENTS)):
            line = source.line()
    source.back(mark)
    return line


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidConfiguration(f"{shown(text)} is not a size", hint="write bytes, or such as 4GiB")
    return int(match[1]) << _UNITS[match[2] or ""]
