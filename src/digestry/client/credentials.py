"""Credentials as docker keeps them: ``config.json`` and the credential helpers that it names."""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from digestry.client.answers import escaped
from digestry.errors import InvalidConfiguration, RemoteError
from digestry.model.digest import shown
from digestry.model.reference import DOCKER_HUB

CONFIG_FILE: Final = "config.json"
_HUB_KEY: Final = "https://index.docker.io/v1/"
_HUB_HOSTS: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER_TIMEOUT: Final = 30.0
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_LARGEST_FILE: Final = 4 << 20
_TOKEN_USER: Final = "<token>"  # noqa: S105 - what helpers call the user of an identity token


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password; or an identity token, which buys registry tokens; or such a token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


class Credentials(Protocol):
    """Where credentials come from."""

    def get(self, host: str) -> Credential | None:
        """What to log in to ``host[:port]`` with; None if there is nothing."""
        ...


class DockerCredentials:
    """Reads ``config.json`` when first asked, and each helper once a host. Thread-safe."""

    def __init__(self, directory: Path | None) -> None:
        self._file = None if directory is None else directory / CONFIG_FILE
        self._lock = threading.Lock()
        self._config: dict[str, Any] | None = None
        self._known: dict[str, Credential | None] = {}

    def get(self, host: str) -> Credential | None:
        """What to log in to ``host[:port]`` with; None if there is nothing.

        Raises :class:`InvalidConfiguration` for a file that cannot be used, and
        :class:`RemoteError` for a helper that fails.
        """
        with self._lock:
            if host not in self._known:
                self._known[host] = self._find(host)
            return self._known[host]

    def _find(self, host: str) -> Credential | None:
        config = self._read()
        helpers = self._object(config, "credHelpers")
        address = _HUB_KEY if host == DOCKER_HUB else host
        helper = helpers.get(host) or helpers.get(address) or config.get("credsStore")
        if helper:
            found = self._ask(helper, address)
            if found is not None:
                return found
        return self._entry(config, host)

    def _read(self) -> dict[str, Any]:
        if self._config is None:
            self._config = self._load()
        return self._config

    def _load(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        try:
            with self._file.open("rb") as file:
                content = file.read(_LARGEST_FILE)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise InvalidConfiguration(f"cannot read {self._file}: {error.strerror}") from error
        try:
            document = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._unusable(f"it is not JSON ({error})") from error
        if not isinstance(document, dict):
            raise self._unusable("it is not a JSON object")
        return document

    def _object(self, config: dict[str, Any], key: str) -> dict[str, Any]:
        value = config.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._unusable(f'"{key}" is not an object')
        return value

    def _entry(self, config: dict[str, Any], host: str) -> Credential | None:
        entries = self._object(config, "auths")
        wanted = _HUB_HOSTS if host in _HUB_HOSTS else {host}
        # The exact name first; then the legacy forms, which are addresses.
        for key in sorted(entries, key=lambda key: key != host):
            if key == host or _host_of(key) in wanted:
                found = self._decode(key, entries[key])
                if found is not None:
                    return found
        return None

    def _decode(self, key: str, entry: Any) -> Credential | None:
        if not isinstance(entry, dict):
            raise self._unusable(f"the entry of {shown(key)} is not an object")
        username, password = entry.get("username") or "", entry.get("password") or ""
        encoded = entry.get("auth") or ""
        if encoded:
            try:
                decoded = base64.b64decode(encoded, validate=True).decode()
            except (binascii.Error, ValueError, TypeError) as error:
                raise self._unusable(f'the "auth" of {shown(key)} is not base64 of user:password') from error
            username, colon, password = decoded.partition(":")
            if not colon:
                raise self._unusable(f'the "auth" of {shown(key)} is not base64 of user:password')
            password = password.rstrip("\0")  # old docker clients padded it
        tokens = entry.get("identitytoken") or "", entry.get("registrytoken") or ""
        if not all(isinstance(value, str) for value in (username, password, *tokens)):
            raise self._unusable(f"the entry of {shown(key)} has something that is not a string")
        if not username and not any(tokens):
            return None
        return Credential(username, password, *tokens)

    def _ask(self, helper: Any, address: str) -> Credential | None:
        if not isinstance(helper, str) or not _HELPER_NAME.fullmatch(helper):
            raise self._unusable(f"{shown(helper)} cannot name a credential helper")
        program = f"docker-credential-{helper}"
        path = shutil.which(program)
        if path is None:
            raise InvalidConfiguration(
                f"{self._file} names the credential helper {program}, which is not on the PATH",
                hint='install it, or remove it from "credsStore" and "credHelpers" in that file',
            )
        try:
            done = subprocess.run(
                [path, "get"],
                input=address.encode(),
                capture_output=True,
                timeout=_HELPER_TIMEOUT,
                env=os.environ,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RemoteError(
                f"the credential helper {program} did not answer within {_HELPER_TIMEOUT:g} seconds",
                hint="it may be waiting for somebody to unlock a key ring",
            ) from error
        except OSError as error:
            raise RemoteError(f"cannot run the credential helper {program}: {error.strerror}") from error
        if done.returncode != 0:
            words = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
            # docker-credential-helpers, credentials/error.go: this text is the protocol.
            if "credentials not found" in words:
                return None
            raise RemoteError(
                f"the credential helper {program} failed for {address}: {escaped(words) or 'it says nothing'}"
            )
        try:
            answer = msgspec.json.decode(done.stdout, type=dict[str, Any])
            username, secret = answer["Username"], answer["Secret"]
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
            raise RemoteError(
                f"the credential helper {program} did not answer with Username and Secret"
            ) from error
        if not isinstance(username, str) or not isinstance(secret, str):
            raise RemoteError(f"the credential helper {program} did not answer with strings")
        if username == _TOKEN_USER:
            return Credential(identity_token=secret)
        return Credential(username, secret) if username else None

    def _unusable(self, reason: str) -> InvalidConfiguration:
        return InvalidConfiguration(
            f"{self._file} cannot be used: {reason}",
            hint="correct the file, or log in again with docker login",
        )


def _host_of(key: str) -> str:
    """The host of a key such as ``https://index.docker.io/v1/`` or ``registry.example:5000``."""
    return key.partition("://")[2].partition("/")[0] if "://" in key else key.partition("/")[0]
