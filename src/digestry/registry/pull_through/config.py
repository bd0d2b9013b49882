"""The ``[mirror."HOST"]`` sections of the configuration (docs/mirror.md)."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from digestry.catalog.age_policy import Advice
from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.model.digest import shown
from digestry.model.name_pattern import check_pattern, matches
from digestry.model.reference import DOCKER_HUB, Reference, check_repository
from digestry.registry import toml
from digestry.registry.pull_through.names import HUB_NAMES, canonical
from digestry.registry.toml import Key, Where

SECTION: Final = "mirror"
_HUB_URL: Final = "https://registry-1.docker.io"
_HUB_LIBRARY: Final = "library/"
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*", re.ASCII)
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9._-]+|[._-]{2,}")
_ADDRESS: Final = re.compile(r"[A-Za-z0-9._:\[\]-]+", re.ASCII)


def _url(value: object, where: Where) -> str:
    """Read ``scheme://host[:port]``, with the path to a project of that registry."""
    text = toml.text(value, where).rstrip("/")
    parts = toml.http_address(text)
    if parts is None or not _ADDRESS.fullmatch(parts.netloc):
        raise ValueError("https://HOST, https://HOST:PORT or https://HOST/PROJECT is required (or http)")
    if text != f"{parts.scheme}://{parts.netloc}{parts.path}" or not _PATH.fullmatch(parts.path):
        raise ValueError(f"{shown(parts.path or text)} is no path to a registry's project")
    try:
        check_repository(_split(parts.path)[1] or "x")
    except InvalidReference as error:
        raise ValueError(
            f"what goes before the names of its repositories is wrong: {error.message}; where the registry"
            " itself is below a path, write that with its /v2 at the end"
        ) from error
    return text


def _split(path: str) -> tuple[str, str]:
    """Return the path above ``/v2/``, and the prefix of repositories' names: ``/v2`` in ``path`` divides
    them, and a path without it is all prefix."""
    base, api, project = f"{path}/".partition("/v2/")
    return (base, project.rstrip("/")) if api else ("", path.strip("/"))


def _inside(value: object, where: Where) -> tuple[str, ...]:
    found = () if value == [] else toml.texts(value, where)
    for text in found:
        if not (_is_network(text) or _is_host(text)):
            raise ValueError(f"{shown(text)} is no host, host:port, address or network")
    return found


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _realm(value: object, where: Where) -> tuple[str, ...]:
    found = () if value == [] else toml.texts(value, where)
    for text in found:
        scheme, _, host = text.rpartition("://")
        if scheme not in {"", "http", "https"} or not _is_host(host):
            raise ValueError(f"{shown(text)} is no host or host:port, with or without http:// before it")
    return found


def _is_host(text: str) -> bool:
    try:
        parts = urlsplit(f"//{text}")
        return bool(_HOST.fullmatch(text)) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _user(value: object, where: Where) -> str:
    name = toml.text(value, where)
    if ":" in name:
        raise ValueError("a name without a colon is required: the password is in password-file")
    return name


def _or_never(kind: toml.Kind) -> toml.Kind:
    """As ``kind``, or ``"off"``, which is 0 seconds."""

    def either(value: object, where: Where) -> object:
        return 0.0 if value == "off" else kind(value, where)

    return either


KEYS: Final = (
    Key("url", _url, None),
    Key("prefix", toml.text, None),
    Key("repository", toml.texts, ("**",)),
    Key("default", toml.flag, False),
    Key("username", _user, None),
    Key("password-file", toml.file, None),
    Key("ca", toml.file, None),
    Key("realm", _realm, ()),
    Key("internal", _inside, ()),
    Key("tag-ttl", toml.span(0, 366 * 86400), 300.0),
    Key("stale", _or_never(toml.span(0, 100 * 366 * 86400)), None),
    Key("min-age", toml.unless_off(toml.span(1, 3650 * 86400)), None),
    Key("advisories", toml.one_of("signed", "any", "off"), "signed"),
    Key("timeout", toml.span(0.1, 300), 10.0),
    Key("downloads", toml.whole(1, 256), 16),
)


OBSERVED_KEYS: Final = tuple(
    key
    for key in KEYS
    if key.name in {"url", "prefix", "username", "password-file", "ca", "realm", "internal", "timeout"}
)
"""The keys of a registry that is observed, and not mirrored."""


@dataclass(frozen=True, slots=True)
class MirrorConfig:
    """The configuration of one mirrored registry. Times are in seconds.

    ``url`` is the address of its ``/v2/``, and ``project`` the prefix of its repositories' names there.
    ``realm`` are the hosts of its token servers, and ``internal`` the internal addresses that it may refer
    to, beside those that are always allowed (docs/mirror.md). ``stale`` is how long after its last check a
    tag is still served while upstream is unreachable; None means for ever. ``min_age`` is how long a digest
    must have been seen under a tag to be served; None for no such limit. ``downloads`` is how many blobs one
    worker process fetches at once.
    """

    host: str
    url: str
    prefix: str
    project: str = ""
    patterns: tuple[str, ...] = ("**",)
    default: bool = False
    username: str | None = None
    password_file: Path | None = None
    ca: Path | None = None
    realm: tuple[str, ...] = ()
    internal: tuple[str, ...] = ()
    tag_ttl: float = 300.0
    stale: float | None = None
    min_age: float | None = None
    advisories: Advice = "signed"
    timeout: float = 10.0
    downloads: int = 16

    def upstream_name(self, name: str) -> str:
        """Return the upstream's name of the repository that clients call ``name``."""
        return _HUB_LIBRARY + name if self.host == DOCKER_HUB and "/" not in name else name

    def local_name(self, upstream: str) -> str:
        """Return the local repository that caches the upstream's repository."""
        return f"{self.prefix}/{upstream}"

    def fetches(self, upstream: str) -> bool:
        """Return whether the configuration allows fetching from that repository of the upstream."""
        return any(matches(pattern, upstream) for pattern in self.patterns)


