"""The blocks ``[registries."HOST"]`` of the user's configuration file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from digestry.client.configuration.rules import (
    ClientCertificate,
    HostRule,
    Mirror,
    NameRule,
    check_location,
    check_prefix,
    is_of_hosts,
)
from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.model.digest import shown
from digestry.model.text import did_you_mean

TABLE: Final = "registries"

KEYS: Final[dict[str, str]] = {
    "ca": "a file of CA certificates (PEM), or several, that are trusted beside the system's",
    "client-cert": "a file with the certificate (PEM) that is shown to the registry",
    "client-key": "a file with its key, unless that is in the same file",
    "insecure": "plain-http and skip-verify together",
    "plain-http": "plain HTTP is used if the registry does not speak TLS",
    "skip-verify": "a certificate that cannot be trusted is accepted, and that is said",
    "mirrors": "HOST[:PORT][/PATH] in place of this block's name, asked first, in order",
    "mirror-by-digest-only": "mirrors are asked for images by digest only",
    "location": "HOST[:PORT][/PATH] that is asked in place of the registry itself",
    "blocked": "nothing is asked of the registry",
    "log-key": "the key of its transparency log, NAME+ID+BASE64, or several; else its first key is trusted",
    "log-witnesses": "the keys of witnesses that must cosign its log, NAME+ID+BASE64",
    "log-quorum": "how many of the witnesses must cosign; all of them, if it is not set",
}
_TRUTHS: Final = ("insecure", "plain-http", "skip-verify", "mirror-by-digest-only", "blocked")
_LISTS: Final = ("ca", "mirrors", "log-key", "log-witnesses")
_NUMBERS: Final = ("log-quorum",)
_FILES: Final = ("ca", "client-cert", "client-key")
_OF_LOGS: Final = ("log-key", "log-witnesses", "log-quorum")
_OF_HOSTS: Final = ("ca", "client-cert", "client-key", "insecure", "plain-http", "skip-verify", *_OF_LOGS)
_MOST_WITNESSES: Final = 64


@dataclass(frozen=True, slots=True)
class LogRule:
    """Whose signatures a block requires of a registry's log. ``hosts`` says which registries it is about."""

    hosts: HostRule
    keys: tuple[str, ...]
    witnesses: tuple[str, ...]
    quorum: int | None


@dataclass(frozen=True, slots=True)
class Blocks:
    """The settings of all blocks."""

    hosts: tuple[HostRule, ...] = ()
    names: tuple[NameRule, ...] = ()
    logs: tuple[LogRule, ...] = ()

    def log_of(self, host: str) -> LogRule | None:
        """Return the rule for the log of ``host[:port]``; None if no block has one."""
        found = [rule for rule in self.logs if rule.hosts.matches(host)]
        found.sort(key=lambda rule: (rule.hosts.pattern.startswith("*."), -len(rule.hosts.pattern)))
        return found[0] if found else None


def read_blocks(tables: object, file: Path) -> Blocks:
    """Return the blocks of the table ``registries`` of ``file``. Raises :class:`InvalidConfiguration`."""
    if not isinstance(tables, dict):
        raise InvalidConfiguration(f'{file}: {TABLE} must have a table for each registry: [{TABLE}."HOST"]')
    hosts, names, logs = [], [], []
    for prefix, table in tables.items():
        where = f'{file}: [{TABLE}."{prefix}"]'
        if not isinstance(table, dict):
            raise InvalidConfiguration(
                f"{where} must be a table", hint="write the host in quotes if it has a dot"
            )
        host, name, log = _block(check_name(prefix, where), table, where, file)
        hosts.append(host)
        names.append(name)
        logs += [log] if log is not None else []
    return Blocks(
        tuple(host for host in hosts if host != HostRule(host.pattern, host.origin)),
        tuple(name for name in names if name != NameRule(name.prefix, name.origin)),
        tuple(logs),
    )


