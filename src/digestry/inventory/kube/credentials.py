"""A user's credentials for an API server: a token or a certificate, perhaps from a plugin.

A plugin is a program that the kubeconfig names (``client.authentication.k8s.io/v1`` or
``v1beta1``): it prints an ``ExecCredential``, which is kept until it expires.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from digestry.errors import InvalidConfiguration, RemoteError
from digestry.inventory.kube.config import Cluster, Plugin, User
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_object, as_text

PLUGIN_TIMEOUT: Final = 60.0
"""Seconds for a plugin that does not prompt."""
PATIENCE: Final = 240.0
"""Seconds for a plugin that may ask a person to log in."""

_VERSIONS: Final = frozenset({f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1")})
_LARGEST_TOKEN: Final = 1 << 20
_EARLY: Final = datetime.timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Credential:
    """``authorization`` is the header's value, or empty; ``certificate`` and ``key`` are PEM."""

    authorization: str = field(default="", repr=False)
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)
    expires: datetime.datetime | None = None


class Credentials:
    """The credentials of one user for one cluster, fetched once and kept until they expire."""

    def __init__(
        self,
        user: User,
        cluster: Cluster,
        *,
        environment: Mapping[str, str] = os.environ,
        timeout: float = PLUGIN_TIMEOUT,
    ) -> None:
        self._user = user
        self._cluster = cluster
        self._environment = environment
        self._timeout = timeout
        self._kept: Credential | None = None

    def get(self) -> Credential:
        """Return the credential to show now.

        Raises :class:`InvalidConfiguration`, and :class:`RemoteError` for a plugin that fails.
        """
        kept = self._kept
        if kept is None or (kept.expires is not None and _now() > kept.expires - _EARLY):
            kept = self._kept = self._find()
        return kept

    def renew(self) -> bool:
        """Forget the credential, which was refused; return False if there is no other way to get one."""
        self._kept = None
        return self._user.plugin is not None or self._user.token_file is not None

    def _find(self) -> Credential:
        user = self._user
        if user.token:
            return Credential(f"Bearer {user.token}", user.certificate, user.key)
        if user.token_file is not None:
            return Credential(f"Bearer {_token(user.token_file)}", user.certificate, user.key)
        if user.plugin is not None:
            found = run_plugin(
                user.plugin, self._cluster, environment=self._environment, timeout=self._timeout
            )
            return Credential(
                found.authorization,
                found.certificate or user.certificate,
                found.key or user.key,
                found.expires,
            )
        if user.username or user.password:
            pair = base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
            return Credential(f"Basic {pair}", user.certificate, user.key)
        return Credential("", user.certificate, user.key)


def _token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            token = file.read(_LARGEST_TOKEN).decode("ascii").strip()
    except OSError as error:
        raise InvalidConfiguration(f"cannot read the token in {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{path} has something that is not a token") from error
    if not token or any(character.isspace() for character in token):
        raise InvalidConfiguration(f"{path} has no token, or more than one")
    return token


def run_plugin(
    plugin: Plugin, cluster: Cluster, *, environment: Mapping[str, str], timeout: float = PLUGIN_TIMEOUT
) -> Credential:
    """Run ``plugin``, and return the credential that it prints.

    Raises :class:`InvalidConfiguration` for one that cannot be run, and :class:`RemoteError` for one
    that fails, or does not end within ``timeout`` seconds.
    """
    name = Path(plugin.command).name
    if plugin.version not in _VERSIONS:
        raise InvalidConfiguration(
            f"the credential plugin {shown(name)} speaks {shown(plugin.version)}, which is not supported",
            hint=f"supported are {' and '.join(sorted(_VERSIONS))}",
        )
    somebody = sys.stdin is not None and sys.stdin.isatty()
    if plugin.mode == "Always" and not somebody:
        raise InvalidConfiguration(
            f"the credential plugin {shown(name)} needs to talk to a person, and there is no terminal",
            hint="log in with it beforehand, or let the kubeconfig have a token",
        )
    interactive = somebody and plugin.mode != "Never"
    own = {**environment, **dict(plugin.environment)}
    path = shutil.which(plugin.command, path=own.get("PATH"))
    if path is None:
        raise InvalidConfiguration(
            f"the kubeconfig names the credential plugin {shown(plugin.command)}, which is not there",
            hint=plugin.install_hint or "install it, or put it on the PATH",
        )
    own["KUBERNETES_EXEC_INFO"] = json.dumps(_question(plugin, cluster, interactive=interactive))
    wait = max(timeout, PATIENCE) if interactive else timeout
    output = _run([path, *plugin.arguments], own, name, interactive=interactive, timeout=wait)
    return _credential(output, plugin, name)


