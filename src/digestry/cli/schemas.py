"""The JSON Schemas of the output of commands with ``--format json``."""

from __future__ import annotations

import importlib
from typing import Any, Final

from digestry.cli.listing import Listing

LISTINGS: Final = {
    "images": "images",
    "ls": "ls",
    "tags": "tags",
    "log": "log",
    "log key list": "log_key",
    "whose": "whose",
    "history": "history",
    "referrers": "referrers",
    "token list": "token",
    "webhook list": "webhook",
    "observe list": "observe",
    "age list": "age",
    "advisory list": "advisory",
    "fleet who": "fleet",
    "fleet since": "fleet_changes",
    "fleet silent": "fleet_silent",
}
"""The commands that list, and their modules, which have a ``LISTING``."""
_ELSEWHERE: Final = {
    "inspect": "inspect",
    "diff": "diff_output",
    "validate": "validate",
    "observe report": "observe_document",
}
"""The commands whose text is made of their document, too, and their modules, which have a ``Document``."""
_DOCUMENTS: Final = {
    "config show": "Settings",
    "config explain": "Explanation",
    "copy": "Copy",
    "resolve": "Resolve",
    "sync": "Sync",
    "prune": "Prune",
    "attach": "Attach",
    "advisory import": "AdvisoryImport",
    "scan": "AdvisoryImport",
    "admission test": "AdmissionTest",
    "fleet summary": "FleetCounts",
    "fleet timeline": "FleetHistory",
    "log verify": "LogVerification",
}
"""The commands that print one object, and its type in :mod:`digestry.cli.documents`."""
_LISTS: Final = {"rm": "DeletedTag", "advisory show": "AttachedAdvisory"}
"""The commands that print a list of objects and are no listings, likewise."""
_OF_REGISTRIES: Final = {
    "gc": "Collection",
    "scrub": "Scrub",
    "backup": "Backup",
    "restore-backup": "RestoreBackup",
    "migrate-storage": "MigrateStorage",
    "journal verify": "JournalVerification",
}
"""The commands for a registry's operator, and the type in :mod:`digestry.cli.registry_documents`."""
NAMES: Final = (*LISTINGS, *_ELSEWHERE, *_DOCUMENTS, *_LISTS, *_OF_REGISTRIES, "audit")
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

    def hook(kind: type) -> dict[str, Any]:
        if kind is object:  # any JSON, as an image has it
            return {"description": "Any JSON."}
        return {"type": "string", "pattern": "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"}

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:digestry:schema:{command.replace(' ', '-')}:1",
        "title": f"digestry {command}",
    } | msgspec.json.schema(_type_of(command), schema_hook=hook)


def _type_of(command: str) -> Any:
    """Return the type of a command's document. Any: lists of a type have no type that can be written."""
    if command in _ELSEWHERE:
        return importlib.import_module(f"digestry.cli.{_ELSEWHERE[command]}").Document
    from digestry.cli import documents

    if command in _LISTS:
        return list[getattr(documents, _LISTS[command])]  # type: ignore[misc]
    if command in _DOCUMENTS:
        return getattr(documents, _DOCUMENTS[command])
    from digestry.cli import registry_documents

    return getattr(registry_documents, _OF_REGISTRIES[command])
