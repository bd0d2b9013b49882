"""SARIF 2.1.0: one run of digestry, with one line for each result, and what every result of it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

import msgspec

from digestry.model.json_values import JsonObject
from digestry.model.text import printable, printable_json
from digestry.version import __version__

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "[": "\\[", "]": "\\]", "{": "{{", "}": "}}"})
_ENCODER: Final = msgspec.json.Encoder()


def write_log(
    rules: Iterable[JsonObject], problems: Iterable[str], results: Iterable[JsonObject]
) -> Iterator[str]:
    """Yield the log in pieces, with one line for each result. ``problems`` are what could not be looked
    at."""
    driver = {
        "name": "digestry",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": list(rules),
    }
    notifications = [{"level": "error", "message": {"text": message_text(text)}} for text in problems]
    invocation = {
        "executionSuccessful": not notifications,
        "toolExecutionNotifications": notifications,
    }
    yield f'{{"$schema": {_json(SCHEMA)}, "version": "2.1.0", "runs": [{{\n'
    yield f'"tool": {{"driver": {_json(driver)}}},\n"invocations": [{_json(invocation)}],\n'
    yield '"columnKind": "unicodeCodePoints",\n"results": ['
    between = "\n"
    for result in results:
        yield between + _json(result)
        between = ",\n"
    yield "\n]\n}]}\n"


def message_text(text: str) -> str:
    """Return a message's text, escaped so that brackets make no link (3.11.6), and braces no placeholder
    (3.11.5)."""
    return printable(text).translate(_ESCAPES)


def address_segment(name: str) -> str:
    """Return one step of a relative address. A name's own slashes are no steps, a colon in the first would
    end a scheme, and dots alone would be a path elsewhere, encoded or not."""
    shown = printable(name)
    return quote(shown if shown.strip(".") else f"_{shown}", safe="")


def _json(value: object) -> str:
    return printable_json(_ENCODER.encode(value).decode())
