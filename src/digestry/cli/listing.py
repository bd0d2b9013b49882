"""Listings: rows with named columns, as a table, as JSON or by a template; chosen, filtered and sorted alike.

A command declares a :class:`Listing`; its columns' keys are the keys of the JSON, in every command the same.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import click

from digestry.cli.output import human_size, json_document, say, table
from digestry.cli.row_template import Format, Row, RowTemplate, field_key
from digestry.errors import InvalidConfiguration

Kind = Literal["text", "digest", "id", "size", "number", "time", "texts", "flag", "objects", "object"]
# Compiled where they are used, which few commands do.
_FILTER: Final = r"\s*([A-Za-z_. -]+?)\s*(!=|<=|>=|=|<|>)(.*)"
_SIZE: Final = r"([0-9]+(?:\.[0-9]+)?)\s*([kMGTP]?)(i?)B?"
_UNITS: Final = " kMGTP"
_SHORT: Final = 12
_JSON_TYPES: Final[dict[Kind, dict[str, object]]] = {
    "text": {"type": "string"},
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"},
    "id": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"},
    "size": {"type": "integer", "minimum": 0},
    "number": {"type": "integer"},
    "time": {"type": "string"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "flag": {"type": "boolean"},
    "objects": {"type": "array", "items": {"type": "object"}},
    "object": {"type": "object"},
}


class Column(NamedTuple):
    """One column. ``about`` describes it in the schema; ``nothing`` is the text of null in a table.

    ``shown`` is False for a column that tables have only on request. A ``digest`` is cut to its first digits
    unless it is ``whole``; an ``id`` is one that is printed without its algorithm then. Text of more than
    ``longest`` characters is cut too. ``aliases`` are other names of the column, such as docker's. ``show``
    makes the text in a row's cell, in place of :meth:`text`; its second argument is whether nothing is to be
    cut.
    """

    key: str
    kind: Kind
    about: str
    nullable: bool = False
    shown: bool = True
    nothing: str = "-"
    whole: bool = False
    longest: int = 0
    heading: str = ""
    aliases: tuple[str, ...] = ()
    show: Callable[[Row, bool], str] | None = None

    @property
    def title(self) -> str:
        """The heading in tables."""
        return self.heading or self.key.upper().replace("_", " ")

    def cell(self, row: Row, *, whole: bool) -> str:
        """Return the text of a row's cell; nothing is cut if ``whole``."""
        return self.text(row.get(self.key), whole=whole) if self.show is None else self.show(row, whole)

    def cells(self, rows: Sequence[Row], *, whole: bool) -> list[str]:
        """Return the texts of a column, as :meth:`cell` does."""
        if self.show is not None:
            return [self.show(row, whole) for row in rows]
        values = [row.get(self.key) for row in rows]
        if self.kind == "text" and not self.longest:
            return [value if type(value) is str else self.text(value, whole=whole) for value in values]
        return [self.text(value, whole=whole) for value in values]

    def text(self, value: object, *, whole: bool) -> str:
        """Return a value as a table prints it; a digest is cut unless ``whole``."""
        if value is None or value in ([], ()):
            return self.nothing
        if self.kind == "size" and isinstance(value, int):
            return human_size(value)
        if self.kind in {"digest", "id"} and not (whole or self.whole):
            algorithm, _, encoded = str(value).partition(":")
            short = encoded[:_SHORT]
            return short if self.kind == "id" else f"{algorithm}:{short}"
        if self.kind == "flag":
            return "yes" if value else "no"
        if isinstance(value, list | tuple):
            return ", ".join(str(member) for member in value)
        text = str(value)
        if self.longest and not whole:
            text = " ".join(text.split())
            text = text if len(text) <= self.longest else f"{text[: self.longest - 1]}…"
        return text


class Listing(NamedTuple):
    """The listing of a command. ``about`` is one sentence for the schema."""

    name: str
    about: str
    columns: tuple[Column, ...]

    def by_key(self) -> dict[str, Column]:
        """Return the columns by their keys."""
        return {column.key: column for column in self.columns}

    def key(self, name: str) -> str:
        """Return the key of the column that a caller names. Raises :class:`InvalidConfiguration`."""
        return field_key(name, [column.key for column in self.columns], self.aliases())

    def aliases(self) -> dict[str, str]:
        """Return the keys by the other names that columns have."""
        named = {column.title: column.key for column in self.columns}
        return named | {alias: column.key for column in self.columns for alias in column.aliases}

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the output as JSON. Readers must accept further keys."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:digestry:schema:{self.name.replace(' ', '-')}:1",
            "title": f"digestry {self.name}",
            "description": self.about,
            "type": "array",
            "items": {
                "type": "object",
                "properties": {column.key: _property(column) for column in self.columns},
                "required": [column.key for column in self.columns],
            },
        }


def _property(column: Column) -> dict[str, object]:
    kind = _JSON_TYPES[column.kind]
    described: dict[str, object] = {"description": column.about}
    if column.nullable:
        return {**described, "anyOf": [kind, {"type": "null"}]}
    return {**described, **kind}


