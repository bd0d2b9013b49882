"""The JSON Schemas of what commands print with ``--format json``."""

from __future__ import annotations

import importlib
from typing import Any, Final

from digestry.cli.listing import Listing

LISTINGS: Final = {
    "images": "images",
    "ls": "ls",
    "tags": "tags",
    "log": "log",
    "whose": "whose",
    "history": "history",
    "referrers": "referrers",
    "token list": "token",
    "webhook list": "webhook",
}
"""The commands that list, and their modules, which have a ``LISTING``."""
DOCUMENTS: Final = {"inspect": "inspect", "validate": "validate"}
"""The commands that print one object, and their modules, which have a ``Document``."""
NAMES: Final = (*LISTINGS, *DOCUMENTS, "audit")
"""Every command that has a schema."""


def schema_of(command: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a command's output. Any: it is JSON."""
    if command in LISTINGS:
        listing = importlib.import_module(f"digestry.cli.{LISTINGS[command]}").LISTING
        assert isinstance(listing, Listing)  # noqa: S101 - for the type checker
        return listing.schema()
    if command == "audit":
        from digestry.audit.reports import values

        return values.schema()
    import msgspec

    module = importlib.import_module(f"digestry.cli.{DOCUMENTS[command]}")

    def hook(_: type) -> dict[str, Any]:
        return {"type": "string", "pattern": "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"}

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:digestry:schema:{command}:1",
        "title": f"digestry {command}",
    } | msgspec.json.schema(module.Document, schema_hook=hook)
