"""Credential helpers: programs that keep logins, as docker calls them (docker-credential-helpers)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Literal

import msgspec

from digestry.client.responses import escaped
from digestry.errors import InvalidConfiguration, RemoteError
from digestry.model.digest import shown
from digestry.model.json_types import prepared

TOKEN_USER: Final = "<token>"  # noqa: S105 - the helpers' user name for an identity token
_TIMEOUT: Final = 30.0
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_NOT_FOUND: Final = "credentials not found"
"""A text of the protocol (docker-credential-helpers, credentials/error.go)."""


class _Answer(msgspec.Struct, rename="pascal"):
    """The output of ``get`` (docker-credential-helpers, credentials/credentials.go)."""

    username: str
    secret: str


class _Kept(msgspec.Struct, rename={"server_url": "ServerURL", "username": "Username", "secret": "Secret"}):
    """The input of ``store``."""

    server_url: str
    username: str
    secret: str


@dataclass(frozen=True, slots=True)
class CredentialHelper:
    """The program ``docker-credential-NAME``, which the file ``source`` names."""

    name: str
    source: Path
    _path: str = field(repr=False)

    @classmethod
    def named(cls, name: object, source: Path) -> CredentialHelper:
        """Return the helper ``name``. Raises :class:`InvalidConfiguration` if there is no such program."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidConfiguration(
                f"{source} cannot be used: {shown(name)} cannot name a credential helper",
                hint='correct "credsStore" and "credHelpers" in that file',
            )
        path = shutil.which(f"docker-credential-{name}")
        if path is None:
            raise InvalidConfiguration(
                f"{source} names the credential helper docker-credential-{name}, which is not on the PATH",
                hint='install it, or remove it from "credsStore" and "credHelpers" in that file',
            )
        return cls(name, source, path)

    @property
    def program(self) -> str:
        """The name of the program."""
        return f"docker-credential-{self.name}"

    def get(self, address: str) -> tuple[str, str] | None:
        """Return the user name and the secret of ``address``; None if it keeps none.

        Raises :class:`RemoteError`.
        """
        output = self._run("get", address.encode(), address)
        if output is None:
            return None
        try:
            answer = msgspec.json.decode(output, type=prepared(_Answer))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteError(
                f"the credential helper {self.program} did not answer with Username and Secret"
            ) from error
        return answer.username, answer.secret

    def store(self, address: str, username: str, secret: str) -> None:
        """Have the helper keep a secret for ``address``. Raises :class:`RemoteError`."""
        self._run("store", msgspec.json.encode(_Kept(address, username, secret)), address)

    def erase(self, address: str) -> None:
        """Have the helper forget the secret of ``address``. Raises :class:`RemoteError`."""
        self._run("erase", address.encode(), address)

    def _run(self, action: Literal["get", "store", "erase"], given: bytes, address: str) -> bytes | None:
        """Return the output of the helper; None if it says that it has nothing for ``address``."""
        try:
            done = self._called(action, given)
        except subprocess.TimeoutExpired as error:
            raise RemoteError(
                f"the credential helper {self.program} did not answer within {_TIMEOUT:g} seconds",
                hint="it may be waiting for somebody to unlock a key ring",
            ) from error
        except OSError as error:
            raise RemoteError(f"cannot run the credential helper {self.program}: {error.strerror}") from error
        if done.returncode == 0:
            return done.stdout
        words = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if action != "store" and _NOT_FOUND in words:
            return None
        reason = escaped(words) or "it says nothing"
        raise RemoteError(f"the credential helper {self.program} failed for {address}: {reason}")

    def _called(self, action: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
        """Run the helper until it ends. Raises ``subprocess.TimeoutExpired`` and ``OSError``.

        Files take what it prints: an agent that a helper leaves behind would hold a pipe open.
        """
        with _scratch() as output, _scratch() as errors:
            done = subprocess.run(
                [self._path, action],
                input=given,
                stdout=output,
                stderr=errors,
                timeout=_TIMEOUT,
                env=os.environ,
                check=False,
            )
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read(), errors.read())


def _scratch() -> IO[bytes]:
    """Return a file without a name; in memory where the system has that, since secrets are written to it."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("credential-helper"), "w+b")
    return tempfile.TemporaryFile()