def _question(plugin: Plugin, cluster: Cluster, *, interactive: bool) -> JsonObject:
    spec: JsonObject = {"interactive": interactive}
    if plugin.needs_cluster:
        about: JsonObject = {"server": cluster.server}
        if cluster.server_name:
            about["tls-server-name"] = cluster.server_name
        if cluster.insecure:
            about["insecure-skip-tls-verify"] = True
        if cluster.authority:
            about["certificate-authority-data"] = base64.b64encode(cluster.authority).decode()
        if cluster.proxy:
            about["proxy-url"] = cluster.proxy
        if cluster.extension is not None:
            about["config"] = cluster.extension
        spec["cluster"] = about
    return {"kind": "ExecCredential", "apiVersion": plugin.version, "spec": spec}


def _run(
    command: list[str], environment: dict[str, str], name: str, *, interactive: bool, timeout: float
) -> bytes:
    try:
        process = subprocess.Popen(
            command,
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # A user who logs in must see the plugin's messages; else they are kept for the error.
            stderr=None if interactive else subprocess.PIPE,
            env=environment,
            start_new_session=not interactive,
        )
    except OSError as error:
        raise RemoteError(
            f"cannot run the credential plugin {shown(name)}: {error.strerror or error}"
        ) from error
    try:
        output, words = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _end(process, group=not interactive)
        raise RemoteError(
            f"the credential plugin {shown(name)} did not end within {timeout:g} seconds",
            hint="it may be waiting for somebody to log in",
        ) from error
    except BaseException:
        _end(process, group=not interactive)
        raise
    if process.returncode != 0:
        last_words = (words or b"").decode("utf-8", "replace").strip()
        raise RemoteError(
            f"the credential plugin {shown(name)} failed with {process.returncode}"
            + (f": {shown(last_words.splitlines()[-1])}" if last_words else "")
        )
    return output


def _end(process: subprocess.Popen[bytes], *, group: bool) -> None:
    """End a plugin and, in a session of its own, every process that it started: they would hold the pipes."""
    with contextlib.suppress(OSError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with contextlib.suppress(OSError):
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    process.wait()


def _credential(output: bytes, plugin: Plugin, name: str) -> Credential:
    # Its output is a secret: no message quotes any of it.
    failed = f"the credential plugin {shown(name)} did not print "
    try:
        document = as_object(json.loads(output))
    except (ValueError, RecursionError) as error:
        raise RemoteError(f"{failed}an ExecCredential: it is not JSON") from error
    if document.get("kind") != "ExecCredential" or document.get("apiVersion") != plugin.version:
        raise RemoteError(f"{failed}an ExecCredential of {plugin.version}, as the kubeconfig requires")
    status = as_object(document.get("status"))
    token = as_text(status.get("token")).strip()
    certificate = as_text(status.get("clientCertificateData"))
    key = as_text(status.get("clientKeyData"))
    if bool(certificate) != bool(key):
        raise RemoteError(f"{failed}both a certificate and its key")
    if not token and not certificate:
        raise RemoteError(f"{failed}a token or a certificate")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise RemoteError(f"{failed}a token that can be sent")
    expires: datetime.datetime | None = None
    stamp = status.get("expirationTimestamp")
    if stamp is not None:
        try:
            expires = datetime.datetime.fromisoformat(as_text(stamp))
        except ValueError as error:
            raise RemoteError(f"{failed}a time as its expirationTimestamp") from error
        if expires.tzinfo is None:
            raise RemoteError(f"{failed}a time with its zone as its expirationTimestamp")
    authorization = f"Bearer {token}" if token else ""
    return Credential(authorization, certificate.encode(), key.encode(), expires)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