def _block(
    prefix: str, table: Mapping[str, Any], where: str, file: Path
) -> tuple[HostRule, NameRule, LogRule | None]:
    values = {key: _value(key, value, where) for key, value in table.items()}
    if not is_of_hosts(prefix):
        for key in _OF_HOSTS:
            if key in values:
                raise InvalidConfiguration(
                    f"{where}: {key} is about a whole registry",
                    hint=f'write it in [{TABLE}."{prefix.partition("/")[0]}"]',
                )
    origin, insecure = str(file), values.get("insecure")
    client = None
    if "client-cert" in values:
        certificate = _path(values["client-cert"], file)
        client = ClientCertificate(certificate, _path(values.get("client-key", certificate), file))
    elif "client-key" in values:
        raise InvalidConfiguration(f"{where}: client-key without client-cert", hint="add the certificate")
    host = HostRule(
        prefix,
        origin,
        plain_http=values.get("plain-http", insecure),
        skip_verify=values.get("skip-verify", insecure),
        authorities=tuple(_path(ca, file) for ca in values.get("ca", ())),
        client=client,
    )
    by_tag = not values.get("mirror-by-digest-only", False)
    mirrors = values.get("mirrors")
    name = NameRule(
        prefix,
        origin,
        blocked=values.get("blocked"),
        mirrors=None if mirrors is None else tuple(Mirror(place, by_tag=by_tag) for place in mirrors),
        location=values.get("location"),
    )
    return host, name, _log_rule(HostRule(prefix, origin), values, where)


def _log_rule(hosts: HostRule, values: Mapping[str, Any], where: str) -> LogRule | None:
    if not values.keys() & {*_OF_LOGS}:
        return None
    from digestry.verifier.trust import trust_from

    rule = LogRule(
        hosts, values.get("log-key", ()), values.get("log-witnesses", ()), values.get("log-quorum")
    )
    trust_from(rule.keys, rule.witnesses, rule.quorum, where=where)
    return rule


def check_name(prefix: str, where: str) -> str:
    """Return ``prefix`` if a block can have that name. Raises :class:`InvalidConfiguration`."""
    try:
        return check_prefix(prefix)
    except InvalidReference as error:
        raise InvalidConfiguration(
            f"{where}: {error.message}", hint=error.hint or "write HOST, HOST:PORT, HOST/PATH or *.DOMAIN"
        ) from error


def check_key(key: str, where: str) -> str:
    """Return ``key`` if a block can have it. Raises :class:`InvalidConfiguration`."""
    if key not in KEYS:
        raise InvalidConfiguration(
            f"{where}: unknown key {shown(key)}{did_you_mean(key, KEYS)}",
            hint=f"the keys of a registry are: {', '.join(KEYS)}",
        )
    return key


def _value(key: str, value: object, where: str) -> Any:
    """Return a checked value: a bool, a string, or a tuple of strings."""
    check_key(key, where)
    if key in _TRUTHS:
        if not isinstance(value, bool):
            raise InvalidConfiguration(f"{where}: {key} must be true or false")
        return value
    if key in _NUMBERS:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_WITNESSES:
            raise InvalidConfiguration(f"{where}: {key} must be a number from 0 to {_MOST_WITNESSES}")
        return value
    values: list[Any] = value if isinstance(value, list) and key in _LISTS else [value]
    if not all(isinstance(one, str) and one for one in values):
        kind = "a string, or a list of strings" if key in _LISTS else "a string"
        raise InvalidConfiguration(f"{where}: {key} must be {kind}, and not empty")
    if key in {"mirrors", "location"}:
        _check_each(check_location, values, f"{where}: {key}")
    return tuple(values) if key in _LISTS else value


def _check_each(check: Callable[[str], str], values: list[str], where: str) -> None:
    for value in values:
        try:
            check(value)
        except InvalidReference as error:
            raise InvalidConfiguration(f"{where}: {error.message}", hint=error.hint) from error


def value_of_text(key: str, text: str) -> bool | int | str | list[str]:
    """Return the value that ``text`` of a command line is for ``key``.

    Raises :class:`InvalidConfiguration`.
    """
    if key in _TRUTHS:
        if text not in {"true", "false"}:
            raise InvalidConfiguration(f"{key} is true or false, and not {shown(text)}")
        return text == "true"
    if key in _NUMBERS:
        if not (text.isascii() and text.isdigit()):
            raise InvalidConfiguration(f"{key} is a number, and not {shown(text)}")
        return int(text)
    if key in _LISTS:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return [_whole(part) for part in parts] if key in _FILES else parts
    return _whole(text) if key in _FILES else text


def _whole(path: str) -> str:
    """Return the whole path of a file that somebody names where he is."""
    whole = Path(path).expanduser().absolute()
    if not whole.is_file():
        raise InvalidConfiguration(f"there is no file {whole}", hint="write the path of a PEM file")
    return str(whole)


def text_of_value(value: object) -> str:
    """Return a value as a command line takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _path(text: str | Path, file: Path) -> Path:
    """Return a path of the file: ``~`` is the user's home, and others are beside the file."""
    try:
        return file.parent / Path(text).expanduser()
    except RuntimeError as error:
        raise InvalidConfiguration(
            f"{file}: cannot tell which file {shown(str(text))} is: {error}"
        ) from error
