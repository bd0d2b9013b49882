"""Reading the table ``[advisories]`` of a configuration file: the trusted keys, and the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from digestry.advisories.public_keys import PublicKey
from digestry.advisories.statements import STATUSES, Status
from digestry.advisories.trust import TrustedSigner, TrustPolicy, TrustRule
from digestry.advisories.values import read_status
from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.model.digest import shown
from digestry.model.reference import check_host, check_repository
from digestry.model.text import did_you_mean

TABLE: Final = "advisories"
KEYS: Final = ("trusted-keys", "rules", "require-signature")
_OF_SIGNER: Final = ("key", "repositories")
_OF_RULE: Final = ("repositories", "statuses", "signers", "require-signature")
_LARGEST_KEY: Final = 64 << 10  # bytes

_Check: TypeAlias = Callable[[str], str]
"""Returns a pattern of repositories as the policy has it. Raises :class:`InvalidReference`."""


def read_trust(table: object, file: Path, *, own: bool = False) -> TrustPolicy:
    """Return the policy that the table ``advisories`` of ``file`` is.

    Keys are PEM, or files with PEM; a relative path is beside ``file``. ``own`` is for a registry's own file,
    where the names of repositories have no host. Raises :class:`InvalidConfiguration`, which names the file
    and what is wrong.
    """
    check = _check_own if own else _check_name
    where = f"{file}: [{TABLE}]"
    values = _table(table, where, KEYS)
    signers = tuple(
        _signer(name, value, f'{file}: [{TABLE}.trusted-keys] "{name}"', file, check)
        for name, value in _mapping(values.get("trusted-keys", {}), f"{where}: trusted-keys").items()
    )
    rules = values.get("rules", [])
    if not isinstance(rules, list):
        raise InvalidConfiguration(f"{where}: rules must be written as [[{TABLE}.rules]]")
    policy = TrustPolicy(
        signers,
        tuple(
            _rule(rule, f"{file}: [[{TABLE}.rules]] {number}", check) for number, rule in enumerate(rules, 1)
        ),
        _truth(values.get("require-signature", False), f"{where}: require-signature"),
    )
    _check(policy, where)
    return policy


def _check(policy: TrustPolicy, where: str) -> None:
    """Raise :class:`InvalidConfiguration` for signers without keys, and where nothing could count."""
    names = [signer.name for signer in policy.signers]
    for rule in policy.rules:
        for name in rule.signers or ():
            if name not in names:
                raise InvalidConfiguration(
                    f"{where}: a rule names {shown(name)}, who has no key{did_you_mean(name, names)}",
                    hint=f"write the key in [{TABLE}.trusted-keys]",
                )
    if policy.require_signature and not names:
        raise InvalidConfiguration(
            f"{where}: require-signature is true, and there is no trusted key: no advisory would count",
            hint=f"write keys in [{TABLE}.trusted-keys]",
        )


def _signer(name: str, value: object, where: str, file: Path, check: _Check) -> TrustedSigner:
    """Return one signer: a key, several keys, or a table with ``key`` and ``repositories``."""
    if not name.strip() or not name.isprintable():
        raise InvalidConfiguration(f"{where}: a signer needs a name that can be shown")
    repositories: tuple[str, ...] = ()
    if isinstance(value, Mapping):
        table = _table(value, where, _OF_SIGNER)
        value = table.get("key", "")
        repositories = _patterns(table, where, check)
    keys = tuple(_key(text, where, file) for text in _texts(value, f"{where}: key"))
    if not keys:
        raise InvalidConfiguration(
            f"{where} has no key", hint="write a file with a public key, or the PEM itself"
        )
    return TrustedSigner(name, keys, repositories)


def _key(text: str, where: str, file: Path) -> PublicKey:
    """Return the public key that is written as PEM, or is in the file that ``text`` names."""
    pem, named = text.encode(), where
    if "-----BEGIN" not in text:
        try:
            path = file.parent / Path(text).expanduser()
            with path.open("rb") as content:
                pem = content.read(_LARGEST_KEY)
        except (OSError, RuntimeError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidConfiguration(f"{where}: cannot read {shown(text)}: {why}") from error
        named = f"{where}: {path}"
    try:
        return PublicKey(pem)
    except ValueError as error:
        raise InvalidConfiguration(
            f"{named}: {error}", hint="write a public key in PEM, as `cosign generate-key-pair` makes it"
        ) from error


def _rule(value: object, where: str, check: _Check) -> TrustRule:
    table = _table(value, where, _OF_RULE)
    signers = table.get("signers")
    names = None if signers is None else _texts(signers, f"{where}: signers")
    required = _truth(table.get("require-signature", True), f"{where}: require-signature")
    if names is not None and not required:
        raise InvalidConfiguration(f"{where}: signers cannot go with require-signature = false")
    return TrustRule(_patterns(table, where, check), _statuses(table, where), names, required)


def _statuses(table: Mapping[str, object], where: str) -> tuple[Status, ...]:
    found = []
    for text in _texts(table.get("statuses", []), f"{where}: statuses"):
        status = read_status(text)
        if status is None:
            raise InvalidConfiguration(
                f"{where}: {shown(text)} is not a status{did_you_mean(text, STATUSES)}",
                hint=f"the statuses are: {', '.join(STATUSES)}",
            )
        found.append(status)
    return tuple(found)


def _patterns(table: Mapping[str, object], where: str, check: _Check) -> tuple[str, ...]:
    patterns = _texts(table.get("repositories", []), f"{where}: repositories")
    try:
        return tuple(map(check, patterns))
    except InvalidReference as error:
        raise InvalidConfiguration(f"{where}: repositories: {error.message}", hint=error.hint) from error


def _check_name(pattern: str) -> str:
    """Return the beginning of names with hosts."""
    host, slash, path = pattern.removeprefix("*.").partition("/")
    try:
        check_host(host)
        if slash and pattern.startswith("*."):
            raise InvalidReference(f"{shown(pattern)} is not *.DOMAIN")
        if slash:
            check_repository(path)
    except InvalidReference as error:
        raise InvalidReference(error.message, hint="write HOST, HOST:PORT, HOST/PATH or *.DOMAIN") from error
    return pattern


def _check_own(pattern: str) -> str:
    """Return the beginning of names without hosts, as :class:`TrustPolicy` marks them."""
    try:
        return f"/{check_repository(pattern)}"
    except InvalidReference as error:
        raise InvalidReference(error.message, hint="write the beginning of repositories, as team") from error


def _table(value: object, where: str, keys: Iterable[str]) -> Mapping[str, object]:
    """Return ``value`` if it is a table with some of ``keys`` alone."""
    table, known = _mapping(value, where), tuple(keys)
    for key in table:
        if key not in known:
            raise InvalidConfiguration(
                f"{where}: unknown key {shown(key)}{did_you_mean(key, known)}",
                hint=f"the keys are: {', '.join(known)}",
            )
    return table


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise InvalidConfiguration(f"{where} must be a table")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    """Return a string, or a list of strings, as several."""
    several = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and one for one in several):
        raise InvalidConfiguration(f"{where} must be a string, or a list of strings, and not empty")
    return tuple(several)


def _truth(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidConfiguration(f"{where} must be true or false")
    return value