def check_files(mirrors: Iterable[MirrorConfig]) -> None:
    """Read the configured files, so that mistakes are reported when the server starts.

    Raises :class:`InvalidConfiguration`.
    """
    for mirror in mirrors:
        where = f'[{SECTION}."{mirror.host}"]'
        try:
            if mirror.password_file is not None:
                mirror.password_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise InvalidConfiguration(
                f"{where}: password-file: cannot read {mirror.password_file}: {reason}"
            ) from error
        try:
            if mirror.ca is not None:
                ssl.create_default_context(cafile=mirror.ca)
        except (OSError, ssl.SSLError) as error:
            reason = "it has no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise InvalidConfiguration(f"{where}: ca: cannot use {mirror.ca}: {reason}") from error


def parse(
    document: Mapping[str, object], where: Where, observed: Iterable[str] = (), observed_section: str = ""
) -> tuple[MirrorConfig, ...]:
    """Read the sections of a document. Raises :class:`InvalidConfiguration`.

    Registries that are ``observed`` are among them, whatever their section, and also without one: of those
    without one of a mirror, nothing is fetched for clients.
    """
    mirrors = _sections(document, where, SECTION, KEYS)
    also = _sections(document, where, observed_section, OBSERVED_KEYS) if observed_section else ()
    known = {canonical(one.host) for one in (*mirrors, *also)}
    implicit = (implied(host) for host in dict.fromkeys(map(canonical, observed)) if host not in known)
    mirrors += tuple(replace(one, patterns=()) for one in also) + tuple(implicit)
    for number, mirror in enumerate(mirrors):
        for other in mirrors[:number]:
            if canonical(mirror.host) == canonical(other.host):
                raise where.wrong(f"{other.host} and {mirror.host} are the same registry")
            if f"{mirror.prefix}/".startswith(f"{other.prefix}/") or f"{other.prefix}/".startswith(
                f"{mirror.prefix}/"
            ):
                raise where.wrong(
                    f"the mirrors of {other.host} and {mirror.host} would share repositories: their prefixes"
                    f" are {other.prefix} and {mirror.prefix}"
                )
    if sum(mirror.default for mirror in mirrors) > 1:
        raise where.wrong("only one mirror can be the default")
    return mirrors


def _sections(
    document: Mapping[str, object], where: Where, section: str, keys: Sequence[Key]
) -> tuple[MirrorConfig, ...]:
    tables = document.get(section, {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise where.wrong(f'{section} is a table for each registry: write [{section}."docker.io"]')
    return tuple(
        _mirror(host, table, Where(where.file, f'{section}."{host}"'), keys) for host, table in tables.items()
    )


def implied(host: str) -> MirrorConfig:
    """Return the configuration of a registry that is observed without a section of its own: nothing is
    fetched from it for clients. Its prefix is its name, with ``-`` before the port; on this machine's own
    addresses, HTTP without TLS is spoken."""
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    bare = (name if colon else host).strip("[]")
    prefix = _NOT_IN_A_NAME.sub("-", f"{bare}-{port}" if colon else bare).strip("-.")
    scheme = "http" if bare == "localhost" or _is_loopback(bare) else "https"
    url = _HUB_URL if host == DOCKER_HUB else f"{scheme}://{host}"
    return MirrorConfig(host=host, url=url, prefix=prefix, patterns=())


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _mirror(host: str, table: object, where: Where, keys: Sequence[Key]) -> MirrorConfig:
    if isinstance(table, dict) and any(isinstance(value, dict) for value in table.values()):
        raise where.wrong("a registry's name goes in quotes", hint='write "quay.io" in quotes')
    if host != host.lower():
        raise where.wrong(f"write the registry's name in lower case: {host.lower()}")
    host = DOCKER_HUB if host in HUB_NAMES else host
    try:
        if Reference(host, "x/y").host != host:
            raise InvalidReference(f"write {host} as docker.io")
    except InvalidReference as error:
        raise where.wrong(f"{shown(host)} names no registry: {error.message}") from error
    values = toml.read(table, keys, where)
    prefix = values.pop("prefix") or (host if keys is KEYS else implied(host).prefix)
    try:
        check_repository(prefix)
    except InvalidReference as error:
        raise where.wrong(
            f"{shown(prefix)} cannot begin the name of a repository: {error.message}",
            hint='give a prefix, such as prefix = "quay"',
        ) from error
    patterns = values.pop("repository", ())
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except InvalidConfiguration as error:
            raise where.wrong(f"repository: {error.message}", hint=error.hint) from error
    if (values["username"] is None) != (values["password_file"] is None):
        raise where.wrong("username and password-file go together")
    url = values.pop("url") or (_HUB_URL if keys is KEYS and host == DOCKER_HUB else "")
    url = url or (f"https://{host}" if keys is KEYS else implied(host).url)
    parts = urlsplit(url)
    base, project = _split(parts.path)
    address = f"{parts.scheme}://{parts.netloc}{base}"
    return MirrorConfig(host=host, url=address, prefix=prefix, project=project, patterns=patterns, **values)
