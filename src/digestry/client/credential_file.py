"""The files in which docker and podman keep logins: storing one, and erasing it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from digestry.client.credential_helpers import TOKEN_USER, CredentialHelper
from digestry.client.credentials import (
    CONFIG_FILE,
    HUB_KEY,
    LARGEST_FILE,
    Credential,
    name_of_key,
    plain_host,
)
from digestry.errors import InvalidConfiguration
from digestry.file_locks import locked
from digestry.fsio import read_file, storage_error, storage_errors, write_file
from digestry.model.reference import DOCKER_HUB

_LOCK: Final = ".digestry.lock"
_NO_MEMBERS: Final[dict[str, Any]] = {}


@dataclass(slots=True)
class CredentialFile:
    """A file of logins in the form of docker's ``config.json`` and podman's ``auth.json``.

    A change is durable and atomic, excludes other processes of digestry, leaves every other key as it is, and
    makes the file readable by its owner alone. Logins for which the file names a credential helper
    (``credsStore``, ``credHelpers``) are stored there. Every method raises
    :class:`~digestry.errors.InvalidConfiguration` for a file that cannot be used,
    :class:`~digestry.errors.RemoteError` for a helper that fails, and :class:`~digestry.errors.StorageError`.
    """

    path: Path
    hub_key: str = field(default=HUB_KEY, kw_only=True)
    """The key of Docker Hub, which differs between the two programs."""

    @classmethod
    def docker(cls, directory: Path) -> Self:
        """Return docker's ``config.json`` in ``directory``."""
        return cls(directory / CONFIG_FILE)

    @classmethod
    def podman(cls, path: Path) -> Self:
        """Return the file ``path`` as podman and skopeo write it (containers-auth.json(5))."""
        return cls(path, hub_key=DOCKER_HUB)

    def store(self, host: str, credential: Credential) -> str:
        """Keep the login for ``host[:port]``, and return the file or the program that has it now."""
        key = self.hub_key if plain_host(host) == DOCKER_HUB else host
        with self._changing() as document:
            helper = self._helper(document, host)
            entries = self._members(document, "auths")
            for other in [other for other in entries if name_of_key(other) == plain_host(host)]:
                if other != key:
                    del entries[other]
            if helper is None:
                entries[key] = _entry(credential)
            else:
                token = credential.identity_token
                user = TOKEN_USER if token else credential.username
                helper.store(self._address(host), user, token or credential.password)
                entries[key] = {}  # as docker does, so that the file lists all logins
            document["auths"] = entries
        return str(self.path) if helper is None else helper.program

    def erase(self, host: str) -> list[str]:
        """Remove the login for ``host[:port]``; return the files and programs that had it."""
        had: list[str] = []
        if not self.path.exists():
            return had
        with self._changing() as document:
            entries = self._members(document, "auths")
            keys = [key for key in entries if name_of_key(key) == plain_host(host)]
            had += [str(self.path)] if any(entries[key] for key in keys) else []
            for key in keys:
                del entries[key]
            helper = self._helper(document, host)
            if helper is not None and helper.get(self._address(host)) is not None:
                helper.erase(self._address(host))
                had.append(helper.program)
        return had

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Yield the document, locked, and write it at the end of the block if it has changed.

        Any: other programs' keys stay as they are.
        """
        target = self.path.resolve()
        with storage_errors("create", target.parent):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(target.parent / _LOCK, mode=0o600):
            before = self._read(target)
            document = json.loads(before) if before else {}
            yield document
            after = json.dumps(document, indent="\t", ensure_ascii=False).encode()
            if json.dumps(json.loads(before) if before else {}) != json.dumps(document):
                self._write(target, after)

    def _read(self, target: Path) -> bytes:
        """Return the file's bytes, which are a JSON object; nothing if it is empty or not there."""
        try:
            content = read_file(target, LARGEST_FILE)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise storage_error("read", target, error) from error
        if not content.strip():
            return b""
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._unusable(f"it is not JSON ({error})") from error
        if not isinstance(document, dict):
            raise self._unusable("it is not a JSON object")
        return content

    @staticmethod
    def _write(target: Path, content: bytes) -> None:
        with storage_errors("write", target):
            owner = target.stat() if target.exists() else None
        write_file(target, content, mode=0o600)
        if owner is not None and os.geteuid() == 0 != owner.st_uid:
            with storage_errors("write", target):
                os.chown(target, owner.st_uid, owner.st_gid)

    def _helper(self, document: dict[str, Any], host: str) -> CredentialHelper | None:
        helpers = self._members(document, "credHelpers")
        named = next((helpers[key] for key in helpers if name_of_key(key) == plain_host(host)), None)
        name = named or document.get("credsStore")
        return CredentialHelper.named(name, self.path) if name else None

    def _address(self, host: str) -> str:
        """Return the name of ``host`` for helpers."""
        return HUB_KEY if plain_host(host) == DOCKER_HUB else host

    def _members(self, document: dict[str, Any], key: str) -> dict[str, Any]:
        value = document.get(key)
        if value is None:
            return dict(_NO_MEMBERS)
        if not isinstance(value, dict):
            raise self._unusable(f'"{key}" is not an object')
        return value

    def _unusable(self, reason: str) -> InvalidConfiguration:
        return InvalidConfiguration(
            f"{self.path} cannot be used: {reason}", hint="correct the file, or move it away"
        )


def _entry(credential: Credential) -> dict[str, str]:
    secret = "" if credential.identity_token else credential.password
    entry = {"auth": base64.b64encode(f"{credential.username}:{secret}".encode()).decode()}
    if credential.identity_token:
        entry["identitytoken"] = credential.identity_token
    return entry
