"""The ``[storage]`` section: where a registry keeps its catalog and its content (docs/scale.md).

Without it both are in the root directory. ``DIGESTRY_DATABASE`` and ``DIGESTRY_BLOBS`` say it for a node that
has no configuration file, and take precedence over one that has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from digestry.backend import StoreLocations
from digestry.blobs.s3.config import check_endpoint, parse_s3_url
from digestry.errors import InvalidConfiguration
from digestry.registry import proxies, toml
from digestry.registry.proxies import Network
from digestry.registry.toml import Key, Where

DATABASE: Final = "DIGESTRY_DATABASE"
BLOBS: Final = "DIGESTRY_BLOBS"

_SCHEMES: Final = frozenset({"postgresql", "postgres"})


def _database(value: object, where: Where) -> str:
    text = toml.text(value, where)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"it is not a URL: {error}") from None
    # The URL has a password: no message repeats it.
    if parts.scheme not in _SCHEMES:
        raise ValueError('a URL such as "postgresql://digestry@db.example/digestry" is required')
    if not unquote(parts.path).strip("/"):
        raise ValueError("the URL has no database: write postgresql://USER@HOST/DATABASE")
    return text


def _blobs(value: object, where: Where) -> str:
    text = toml.text(value, where)
    with _as_values():
        parse_s3_url(text, {})
    return text


def _endpoint(value: object, where: Where) -> str:
    text = toml.text(value, where)
    with _as_values():
        check_endpoint(text)
    return text


@contextlib.contextmanager
def _as_values() -> Iterator[None]:
    """Convert the store's error about a setting into one about a key of this section."""
    try:
        yield
    except InvalidConfiguration as error:
        raise ValueError(f"{error.message}; {error.hint}" if error.hint else error.message) from None


def _redirect(value: object, where: Where) -> bool | tuple[Network, ...]:
    if isinstance(value, bool):
        return value
    found: list[Network] = []
    for item in toml.texts(value, where):
        try:
            found.append(proxies.parse_network(item))
        except ValueError as error:
            raise ValueError(
                f'true, false or networks are required, such as ["10.0.0.0/8"]: {error}'
            ) from None
    return tuple(found)


KEYS: Final = (
    Key("database", _database, None),
    Key("database-password-file", toml.file, None),
    Key("blobs", _blobs, None),
    Key("endpoint", _endpoint, None),
    Key("region", toml.text, None),
    Key("redirect", _redirect, False),
)


@dataclass(frozen=True, slots=True)
class RedirectRule:
    """Which clients are sent to the store for a blob's bytes: ``all`` of them, or those on ``networks``."""

    all: bool = False
    networks: tuple[Network, ...] = ()

    def __bool__(self) -> bool:
        return self.all or bool(self.networks)

    def applies_to(self, address: str) -> bool:
        """Return whether the client at ``address`` is sent to the store."""
        if self.all:
            return True
        found = proxies.parse_address(address)
        return found is not None and any(found in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """Where the stores are, and which clients are sent to the store of the content."""

    stores: StoreLocations = field(default_factory=StoreLocations)
    redirect: RedirectRule = field(default_factory=RedirectRule)


def parse(document: Mapping[str, object], where: Where, environment: Mapping[str, str]) -> StorageConfig:
    """Read ``[storage]`` of a document, and the environment, which takes precedence.

    Raises :class:`InvalidConfiguration`.
    """
    here = Where(where.file, "storage")
    values = toml.read(document.get("storage", {}), KEYS, here)
    database = _from(environment, DATABASE, _database) or values["database"]
    password_file = values["database_password_file"]
    if password_file is not None:
        if values["database"] is None:
            raise here.wrong("database-password-file is given, and no database")
        if database == values["database"]:
            database = with_password(database, _password(password_file, here))
    blobs = _from(environment, BLOBS, _blobs) or values["blobs"]
    redirect = values["redirect"]
    for key in ("endpoint", "region", "redirect"):
        if blobs is None and values[key]:
            raise here.wrong(f"{key} is of an S3 store, and blobs names none")
    stores = StoreLocations(
        database=database,
        blobs=blobs,
        endpoint=values["endpoint"],
        region=values["region"],
    )
    return StorageConfig(
        stores, RedirectRule(redirect) if isinstance(redirect, bool) else RedirectRule(networks=redirect)
    )


def _from(environment: Mapping[str, str], name: str, kind: Callable[[object, Where], str]) -> str | None:
    value = environment.get(name)
    if not value:
        return None
    try:
        return kind(value, Where(Path(name)))
    except ValueError as error:
        raise InvalidConfiguration(f"the environment's {name}: {error}") from None


def _password(file: Path, where: Where) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise where.wrong(f"cannot read database-password-file {file}: {reason}") from error
    if not text:
        raise where.wrong(f"database-password-file {file} is empty")
    return text


def with_password(database: str, password: str) -> str:
    """Return the URL of a database with ``password`` in place of any that it has."""
    parts = urlsplit(database)
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return parts._replace(netloc=f"{name}:{quote(password, safe='')}@{host}").geturl()