class View(NamedTuple):
    """How the caller wants a listing: its form, columns, order, and which rows."""

    listing: Listing
    format: str
    columns: tuple[str, ...]
    sort: tuple[str, ...]
    filters: tuple[str, ...]
    no_trunc: bool

    @property
    def is_json(self) -> bool:
        """Whether the output is one JSON document."""
        return self.format == "json"

    def check(self) -> None:
        """Raise :class:`InvalidConfiguration` for options that cannot be; to be called before any work."""
        self._chosen(())
        self._template()
        self.selected([])

    def show(self, rows: Iterable[Row], *, default: Sequence[str] = ()) -> None:
        """Print the rows. ``default`` are the columns of a table if the caller did not choose."""
        found = self.selected(rows)
        if self.is_json:
            json_document(found)
            return
        template = self._template()
        if template is None:
            self._print_table(found, self._chosen(default))
        elif template.is_table:
            lines = [template.line(row).split("\t") for row in found]
            heading = template.heading().split("\t")
            table(heading, [[*line, *[""] * (len(heading) - len(line))][: len(heading)] for line in lines])
        else:
            for row in found:
                say(template.line(row))

    def selected(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that the filters let pass, sorted."""
        tests = [_test(self.listing, text) for text in self.filters]
        found = [row for row in rows if all(test(row) for test in tests)]
        for key in reversed(self.sort):
            column = self.listing.key(key.removeprefix("-"))
            known = [row for row in found if row.get(column) is not None]
            unknown = [row for row in found if row.get(column) is None]
            known.sort(key=functools.partial(_order, column), reverse=key.startswith("-"))
            found = known + unknown
        return found

    def _chosen(self, default: Sequence[str]) -> list[Column]:
        known = self.listing.by_key()
        if self.columns:
            return [known[self.listing.key(name)] for name in self.columns]
        if default:
            return [known[name] for name in default]
        return [column for column in self.listing.columns if column.shown]

    def _template(self) -> RowTemplate | None:
        if self.format in {"table", "json"}:
            return None
        columns = self.listing.columns
        return RowTemplate(
            self.format,
            {column.key: functools.partial(column.cell, whole=True) for column in columns},
            {column.key: column.title for column in columns},
            self.listing.aliases(),
            [column.key for column in columns if column.kind == "object"],
        )

    def _print_table(self, rows: list[Row], columns: list[Column]) -> None:
        cells = [column.cells(rows, whole=self.no_trunc) for column in columns]
        table([column.title for column in columns], list(zip(*cells, strict=True)))


def _order(key: str, row: Row) -> tuple[int, float, str]:
    """Return the sort key of a row: numbers by their value, everything else as text."""
    value = row[key]
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _test(listing: Listing, text: str) -> Callable[[Row], bool]:
    """Return the test that ``--filter`` means. Raises :class:`InvalidConfiguration`."""
    match = re.fullmatch(_FILTER, text, re.DOTALL)
    if match is None:
        raise InvalidConfiguration(
            f"--filter {text!r} is not understood",
            hint="write COLUMN=PATTERN or COLUMN!=PATTERN, with * and ? in it, or COLUMN>VALUE and the like",
        )
    columns = listing.by_key()
    column = columns[listing.key(match[1].replace(" ", ""))]
    sign, wanted = match[2], match[3]
    if sign in {"=", "!="}:
        return lambda row: _matches(row.get(column.key), wanted) == (sign == "=")
    limit: float | str = _number(wanted) if column.kind in {"size", "number"} else wanted

    def compare(row: Row) -> bool:
        value = row.get(column.key)
        if value is None or isinstance(value, list | tuple | Mapping):
            return False
        shown: Any = value if isinstance(limit, float) else str(value)
        return bool(
            {"<": shown < limit, "<=": shown <= limit, ">": shown > limit, ">=": shown >= limit}[sign]
        )

    return compare


def _matches(value: object, pattern: str) -> bool:
    if isinstance(value, list | tuple):
        return any(_matches(member, pattern) for member in value) or (not value and not pattern)
    if isinstance(value, bool):
        return pattern.lower() in ({"true", "yes"} if value else {"false", "no"})
    return fnmatch.fnmatchcase("" if value is None else str(value), pattern)


def _number(text: str) -> float:
    """Return a number, which may be of bytes with a unit: ``10MB``, ``1GiB``."""
    match = re.fullmatch(_SIZE, text.strip(), re.ASCII | re.IGNORECASE)
    if match is None:
        raise InvalidConfiguration(f"--filter: {text!r} is not a number", hint="write 1000, 10MB or 1GiB")
    unit = _UNITS.lower().index(match[2].lower() or " ")
    return float(match[1]) * float((1024 if match[3] else 1000) ** unit)


def _names(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def listing_options(listing: Listing) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Give a command the options of all listings; it gets a :class:`View` for them, as ``view``."""
    keys = ", ".join(column.key for column in listing.columns)

    def options(function: Callable[..., object]) -> Callable[..., object]:
        @click.option(
            "--format",
            "format_",
            type=Format("table"),
            default="table",
            metavar="FORMAT",
            help="table, json, or a template: '{{.Digest}} {{json .}}', 'table {{.Tag}}\\t{{.Size}}'.  "
            "[default: table]",
        )
        @click.option(
            "--columns",
            multiple=True,
            callback=_names,
            metavar="NAME,…",
            help=f"The columns of the table, of: {keys}.",
        )
        @click.option(
            "--sort",
            multiple=True,
            callback=_names,
            metavar="NAME,…",
            help="Sort by columns; -NAME: descending.",
        )
        @click.option(
            "--filter",
            "-f",
            "filters",
            multiple=True,
            metavar="NAME=PATTERN",
            help="Only rows that match; also !=, <, > and the like. Repeatable: all must match.",
        )
        @click.option("--no-trunc", is_flag=True, help="Show digests in full.")
        @functools.wraps(function)
        def command(
            *,
            format_: str,
            columns: tuple[str, ...],
            sort: tuple[str, ...],
            filters: tuple[str, ...],
            no_trunc: bool,
            **others: object,
        ) -> object:
            view = View(listing, format_, columns, sort, filters, no_trunc)
            view.check()
            return function(view=view, **others)

        return command

    return options
