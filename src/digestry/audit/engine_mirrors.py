"""Mirrors of registries in the settings of engines: docker's ``daemon.json``, containerd's ``certs.d``.

Only the locations are read: the certificates and headers in these files are the engine's own. A mirror that
cannot be used as a registry is a problem, with the reason.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from digestry.audit.image_names import HUB, Mirror, RepositoryPrefix
from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.inventory.observation import Unseen
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject
from digestry.model.reference import DOCKER_HUB

_HUBS_OWN: Final = frozenset({"registry-1.docker.io", "index.docker.io", "docker.io"})
_DEFAULT: Final = "_default"
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class FoundMirrors:
    """Mirrors as one file has them. ``plain`` are hosts that are spoken to without TLS."""

    mirrors: tuple[Mirror, ...] = ()
    plain: frozenset[str] = frozenset()
    problems: tuple[Unseen, ...] = ()


def docker_mirrors(path: Path) -> FoundMirrors:
    """Return the ``registry-mirrors`` of docker's ``daemon.json``: mirrors of docker.io, in their order.

    Raises :class:`InvalidConfiguration` if it cannot be read.
    """
    try:
        document = json.loads(_text(path) or "{}")
    except json.JSONDecodeError as error:
        raise InvalidConfiguration(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise InvalidConfiguration(f"{path} is nested too deeply") from error
    urls = document.get("registry-mirrors", []) if isinstance(document, dict) else None
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise InvalidConfiguration(f"{path}: registry-mirrors must be a list of addresses")
    reader = _Reader(path)
    for url in urls:
        reader.add(HUB, url, path_is_name=False, tags=True)
    return reader.found()


def containerd_mirrors(directory: Path) -> FoundMirrors:
    """Return the mirrors of a ``certs.d``: one directory a registry, each with a ``hosts.toml``.

    ``_default`` is for every registry. Raises :class:`InvalidConfiguration` if the directory, or a file in
    it, cannot be read.
    """
    try:
        folders = sorted(entry for entry in directory.iterdir() if (entry / "hosts.toml").is_file())
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {directory}: {error.strerror}") from error
    # The default for every registry comes after the settings of one.
    folders.sort(key=lambda entry: entry.name == _DEFAULT)
    results = [_hosts_file(folder) for folder in folders]
    return FoundMirrors(
        tuple(mirror for result in results for mirror in result.mirrors),
        frozenset(host for result in results for host in result.plain),
        tuple(problem for result in results for problem in result.problems),
    )


def _hosts_file(folder: Path) -> FoundMirrors:
    path = folder / "hosts.toml"
    try:
        document = tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfiguration(f"{path} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InvalidConfiguration(f"{path} is nested too deeply") from error
    reader = _Reader(path)
    original: RepositoryPrefix | None = None
    if folder.name != _DEFAULT:
        # containerd's other spelling of host:port, for file systems without colons.
        name = folder.name
        if name.endswith("_") and "_" in name[:-1]:
            host, _, port = name[:-1].rpartition("_")
            name = f"{host}:{port}" if port.isdigit() else name
        try:
            original = RepositoryPrefix.parse(name)
        except InvalidReference as error:
            reader.skip(f"the directory {shown(folder.name)} is no registry: {error.message}")
            return reader.found()
    hosts = document.get("host", {})
    for url, settings in hosts.items() if isinstance(hosts, dict) else ():
        values: JsonObject = settings if isinstance(settings, dict) else {}
        able = values.get("capabilities", ["pull", "resolve"])
        if isinstance(able, list) and "pull" in able:
            override = values.get("override_path") is True
            reader.add(original, url, path_is_name=override, tags="resolve" in able)
    server = document.get("server")
    if isinstance(server, str) and original is not None:
        reader.add(original, server, path_is_name=False, tags=True)
    return reader.found()


class _Reader:
    """Gathers one file's mirrors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mirrors: list[Mirror] = []
        self._plain: set[str] = set()
        self._problems: list[Unseen] = []

    def found(self) -> FoundMirrors:
        return FoundMirrors(tuple(self._mirrors), frozenset(self._plain), tuple(self._problems))

    def skip(self, why: str) -> None:
        self._problems.append(Unseen(str(self._path), f"{why}; it is not asked"))

    def add(self, original: RepositoryPrefix | None, url: str, *, path_is_name: bool, tags: bool) -> None:
        """Add the mirror at ``url``, unless it is ``original`` itself."""
        try:
            parts = urlsplit(url if "://" in url else f"https://{url}")
            host = _host(parts)
            path = parts.path.strip("/")
            if path_is_name:
                # The path replaces /v2: the part after it is a prefix of names.
                if path != "v2" and not path.startswith("v2/"):
                    raise InvalidReference("its path does not begin with /v2")
                path = path.removeprefix("v2").strip("/")
            elif path in {"", "v2"}:
                path = ""
            else:
                raise InvalidReference("its API is not at /v2 of its host")
            prefix = RepositoryPrefix.parse(f"{host}/{path}" if path else host)
        except (ValueError, InvalidReference) as error:
            why = error.message if isinstance(error, InvalidReference) else str(error)
            self.skip(f"the mirror {shown(url)} cannot be asked as a registry: {why}")
            return
        if parts.scheme == "http":
            self._plain.add(prefix.host)
        if prefix == original or (original == HUB and prefix.host in _HUBS_OWN):
            return
        self._mirrors.append(Mirror(original, prefix, tags))


def _host(parts: SplitResult) -> str:
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidReference("it is not a web address")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if host in _HUBS_OWN:
        return DOCKER_HUB
    port = parts.port
    if port is None and (parts.scheme == "http" or "." not in host):
        port = _PORTS[parts.scheme]  # without one the client would use TLS, or would not read it as a host
    return host if port is None else f"{host}:{port}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{path} is not UTF-8") from error
