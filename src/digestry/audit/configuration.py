"""The configuration of an audit, ``fleet.toml``: where containers run, and the other names of images.

Every key is described, with its default, in docs/fleet-file.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from digestry.audit import engine_mirrors
from digestry.audit.image_names import NO_NAMES, Alias, ImageNames, RepositoryPrefix
from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.inventory.engines.client import TIMEOUT
from digestry.inventory.gathering import SOURCE_TIMEOUT, TimeLimitedSource
from digestry.inventory.observation import Unseen
from digestry.inventory.source_selection import parse_source
from digestry.model.digest import shown
from digestry.model.text import did_you_mean

SOURCE_DEFAULTS: Final[dict[str, str | float | bool | None]] = {
    "kind": None,
    "where": "",
    "name": "",
    "timeout": SOURCE_TIMEOUT,
    "host": "",
    "all": False,
}
"""The keys of a ``[[source]]`` and their defaults; None: it must be given."""
MIRROR_DEFAULTS: Final[dict[str, list[str]]] = {"docker": [], "containerd": []}
"""The keys of ``[mirrors]`` and their defaults."""
TABLES: Final = ("source", "aliases", "mirrors")
"""The keys of a fleet file's top level."""

_SHORTEST_TIMEOUT: Final = 0.1
_HEADER: Final = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One ``[[source]]``. ``timeout`` is in seconds, for all of its answers; ``host`` is reported in place of
    the source's own name of its host; ``all`` adds containers that do not run."""

    kind: str
    where: str = ""
    name: str = ""
    timeout: float = SOURCE_TIMEOUT
    host: str = ""
    all: bool = False

    @property
    def text(self) -> str:
        """As the command line writes it."""
        return f"{self.kind}:{self.where}" if self.where else self.kind


@dataclass(frozen=True, slots=True)
class FleetConfiguration:
    """The content of a fleet file. ``plain_hosts`` are mirrors that speak plain HTTP; ``problems`` are
    mirrors that cannot be used, for the report."""

    entries: tuple[SourceEntry, ...] = ()
    names: ImageNames = NO_NAMES
    plain_hosts: frozenset[str] = frozenset()
    problems: tuple[Unseen, ...] = ()

    def sources(self, *, include_stopped: bool = False, timeout: float = TIMEOUT) -> list[TimeLimitedSource]:
        """Return the sources. Raises :class:`InvalidConfiguration`.

        ``include_stopped`` is as if every entry had ``all``; ``timeout`` is in seconds, for each request.
        """
        chosen = []
        for number, entry in enumerate(self.entries):
            try:
                source = parse_source(
                    entry.text,
                    include_stopped=include_stopped or entry.all,
                    timeout=min(timeout, entry.timeout),
                )
            except InvalidConfiguration as error:
                message = f"the {_ordinal(number)} [[source]] of the fleet file: {error.message}"
                raise InvalidConfiguration(message, hint=error.hint) from error
            chosen.append(TimeLimitedSource(source, entry.timeout, entry.name, entry.host))
        return chosen


