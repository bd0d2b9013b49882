"""Credentials: those that docker keeps, in ``config.json`` and its credential helpers, and given ones."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import msgspec

from digestry.client.credential_helpers import TOKEN_USER, CredentialHelper
from digestry.client.options import ClientOptions
from digestry.errors import DigestryError, InvalidConfiguration
from digestry.model.digest import shown
from digestry.model.reference import DOCKER_HUB

CONFIG_FILE: Final = "config.json"
HUB_KEY: Final = "https://index.docker.io/v1/"
_HUB_HOSTS: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
LARGEST_FILE: Final = 4 << 20
_LEGACY_PATHS: Final = frozenset({"v1", "v2"})


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password, or an identity token, which buys registry tokens, or a registry token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


class Credentials(Protocol):
    """A source of credentials."""

    def get(self, host: str, repository: str = "") -> Credential | None:
        """Return the credential for ``repository`` of ``host[:port]``; None if there is none."""
        ...

    def problem(self, host: str) -> str:
        """Return why the credential for ``host`` is missing; empty if none is expected."""
        ...


class StaticCredentials:
    """Credentials that are given: one for each ``host[:port]``."""

    def __init__(self, by_host: Mapping[str, Credential]) -> None:
        self._by_host = dict(by_host)

    def get(self, host: str, repository: str = "") -> Credential | None:
        """Return the credential of ``host``, for any repository of it."""
        return self._by_host.get(host)

    def problem(self, host: str) -> str:
        """Return an empty text: given credentials have no problem."""
        return ""


class DockerCredentials:
    """The credentials that docker and podman keep. Thread-safe.

    ``config.json`` is read at its first use, and each helper is called once for each name.

    ``given`` is such a document itself (``DOCKER_AUTH_CONFIG``), which goes before the file in ``directory``;
    ``more`` are files of the same form that are read after it. If a helper fails, requests are sent without a
    login, which is enough for a public image; ``tell`` is called with the reason.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        more: Sequence[Path] = (),
        given: str = "",
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._file = Path() if directory is None else directory / CONFIG_FILE
        self._files = [] if directory is None else [self._file]
        self._more = tuple(more)
        self._given = given
        self._tell = tell
        self._lock = threading.Lock()
        self._configs: list[tuple[Path, dict[str, object]]] | None = None
        self._known: dict[tuple[str, str], Credential | None] = {}
        self._helpers: dict[tuple[str, str], Credential | None] = {}
        self._problems: dict[str, str] = {}

    @classmethod
    def from_options(cls, options: ClientOptions) -> DockerCredentials:
        """Return the credentials that ``options`` name."""
        return cls(
            options.docker_config, more=options.auth_files, given=options.auth_config, tell=options.tell
        )

    def get(self, host: str, repository: str = "") -> Credential | None:
        """Return the credential for ``repository`` of ``host[:port]``; None if there is none.

        The key with the longest path that ``host/repository`` begins with wins, as in podman. Raises
        :class:`InvalidConfiguration` for a file that cannot be used.
        """
        with self._lock:
            key = (host, repository)
            if key not in self._known:
                self._known[key] = self._find(host, repository)
            return self._known[key]

    def problem(self, host: str) -> str:
        with self._lock:
            return self._problems.get(host, "")

    def _find(self, host: str, repository: str) -> Credential | None:
        if self._configs is None:
            self._configs = self._load_all()
        for file, config in self._configs:
            self._file = file  # for messages
            found = self._find_in(config, host, repository)
            if found is not None:
                return found
        return None

    def _find_in(self, config: dict[str, object], host: str, repository: str) -> Credential | None:
        helpers = self._object(config, "credHelpers")
        for name in _names(host, repository):
            keys = [key for key in helpers if name_of_key(key) == name]
            helper = next((helpers[key] for key in sorted(keys, key=lambda key: key != name)), None)
            if helper:
                found = self._helped(helper, name, host)
                if found is not None:
                    return found
            found = self._entry(config, name, whole=name == plain_host(host))
            if found is not None:
                return found
        store = config.get("credsStore")
        return self._helped(store, plain_host(host), host) if store else None

    def _helped(self, helper: object, name: str, host: str) -> Credential | None:
        address = HUB_KEY if name == DOCKER_HUB else name
        key = (str(helper), address)
        if key not in self._helpers:
            try:
                self._helpers[key] = self._ask(helper, address)
            except DigestryError as error:
                self._helpers[key] = None
                self._problems[host] = f"no login was used: {error.message}"
                if self._tell is not None:
                    self._tell(f"{host} is asked without credentials: {error.message}")
        return self._helpers[key]

    def _load_all(self) -> list[tuple[Path, dict[str, object]]]:
        configs: list[tuple[Path, dict[str, object]]] = []
        if self._given.strip():
            self._file = Path("DOCKER_AUTH_CONFIG")
            configs.append((self._file, self._decoded(self._given.encode())))
        for file in self._files:
            self._file = file
            configs.append((file, self._load(file)))
        for file in self._more:
            self._file = file
            try:
                configs.append((file, self._load(file)))
            except InvalidConfiguration as error:
                # The entry is another program's, which reports the error itself.
                if self._tell is not None:
                    self._tell(error.message)
        return configs

    def _load(self, path: Path) -> dict[str, object]:
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST_FILE)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
        return self._decoded(content) if content.strip() or path not in self._more else {}

    def _decoded(self, content: bytes) -> dict[str, object]:
        try:
            document = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._unusable(f"it is not JSON ({error})") from error
        if not isinstance(document, dict):
            raise self._unusable("it is not a JSON object")
        return document

    def _object(self, config: dict[str, object], key: str) -> dict[str, object]:
        value = config.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._unusable(f'"{key}" is not an object')
        return value

    def _entry(self, config: dict[str, object], name: str, *, whole: bool) -> Credential | None:
        entries = self._object(config, "auths")
        # The exact name first; then the legacy forms, which are addresses.
        for key in sorted(entries, key=lambda key: key != name):
            if key == name or name_of_key(key) == name or (whole and _host_of(key) == name):
                found = self._decode(key, entries[key])
                if found is not None:
                    return found
        return None

    def _decode(self, key: str, entry: object) -> Credential | None:
        if entry is None:
            return None  # as Go's programs read it: nothing is kept
        if not isinstance(entry, dict):
            raise self._unusable(f"the entry of {shown(key)} is not an object")
        username, password = entry.get("username") or "", entry.get("password") or ""
        encoded = entry.get("auth") or ""
        if encoded:
            try:
                # Go's decoder, which docker and podman use, skips the ends of lines.
                whole = encoded.replace("\r", "").replace("\n", "") if isinstance(encoded, str) else encoded
                decoded = base64.b64decode(whole, validate=True).decode()
            except (binascii.Error, ValueError, TypeError) as error:
                raise self._unusable(f'the "auth" of {shown(key)} is not base64 of user:password') from error
            username, colon, password = decoded.partition(":")
            if not colon:
                raise self._unusable(f'the "auth" of {shown(key)} is not base64 of user:password')
            password = password.rstrip("\0")  # old docker clients padded it
        tokens = entry.get("identitytoken") or "", entry.get("registrytoken") or ""
        if not all(isinstance(value, str) for value in (username, password, *tokens)):
            raise self._unusable(f"the entry of {shown(key)} has something that is not a string")
        if not tokens[1].isascii() or not tokens[1].isprintable():
            raise self._unusable(f'the "registrytoken" of {shown(key)} cannot be one')
        if not username and not any(tokens):
            return None
        return Credential(username, password, *tokens)

    def _ask(self, helper: object, address: str) -> Credential | None:
        found = CredentialHelper.named(helper, self._file).get(address)
        if found is None:
            return None
        username, secret = found
        if username == TOKEN_USER:
            return Credential(identity_token=secret)
        return Credential(username, secret) if username else None

    def _unusable(self, reason: str) -> InvalidConfiguration:
        return InvalidConfiguration(
            f"{self._file} cannot be used: {reason}",
            hint="correct the file, or log in again with digestry login",
        )


def _names(host: str, repository: str) -> list[str]:
    """Return the names to look for, the longest first: ``host/team/app``, ``host/team``, ``host``."""
    base = plain_host(host)
    parts = repository.split("/") if repository else []
    return ["/".join((base, *parts[:count])) for count in range(len(parts), -1, -1)]


def plain_host(host: str) -> str:
    """Return ``host``, or the one name for all of Docker Hub's hosts."""
    return DOCKER_HUB if host in _HUB_HOSTS else host


def name_of_key(key: str) -> str:
    """Return the name that a key is for, such as ``https://index.docker.io/v1/`` or
    ``registry.example:5000/team``."""
    host, _, path = key.partition("://")[2].partition("/") if "://" in key else key.partition("/")
    path = path.strip("/")
    if "://" in key or path in _LEGACY_PATHS:
        path = ""
    return f"{plain_host(host)}/{path}" if path else plain_host(host)


def _host_of(key: str) -> str:
    """Return the host of a key that is an address."""
    return name_of_key(key) if "://" in key else ""
