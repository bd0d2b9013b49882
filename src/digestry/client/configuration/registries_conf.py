"""Containers' ``registries.conf``, version 2: mirrors, blocked registries and short names.

The format is that of containers-registries.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from digestry.client.configuration.rules import (
    HostRule,
    Mirror,
    NameRule,
    RegistryRules,
    check_location,
    check_prefix,
    host_of,
)
from digestry.client.configuration.toml_file import parse_toml, read_text
from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.model.digest import shown

_PAIR: Final = re.compile(r'"([^"\\]*)"\s*=\s*"([^"\\]*)"')
_PULLS: Final = {"all": (True, True), "digest-only": (False, True), "tag-only": (True, False)}
"""Whether a mirror is used by tag, and by digest."""


class Alias(msgspec.Struct, frozen=True):
    """The name that a short name means, and the file that defines it."""

    name: str
    origin: Path


class RegistriesConf(msgspec.Struct):
    """The settings of one file, or of several together: a later one replaces the same settings of an earlier
    one."""

    names: dict[str, NameRule] = msgspec.field(default_factory=dict)
    """By prefix."""
    hosts: dict[str, tuple[HostRule, ...]] = msgspec.field(default_factory=dict)
    """The insecure hosts of each prefix."""
    aliases: dict[str, Alias] = msgspec.field(default_factory=dict)
    search: tuple[str, ...] = ()
    """The registries that podman searches for a short name without an alias."""
    search_origin: Path | None = None

    def add(self, later: RegistriesConf) -> None:
        """Add the settings of a file that takes precedence."""
        self.names |= later.names
        self.hosts |= later.hosts
        self.aliases |= later.aliases
        if later.search_origin is not None:
            self.search, self.search_origin = later.search, later.search_origin

    def rules(self, *before: RegistryRules) -> RegistryRules:
        """Return the files' rules of registries, after those of ``before``."""
        hosts = tuple(rule for rules in self.hosts.values() for rule in rules)
        names = tuple(self.names.values())
        return RegistryRules(
            (*(level for rules in before for level in rules.hosts), hosts),
            (*(level for rules in before for level in rules.names), names),
        )


def read_registries(files: Sequence[Path]) -> RegistriesConf:
    """Return the combined settings of ``files``; missing files are ignored.

    Raises :class:`InvalidConfiguration`.
    """
    found = RegistriesConf()
    for path in files:
        text = read_text(path)
        if text is not None:
            found.add(_parse(text, path))
    return found


def _parse(text: str, path: Path) -> RegistriesConf:
    aliases = _aliases_alone(text)
    if aliases is not None:
        return RegistriesConf(aliases={short: Alias(name, path) for short, name in aliases.items()})
    document = parse_toml(text, path)
    if "registries" in document:
        raise InvalidConfiguration(
            f"{path} is of version 1 of registries.conf, which podman no longer reads by default either",
            hint="write [[registry]] tables (containers-registries.conf(5)); `digestry config set "
            "read-files-of docker` has digestry not read it",
        )
    found = RegistriesConf()
    for number, table in enumerate(_tables(document, "registry", path), 1):
        _add_registry(found, table, f"{path}: [[registry]] number {number}", path)
    aliases = document.get("aliases", {})
    if not isinstance(aliases, dict) or not all(isinstance(name, str) for name in aliases.values()):
        raise InvalidConfiguration(f"{path}: [aliases] must have strings only")
    found.aliases = {short: Alias(name, path) for short, name in aliases.items()}
    search = document.get("unqualified-search-registries")
    if search is not None:
        if not isinstance(search, list) or not all(isinstance(host, str) for host in search):
            raise InvalidConfiguration(f"{path}: unqualified-search-registries must be a list of strings")
        found.search, found.search_origin = tuple(search), path
    return found


def _aliases_alone(text: str) -> dict[str, str] | None:
    """Return the aliases of a file that has nothing else; None for another.

    Nearly every machine with podman has such a file, and one with comments alone. To read them so takes a
    tenth of the time.
    """
    aliases: dict[str, str] = {}
    begun = False
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        pair = _PAIR.fullmatch(line) if begun else None
        if pair is not None:
            aliases[pair[1]] = pair[2]
        elif line == "[aliases]" and not begun:
            begun = True
        else:
            return None
    return aliases


def _add_registry(found: RegistriesConf, table: Mapping[str, Any], where: str, path: Path) -> None:
    location, prefix = _text(table, "location", where), _text(table, "prefix", where)
    if not prefix and not location:
        raise InvalidConfiguration(f"{where} has neither prefix nor location")
    prefix = _checked(check_prefix, (prefix or location).rstrip("/"), where)
    location = location.rstrip("/")
    if location and location != prefix:
        _checked(check_location, location, where)
    digest_only = _truth(table, "mirror-by-digest-only", where) or False
    endpoints = [(location or prefix, _truth(table, "insecure", where))]
    mirrors = []
    for number, mirror in enumerate(_tables(table, "mirror", where), 1):
        place = f"{where}, mirror number {number}"
        mirrors.append(_mirror(mirror, place, digest_only=digest_only))
        endpoints.append((mirrors[-1].location, _truth(mirror, "insecure", place)))
    origin = str(path)
    found.names[prefix] = NameRule(
        prefix,
        origin,
        blocked=_truth(table, "blocked", where),
        mirrors=tuple(mirrors) or None,
        location=location if location not in {"", prefix} else None,
    )
    # A host has one certificate, whichever of its names a file is about.
    found.hosts[prefix] = tuple(
        HostRule(host_of(endpoint), origin, plain_http=True, skip_verify=True)
        for endpoint, insecure in endpoints
        if insecure
    )


def _mirror(table: Mapping[str, Any], where: str, *, digest_only: bool) -> Mirror:
    location = _text(table, "location", where).rstrip("/")
    if not location:
        raise InvalidConfiguration(f"{where} has no location")
    _checked(check_location, location, where)
    pulls = _text(table, "pull-from-mirror", where)
    if pulls not in {"", *_PULLS}:
        raise InvalidConfiguration(
            f"{where}: pull-from-mirror is {shown(pulls)}", hint=f"it is one of {', '.join(_PULLS)}"
        )
    if pulls and digest_only:
        raise InvalidConfiguration(
            f"{where}: pull-from-mirror and mirror-by-digest-only exclude each other", hint="remove one"
        )
    by_tag, by_digest = _PULLS[pulls or ("digest-only" if digest_only else "all")]
    return Mirror(location, by_tag=by_tag, by_digest=by_digest)


def _checked(check: Any, text: str, where: str) -> str:
    try:
        return str(check(text))
    except InvalidReference as error:
        raise InvalidConfiguration(f"{where}: {error.message}", hint=error.hint) from error


def _tables(document: Mapping[str, Any], key: str, where: object) -> list[dict[str, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        _wrong(where, key, "a list of tables")
    return tables


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    return value if isinstance(value, str) else _wrong(where, key, "a string")


def _truth(table: Mapping[str, Any], key: str, where: str) -> bool | None:
    value = table.get(key)
    return value if value is None or isinstance(value, bool) else _wrong(where, key, "true or false")


def _wrong(where: object, key: str, kind: str) -> NoReturn:
    raise InvalidConfiguration(f"{where}: {key} must be {kind}")
