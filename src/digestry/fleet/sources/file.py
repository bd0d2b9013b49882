"""An inventory: a JSON or CSV file in which somebody else wrote down what runs where.

JSON is a list of objects, or ``{"containers": [...]}``; CSV has a line of headings. The keys and
headings are ``host namespace name id reference digest image_id platform``, with ``image`` for
``reference`` too. A container that cannot be read is a problem that names its line; the others
are still reported.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from digestry.errors import DigestryError, InvalidDigest, InvalidReference
from digestry.fleet.sighting import Claim, Observation, Problem, Sighting, now
from digestry.fleet.sources.engine import text as printable_text
from digestry.model.digest import Digest, shown
from digestry.model.platform import Platform
from digestry.model.reference import Reference

LARGEST_FILE: Final = 64 << 20
"""In bytes."""
KEYS: Final = ("host", "namespace", "name", "id", "reference", "image", "digest", "image_id", "platform")

_IDENTIFYING: Final = ("reference", "digest", "image_id")


class FileSource:
    """The containers of the inventory at ``where``; ``-`` is standard input."""

    def __init__(self, name: str, where: str) -> None:
        self._name = name
        self._where = where

    @property
    def name(self) -> str:
        return self._name

    def observe(self) -> Iterator[Observation]:
        try:
            content = self._read()
        except OSError as error:
            yield self._problem(f"cannot read {self._where}: {error.strerror or error}")
            return
        if len(content) > LARGEST_FILE:
            yield self._problem(f"{self._where} is longer than {LARGEST_FILE} bytes, and was not read")
            return
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            yield self._problem(f"{self._where}, line {line}: not UTF-8")
            return
        if not text.strip():
            yield self._problem(f"{self._where} is empty", "an inventory without containers is the JSON []")
        elif text.lstrip()[0] in "[{":
            yield from self._json(text)
        else:
            yield from self._csv(text)

    def _read(self) -> bytes:
        if self._where == "-":
            return sys.stdin.buffer.read(LARGEST_FILE + 1)
        with Path(self._where).open("rb") as file:
            return file.read(LARGEST_FILE + 1)

    def _problem(self, message: str, hint: str = "") -> Problem:
        return Problem(self._name, message, hint)

    # -- JSON -----------------------------------------------------------------------------------

    def _json(self, text: str) -> Iterator[Observation]:
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            yield self._problem(
                f"{self._where}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
            )
            return
        except (RecursionError, ValueError):
            yield self._problem(
                f"{self._where}: not JSON that can be read (nested too deeply, or a huge number)"
            )
            return
        entries = document.get("containers") if isinstance(document, dict) else document
        if not isinstance(entries, list):
            yield self._problem(
                f"{self._where}: there is no list of containers",
                'write a list of objects, or {"containers": [...]}',
            )
            return
        lines = _lines_of(text, entries, wrapped=isinstance(document, dict))
        for position, entry in enumerate(entries):
            line = lines[position] if position < len(lines) else None
            where = f"{self._where}, " + (f"line {line}" if line else f"container {position + 1}")
            if isinstance(entry, dict):
                yield self._entry(entry, where)
            else:
                yield self._problem(f"{where}: a container must be an object, not {shown(entry)}")

    # -- CSV ------------------------------------------------------------------------------------

    def _csv(self, text: str) -> Iterator[Observation]:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        headings: list[str] | None = None
        while True:
            begins = rows.line_num + 1
            where = f"{self._where}, line {begins}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                # What follows a broken quote cannot be told apart from what is inside it.
                yield self._problem(f"{where}: not CSV: {error}; nothing from here on was read")
                return
            if not any(cell.strip() for cell in row):
                continue
            if headings is None:
                headings = [cell.strip().lower() for cell in row]
                if not {"reference", "image", "digest", "image_id"} & set(headings):
                    yield self._problem(
                        f"{where}: the headings have none of reference, digest, image_id",
                        f"the first line names the columns: {', '.join(KEYS)}",
                    )
                    return
                continue
            if len(row) != len(headings):
                yield self._problem(f"{where}: {len(row)} fields where the headings have {len(headings)}")
                continue
            yield self._entry(dict(zip(headings, (cell.strip() for cell in row), strict=True)), where)

    # -- both -----------------------------------------------------------------------------------

    def _entry(self, entry: Mapping[str, Any], where: str) -> Observation:
        values: dict[str, str] = {}
        for key in KEYS:
            value = entry.get(key)
            if value is None or value == "":
                continue
            if not isinstance(value, str):
                return self._problem(f"{where}: {key} must be a string, not {shown(value)}")
            values[key] = printable_text(value)
        values.setdefault("reference", values.get("image", ""))
        if not any(values.get(key) for key in _IDENTIFYING):
            return self._problem(f"{where}: it has none of reference, digest, image_id")
        try:
            return self._sighting(values, where)
        except DigestryError as error:
            return self._problem(f"{where}: {error.message}", error.hint)

    def _sighting(self, values: Mapping[str, str], where: str) -> Sighting:
        reference = values["reference"] or None
        remarks: list[str] = []
        repository: Reference | None = None
        claims: list[Claim] = []
        if reference is not None:
            try:
                parsed = Reference.parse(reference)
                repository = parsed.repository_only()
                if parsed.digest is not None:
                    claims.append(_claim(parsed.digest, repository, f"the reference in {where}"))
            except InvalidReference as error:
                remarks.append(error.message)
        if digest := values.get("digest"):
            claims.insert(0, _digest_claim(digest, repository, where))
        image_id: Digest | None = None
        if text := values.get("image_id"):
            image_id = Digest.parse(text if ":" in text else f"sha256:{text}")
            claims.append(
                Claim(image_id, "unknown", None, f"image_id in {where}", "image-id", obtained=False)
            )
        platform = Platform.parse(values["platform"]) if "platform" in values else None
        return Sighting(
            source=self._name,
            host=values.get("host", ""),
            namespace=values.get("namespace", ""),
            name=values.get("name", "") or values.get("id", ""),
            id=values.get("id", ""),
            reference=reference,
            seen_at=now(),
            claims=tuple(dict.fromkeys(claims)),
            image_id=image_id,
            platform=platform,
            remarks=tuple(remarks),
        )


def _claim(digest: Digest, repository: Reference | None, read_from: str) -> Claim:
    return Claim(digest, "unknown", repository, read_from, "inventory", obtained=True)


def _digest_claim(text: str, repository: Reference | None, where: str) -> Claim:
    """Reads ``sha256:…``, or ``repository@sha256:…`` as ``docker images --digests`` users write it."""
    if "@" in text:
        reference = Reference.parse(text.removeprefix("docker-pullable://"))
        return _claim(
            _required(reference.digest, text),
            reference.repository_only(),
            f"digest in {where}",
        )
    return _claim(Digest.parse(text), repository, f"digest in {where}")


def _required(digest: Digest | None, text: str) -> Digest:
    if digest is None:
        raise InvalidDigest(f"{shown(text)} has no digest")
    return digest


def _lines_of(text: str, entries: list[Any], *, wrapped: bool) -> list[int]:
    """The line on which each entry of a JSON list begins; empty if that cannot be told.

    The document was decoded once already; this walks its list again, one entry at a time, since
    the standard decoder keeps no positions.
    """
    start = text.find("[") if not wrapped else _value_start(text, "containers")
    if start < 0:
        return []
    decoder = json.JSONDecoder()
    lines: list[int] = []
    position, line, counted = start + 1, 1, 0
    for _ in entries:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        line += text.count("\n", counted, position)
        counted = position
        lines.append(line)
        try:
            _, position = decoder.raw_decode(text, position)
        except ValueError:
            return []
    return lines


def _value_start(text: str, key: str) -> int:
    """Where the list begins that is the value of the outermost object's ``key``; -1 if unknown."""
    decoder = json.JSONDecoder()
    position = text.find("{") + 1
    blank = " \t\r\n,:"
    while position < len(text):
        while position < len(text) and text[position] in blank:
            position += 1
        try:
            name, position = decoder.raw_decode(text, position)
            while position < len(text) and text[position] in blank:
                position += 1
            if name == key:
                return position
            _, position = decoder.raw_decode(text, position)
        except ValueError:
            return -1
    return -1
