"""The text of an admission file, read with the lines of its keys, so that errors name them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from digestry.admission import file_lines
from digestry.admission.file_lines import Lines
from digestry.admission.policy import CONDITIONS
from digestry.admission.policy_document import PolicyDocument
from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown
from digestry.model.json_types import prepared
from digestry.model.text import did_you_mean

_AT: Final = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING_FIELD: Final = re.compile(r"Object missing required field `(.*)`")
_EXPECTED: Final = re.compile(r"Expected `(.*)`, got `(.*)`")
_WORDS: Final = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
    "str | null": "a string",
}


class PolicyText:
    """The content of an admission file: the document, and the lines of its keys."""

    def __init__(self, content: bytes, path: Path) -> None:
        """Parse ``content``, which was read from ``path``. Raises :class:`InvalidConfiguration`."""
        self.path = path
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidConfiguration(f"{path} is not UTF-8") from error
        is_yaml = path.suffix.lower() in {".yaml", ".yml"}
        self._document, self._lines = (_yaml if is_yaml else _toml)(text, path)

    def converted(self) -> PolicyDocument:
        """Return the document with its types checked. Raises :class:`InvalidConfiguration`."""
        if not isinstance(self._document, dict):
            raise InvalidConfiguration(f"{self.path}: a table of keys is required")
        try:
            return msgspec.convert(self._document, prepared(PolicyDocument), str_keys=True)
        except msgspec.ValidationError as error:
            raise self._translated(str(error)) from error

    def wrong(self, message: str, where: file_lines.Path, *, hint: str = "") -> InvalidConfiguration:
        """Return the error with this message, and the line of the key ``where``."""
        line = file_lines.line_of(self._lines, where)
        place = f"{self.path}, line {line}" if line else str(self.path)
        return InvalidConfiguration(f"{place}: {message}", hint=hint)

    def _translated(self, message: str) -> InvalidConfiguration:
        """Return the error of a value of a wrong type, in this project's words."""
        found = _AT.fullmatch(message)
        what, steps = (found[1], found[2]) if found is not None else (message, "")
        where: file_lines.Path = tuple(
            int(step[2]) if step[2] else step[1] for step in _STEP.finditer(steps) if step[1] or step[2]
        )
        key = next((str(step) for step in reversed(where) if isinstance(step, str)), "")
        table = ".".join(str(step) for step in where if isinstance(step, str)) or "the file"
        unknown = _UNKNOWN_FIELD.fullmatch(what)
        if unknown is not None:
            known = keys_of(where)
            return self.wrong(
                f"unknown key {shown(unknown[1])} in {table}{did_you_mean(unknown[1], known)}",
                (*where, unknown[1]),
                hint=f"the keys are: {', '.join(known)}",
            )
        missing = _MISSING_FIELD.fullmatch(what)
        if missing is not None:
            return self.wrong(f"the key {missing[1]} is missing in {table}", where)
        expected = _EXPECTED.fullmatch(what)
        if expected is not None:
            wanted, got = (_WORDS.get(one, one) for one in expected.groups())
            return self.wrong(f"{key} must be {wanted}, not {got}", where)
        choices = _choices(key)
        if choices:
            value = what.removeprefix("Invalid enum value ").strip("'")
            return self.wrong(f"{key}: {shown(value)} is none of {', '.join(choices)}", where)
        return self.wrong(f"{key}: {what}", where)


def _toml(text: str, path: Path) -> tuple[object, Lines]:
    try:
        return tomllib.loads(text), file_lines.toml_lines(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfiguration(f"{path} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InvalidConfiguration(f"{path} is nested too deeply") from error


def _yaml(text: str, path: Path) -> tuple[object, Lines]:
    import yaml  # noqa: PLC0415 - most files are TOML

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return {}, {}
        twice = _key_twice(node)
        if twice is not None:
            key, line = twice
            raise InvalidConfiguration(f"{path}, line {line}: the key {shown(key)} is there twice")
        return yaml.safe_load(text), file_lines.yaml_lines(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise InvalidConfiguration(f"{path}{where}: not valid YAML: {problem}") from error


def _key_twice(node: Any) -> tuple[str, int] | None:
    """Return a key that a mapping has twice, and its line: the library would take the last one in silence."""
    pending = [node]
    visited: set[int] = set()
    while pending:
        one = pending.pop()
        if id(one) in visited:
            continue
        visited.add(id(one))
        if one.id == "mapping":
            names: set[str] = set()
            for key, value in one.value:
                if str(key.value) in names:
                    return str(key.value), key.start_mark.line + 1
                names.add(str(key.value))
                pending.append(value)
        elif one.id == "sequence":
            pending += one.value
    return None


def keys_of(path: Iterable[str | int]) -> tuple[str, ...]:
    """Return the keys of the table at ``path`` in an admission file."""
    kind: Any = PolicyDocument
    for step in path:
        if isinstance(step, int):
            continue
        fields = {one.encode_name: one.type for one in msgspec.structs.fields(kind)}
        kind = fields.get(step)
        arguments = getattr(kind, "__args__", ())
        kind = arguments[0] if arguments else kind
        if not isinstance(kind, type) or not issubclass(kind, msgspec.Struct):
            return ()
    return tuple(one.encode_name for one in msgspec.structs.fields(kind))


def _choices(key: str) -> tuple[str, ...]:
    if key in CONDITIONS:
        return ("allow", "warn", "deny")
    return {
        "mode": ("enforce", "audit"),
        "unchanged": ("allow", "judge"),
        "warm": ("off", "cluster"),
        "affected-from": ("negligible", "low", "medium", "high", "critical"),
        "conditions": tuple(CONDITIONS),
    }.get(key, ())
