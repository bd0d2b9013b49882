"""The ``[transparency]`` section of the configuration: the journal as a signed log (docs/transparency.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from digestry.errors import ContentError
from digestry.registry import toml
from digestry.registry.toml import Key, Where
from digestry.translog.notes import COSIGNATURE, VerifierKey, check_name, parse_verifier_key

_DAY: Final = 86400.0


def _name(value: object, where: Where) -> str:
    text = toml.text(value, where)
    try:
        check_name(text)
    except ContentError as error:
        raise ValueError(f"{error.message}: {error.hint}") from error
    return text


def _keys(value: object, where: Where) -> tuple[VerifierKey, ...]:
    found = []
    for text in toml.texts(value, where):
        try:
            key = parse_verifier_key(text)
        except ContentError as error:
            raise ValueError(f"{error.message}; a key is NAME+ID+BASE64") from error
        if not key.is_known:
            raise ValueError(f"the key {key.name} is not one of Ed25519, which alone can be verified here")
        found.append(key)
    return tuple(found)


def _url(value: object, where: Where) -> str:
    text = toml.text(value, where).rstrip("/")
    parts = toml.http_address(text)
    if parts is None or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("https://HOST/PATH is required (or http)")
    return text


KEYS: Final = (
    Key("enabled", toml.flag, True),
    Key("origin", _name, None),
    Key("anonymous", toml.flag, False),
    Key("quorum", toml.whole(0, 64), 0),
    Key("key-overlap", toml.span(0, 3650 * _DAY), 30 * _DAY),
    Key("cosign-interval", toml.span(1, 365 * _DAY), 1800.0),
    Key("witness-name", _name, None),
)
WITNESS_KEYS: Final = (
    Key("url", _url),
    Key("key", _keys),
    Key("ca", toml.file, None),
    Key("timeout-seconds", toml.seconds(0.1, 60), 5.0),
)
WITNESSED_KEYS: Final = (Key("origin", toml.text), Key("key", _keys))


@dataclass(frozen=True, slots=True)
class WitnessConfig:
    """A witness of this registry's log: the prefix of its requests, its keys, the certificates that are
    trusted for it, and the seconds that it has to answer."""

    url: str
    keys: tuple[VerifierKey, ...]
    ca: Path | None = None
    timeout: float = 5.0

    @property
    def name(self) -> str:
        """The witness's name."""
        return self.keys[0].name


@dataclass(frozen=True, slots=True)
class WitnessedLog:
    """Another log that this registry is a witness of, and the keys that sign it."""

    origin: str
    keys: tuple[VerifierKey, ...]


@dataclass(frozen=True, slots=True)
class TransparencyConfig:
    """The log's name (None: see :func:`default_origin`), who reads and cosigns it, and whose witness the
    registry is.

    With ``anonymous`` the log can be read without a login. A checkpoint is served once ``quorum`` witnesses
    have cosigned it. A key that was replaced signs for ``key_overlap`` seconds more. Each witness is asked
    again after ``cosign_interval`` seconds in which nothing was signed, so that its cosignature is fresh.
    """

    enabled: bool = True
    origin: str | None = None
    anonymous: bool = False
    quorum: int = 0
    key_overlap: float = 30 * _DAY
    cosign_interval: float = 1800.0
    witness_name: str | None = None
    witnesses: tuple[WitnessConfig, ...] = ()
    witnessed: tuple[WitnessedLog, ...] = ()


def default_origin(hosts: tuple[str, ...], registry_id: str) -> str:
    """Return the name of a log that the configuration does not name: the registry's first name, or its ID."""
    return f"{hosts[0]}/log" if hosts else f"digestry/{registry_id}/log"


def parse(sections: Mapping[str, object], where: Where) -> TransparencyConfig:
    """Read the section. Raises :class:`InvalidConfiguration`."""
    inside = Where(where.file, "transparency")
    table = sections.get("transparency", {})
    parts: Mapping[str, object] = {}
    if isinstance(table, dict):
        parts = {name: table[name] for name in ("witness", "witnessed") if name in table}
        table = {name: value for name, value in table.items() if name not in parts}
    values = toml.read(table, KEYS, inside)
    witnesses = tuple(_witness(each, here) for each, here in _tables(parts, "witness", where))
    witnessed = tuple(
        WitnessedLog(read["origin"], read["key"])
        for read in (
            toml.read(each, WITNESSED_KEYS, here) for each, here in _tables(parts, "witnessed", where)
        )
    )
    names = [witness.name for witness in witnesses]
    if len(set(names)) < len(names):
        raise inside.wrong("two witnesses have the same name")
    if values["quorum"] > len(witnesses):
        raise inside.wrong(
            f"quorum: {values['quorum']} witnesses are required, and there are {len(witnesses)}",
            hint="add a [[transparency.witness]] for each",
        )
    origins = [log.origin for log in witnessed]
    if len(set(origins)) < len(origins):
        raise inside.wrong("two logs to be witnessed have the same origin")
    if witnessed and values["witness_name"] is None:
        raise inside.wrong(
            "a registry that is a witness has a name of its own",
            hint='write witness-name = "registry.example.com/witness"',
        )
    return TransparencyConfig(witnesses=witnesses, witnessed=witnessed, **values)


def _tables(parts: Mapping[str, object], name: str, where: Where) -> list[tuple[object, Where]]:
    found = toml.tables(parts, name, where)
    return [(table, Where(here.file, f"transparency.{here.section}")) for table, here in found]


def _witness(table: object, where: Where) -> WitnessConfig:
    values = toml.read(table, WITNESS_KEYS, where)
    keys: tuple[VerifierKey, ...] = values["key"]
    if any(key.algorithm != COSIGNATURE for key in keys):
        raise where.wrong("key: the key of a witness is one that cosigns", hint="its BASE64 begins with B")
    if len({key.name for key in keys}) > 1:
        raise where.wrong("key: all keys of a witness have its name")
    return WitnessConfig(values["url"], keys, values["ca"], values["timeout_seconds"])
