"""Templates for ``--format``: a small part of Go's templates, with fields and a few functions."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

import click

from digestry.errors import InvalidConfiguration
from digestry.model.text import did_you_mean, printable, printable_json

# Compiled where they are used: few commands get a template.
_ACTION: Final = r"(?s:\{\{-?(.*?)-?\}\})"
_WORD: Final = r'\s*(?:((?:\.[A-Za-z_][A-Za-z0-9_]*)+|\.)|([a-z]+)|"((?:[^"\\]|\\.)*)"|(\|))\s*'
_ESCAPES: Final = {"\\t": "\t", "\\n": "\n", "\\\\": "\\"}
_ESCAPE: Final = r"\\[tn\\]"
_THERE_IS: Final = (
    "a template has text, fields such as {{.Digest}}, {{json .}}, {{json .Digest}}, {{upper .Tag}}, "
    '{{lower .Tag}}, {{len .Platforms}} and {{join .Platforms ", "}}'
)
TABLE: Final = "table "
"""How a template begins that is printed as a table, with headings; a tab is between its columns."""

Row = Mapping[str, object]


class _Field(NamedTuple):
    """The value of a column, or of what ``inside`` names in it; the whole row if ``key`` is empty."""

    key: str
    inside: tuple[str, ...] = ()


class _Action(NamedTuple):
    """A field, and the function that it goes through, if there is one."""

    field: _Field
    function: str = ""
    argument: str = ""


Part = str | _Action


class Format(click.ParamType[str]):
    """``json``, a template, or the form for people, whose name is given."""

    name = "format"

    def __init__(self, plain: str) -> None:
        self._plain = plain

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in {self._plain, "json"} and "{{" not in value:
            forms = f"{self._plain} nor json nor a template such as '{{{{.Digest}}}}'"
            self.fail(f"{value!r} is neither {forms}", param, ctx)
        return value


class RowTemplate:
    """A template for one line of a listing. ``cells`` make the text that a column's value is printed as.

    The values of the columns ``nested`` are objects, whose members a template can name.
    """

    def __init__(
        self,
        text: str,
        cells: Mapping[str, Callable[[Row], str]],
        headings: Mapping[str, str],
        aliases: Mapping[str, str],
        nested: Collection[str] = (),
    ) -> None:
        self.is_table = text.startswith(TABLE)
        self._cells = cells
        self._headings = headings
        read = functools.partial(_field, keys=tuple(cells), aliases=aliases, nested=nested)
        self._parts = _parts(text.removeprefix(TABLE) if self.is_table else text, read)

    def line(self, row: Row) -> str:
        """Return the text for a row; untrusted text is escaped."""
        return "".join(part if isinstance(part, str) else self._value(part, row) for part in self._parts)

    def heading(self) -> str:
        """Return the text with headings in place of values."""
        return "".join(
            part if isinstance(part, str) else self._headings.get(part.field.key, "") for part in self._parts
        )

    def _value(self, action: _Action, row: Row) -> str:
        key = action.field.key
        value: object = row.get(key) if key else dict(row)
        for name in action.field.inside:
            value = _member(value, name)
        if action.function == "json" or not key:
            import json  # few templates ask for it

            return printable_json(json.dumps(value, default=str, ensure_ascii=False))
        if action.function == "join":
            members = value if isinstance(value, list | tuple) else [value]
            return printable(action.argument.join(str(member) for member in members))
        if action.function == "len":
            return str(len(value)) if isinstance(value, list | tuple | str | dict) else "0"
        if value is None:
            text = ""
        elif action.field.inside:
            text = printable(text_of(value))
        else:
            text = printable(self._cells[key](row))
        return {"upper": text.upper(), "lower": text.lower()}.get(action.function, text)


def text_of(value: object) -> str:
    """Return a value as text: what is not plain, as JSON."""
    if isinstance(value, list | tuple | Mapping):
        import json

        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def _member(value: object, name: str) -> object:
    """Return what an object has under a name, in any spelling; None if it does not have it."""
    if not isinstance(value, Mapping):
        return None
    if name in value:
        return value[name]
    return next((inner for key, inner in value.items() if _plain(str(key)) == _plain(name)), None)


def _field(text: str, *, keys: Sequence[str], aliases: Mapping[str, str], nested: Collection[str]) -> _Field:
    """Return the field ``.Key`` or ``.Key.inside``; only what is in ``nested`` has something inside."""
    first, *inside = text.removeprefix(".").split(".")
    key = field_key(f".{first}", keys, aliases)
    if inside and key not in nested:
        raise _wrong(text)
    return _Field(key, tuple(inside))


def _parts(text: str, read: Callable[[str], _Field]) -> list[Part]:
    parts: list[Part] = []
    end = 0
    for match in re.finditer(_ACTION, text):
        parts += [_literal(text[end : match.start()]), _action(match[1], read)]
        end = match.end()
    return [*parts, _literal(text[end:])]


def _literal(text: str) -> str:
    if "{{" in text or "}}" in text:
        raise InvalidConfiguration(f"--format: {text!r} has braces without others", hint=_THERE_IS)
    return _unescaped(text)


def _unescaped(text: str) -> str:
    """Return text with the tabs and line ends that a shell passes on as ``\\t`` and ``\\n``."""
    return re.sub(_ESCAPE, lambda match: _ESCAPES[match[0]], text)


def _action(text: str, read: Callable[[str], _Field]) -> _Action:
    """Return the parsed action between braces; ``read`` makes a field of its name."""
    field: _Field | None = None
    function, argument = "", ""
    word = re.compile(_WORD)
    position = 0
    while position < len(text.rstrip()):
        match = word.match(text, position)
        if match is None:
            raise _wrong(text)
        position = match.end()
        if match[1] is not None:
            if field is not None:
                raise _wrong(text)
            field = read(match[1])
        elif match[2] is not None:
            if function or match[2] not in {"json", "upper", "lower", "len", "join"}:
                raise _wrong(text)
            function = match[2]
        elif match[3] is not None:
            argument = _unescaped(match[3].replace('\\"', '"'))
    if field is None or (not field.key and function not in {"", "json"}):
        raise _wrong(text)
    return _Action(field, function, argument)


def field_key(name: str, keys: Sequence[str], aliases: Mapping[str, str]) -> str:
    """Return the key of ``.ImageID``, ``image_id`` or ``IMAGE ID``; empty for the whole row, which is ``.``.

    ``aliases`` are other names, with their keys. Raises :class:`InvalidConfiguration`, which names the keys
    that there are.
    """
    if name == ".":
        return ""
    wanted = _plain(name.removeprefix("."))
    for key in keys:
        if _plain(key) == wanted:
            return key
    for alias, key in aliases.items():
        if _plain(alias) == wanted:
            return key
    raise InvalidConfiguration(
        f"there is no column {name.removeprefix('.')!r}{did_you_mean(name.removeprefix('.').lower(), keys)}",
        hint=f"the columns are: {', '.join(keys)}",
    )


def _plain(name: str) -> str:
    return name.replace("_", "").replace(" ", "").replace("-", "").lower()


def _wrong(text: str) -> InvalidConfiguration:
    return InvalidConfiguration(f"--format: {{{{{text}}}}} is not understood", hint=_THERE_IS)