def load(path: Path) -> FleetConfiguration:
    """Read a fleet file. Raises :class:`InvalidConfiguration`, which names the file and the line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{path} is not UTF-8") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfiguration(f"{path} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InvalidConfiguration(f"{path} is nested too deeply") from error
    return _File(path, text).read(document)


class _File:
    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def read(self, document: Mapping[str, object]) -> FleetConfiguration:
        for key in document:
            if key not in TABLES:
                raise self._wrong(
                    f"unknown key {shown(key)}{did_you_mean(key, TABLES)}", "", 0, key, hint=_known(TABLES)
                )
        entries = document.get("source", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self._wrong("source must be written as [[source]]", "", 0, "source")
        aliases = self._aliases(self._table(document, "aliases"))
        engines = self._mirrors(self._table(document, "mirrors"))
        return FleetConfiguration(
            entries=tuple(self._entry(entry, number) for number, entry in enumerate(entries)),
            names=ImageNames(aliases, tuple(mirror for engine in engines for mirror in engine.mirrors)),
            plain_hosts=frozenset(host for engine in engines for host in engine.plain),
            problems=tuple(problem for engine in engines for problem in engine.problems),
        )

    def _table(self, document: Mapping[str, object], name: str) -> Mapping[str, object]:
        table = document.get(name, {})
        if not isinstance(table, dict):
            raise self._wrong(f"{name} must be a table, written as [{name}]", "", 0, name)
        return table

    def _entry(self, entry: Mapping[str, object], number: int) -> SourceEntry:
        for key, value in entry.items():
            if key not in SOURCE_DEFAULTS:
                raise self._wrong(
                    f"unknown key {shown(key)} in [[source]]{did_you_mean(key, SOURCE_DEFAULTS)}",
                    "source", number, key, hint=_known(SOURCE_DEFAULTS),
                )  # fmt: skip
            wanted: type | tuple[type, ...] = str
            if key == "timeout":
                wanted = (int, float)
            elif key == "all":
                wanted = bool
            if not isinstance(value, wanted) or (key == "timeout" and isinstance(value, bool)):
                what = {"timeout": "a number of seconds", "all": "true or false"}.get(key, "a string")
                raise self._wrong(f"{key} must be {what}, not {shown(value)}", "source", number, key)
        if not entry.get("kind"):
            raise self._wrong(f"the {_ordinal(number)} [[source]] has no kind", "source", number, "")
        values: dict[str, Any] = dict(entry)  # each was just checked to have the type of its key
        timeout = float(values.get("timeout", SOURCE_TIMEOUT))
        if not _SHORTEST_TIMEOUT <= timeout < float("inf"):
            raise self._wrong(
                f"timeout must be {_SHORTEST_TIMEOUT} seconds or more", "source", number, "timeout"
            )
        return SourceEntry(**{**values, "timeout": timeout})

    def _aliases(self, table: Mapping[str, object]) -> tuple[Alias, ...]:
        found = []
        for name, original in table.items():
            if not isinstance(original, str):
                raise self._wrong(f"the alias {shown(name)} must be a string", "aliases", 0, name)
            try:
                alias = Alias(RepositoryPrefix.parse(name), RepositoryPrefix.parse(original))
            except InvalidReference as error:
                raise self._wrong(f"alias: {error.message}", "aliases", 0, name, hint=error.hint) from error
            if alias.prefix == alias.original:
                raise self._wrong(f"{name} is an alias of itself", "aliases", 0, name)
            found.append(alias)
        return tuple(found)

    def _mirrors(self, table: Mapping[str, object]) -> list[engine_mirrors.FoundMirrors]:
        found = []
        for key, value in table.items():
            if key not in MIRROR_DEFAULTS:
                raise self._wrong(
                    f"unknown key {shown(key)} in [mirrors]{did_you_mean(key, MIRROR_DEFAULTS)}",
                    "mirrors",
                    0,
                    key,
                    hint=_known(MIRROR_DEFAULTS),
                )
            if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
                raise self._wrong(f"{key} must be a list of paths", "mirrors", 0, key)
            reader = engine_mirrors.docker_mirrors if key == "docker" else engine_mirrors.containerd_mirrors
            for text in value:
                # Relative to the file, so that it can be moved together with the files that it names.
                path = self._path.parent / Path(text).expanduser()
                try:
                    found.append(reader(path))
                except InvalidConfiguration as error:
                    raise self._wrong(error.message, "mirrors", 0, key) from error
        return found

    def _wrong(
        self, message: str, table: str, number: int, key: str, *, hint: str = ""
    ) -> InvalidConfiguration:
        line = self._line(table, number, key)
        where = f"{self._path}, line {line}" if line else str(self._path)
        return InvalidConfiguration(f"{where}: {message}", hint=hint)

    def _line(self, table: str, number: int, key: str) -> int:
        """Return the line of ``key``, or of its table's heading; 0 if it is not known."""
        current, seen, heading = "", -1, 0
        for position, line in enumerate(self._lines, 1):
            header = _HEADER.fullmatch(line)
            if header is not None:
                current = header[1].strip("\"'")
                seen += current == table
                if not table and current.split(".")[0].strip() == key:
                    return position
                if current == table and seen == number:
                    heading = position
            elif current == table and seen in {number, -1} and key:
                name = line.partition("=")[0].strip().strip("\"'")
                if "=" in line and key in {name, name.split(".")[0].strip()}:
                    return position
        return heading


def _known(keys: Iterable[str]) -> str:
    return f"there are: {', '.join(keys)}"


def _ordinal(number: int) -> str:
    return ("first", "second", "third")[number] if number < 3 else f"{number + 1}th"
