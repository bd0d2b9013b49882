"""Documents that are known, and say nothing about containers: each is refused by its name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.declared_images import ObjectFormat
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item
from digestry.model.json_values import JsonObject

_RUNS: Final = "audit what runs: --source kubernetes, docker, podman, or what they print"
_IMPORT: Final = f"`digestry advisory import` reads advisories; {_RUNS}"
_EVENTS: Final = "events of an engine, which say what happened and not what runs"
_INSPECT: Final = "`docker inspect` of the containers has what they run"


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of document: the keys that all of its kind have, its name, and what to do instead."""

    keys: frozenset[str]
    name: str
    hint: str


def _kind(keys: str, name: str, hint: str) -> _Kind:
    return _Kind(frozenset(keys.split()), name, hint)


_KINDS: Final = (
    _kind("document product_tree", "a CSAF advisory", _IMPORT),
    _kind("document vulnerabilities", "a CSAF advisory", _IMPORT),
    _kind("@context author statements", "an OpenVEX advisory", _IMPORT),
    _kind("$schema runs version", "a SARIF log of a scanner", _IMPORT),
    _kind("runs version tool", "a SARIF log of a scanner", _IMPORT),
    _kind("critical optional", "a verified signature, as `cosign verify` prints it", _RUNS),
    _kind("Type Action Actor", _EVENTS, _INSPECT),
    _kind("Type Status Time", _EVENTS, _INSPECT),
    _kind("Type Status time", _EVENTS, _INSPECT),
    _kind("Type Status Attributes", _EVENTS, _INSPECT),
    _kind("CPUPerc MemPerc Container", "`docker stats`, which names no image", _INSPECT),
    _kind("terraform_version resources", "a state of Terraform, which says what is to be there", _RUNS),
    _kind("chart app_version revision", "`helm list`, which names no image", _RUNS),
    _kind("ConfigFiles Status Name", "`docker compose ls`, which names no image", _INSPECT),
)


class OtherDocument(ObjectFormat):
    """A document of a known kind that names no container."""

    title: ClassVar[str] = "a document about something else"
    usable: ClassVar[str] = "containers"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return _found(fields) is not None

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        found = _found(fields)
        if found is None or not self._reading.first("other", found.name):
            return ()
        raise InvalidConfiguration(f"this is {found.name}: it is no list of what runs", hint=found.hint)


def _found(fields: Fields) -> _Kind | None:
    keys = fields.keys()
    return next((kind for kind in _KINDS if kind.keys <= keys), None)
