"""The configuration of a cluster's client: kubeconfig files, or a pod's service account.

The rules are those of kubectl: ``KUBECONFIG`` is a list of files, and the first one that sets a name or the
current context wins; paths in a file are relative to it. No message of this module quotes a secret.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import quote, urlsplit

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LARGEST_FILE: Final = 4 << 20
"""In bytes, for a kubeconfig and for each file that it names."""

_EXEC_EXTENSION: Final = "client.authentication.k8s.io/exec"
_MODES: Final = frozenset({"Never", "IfAvailable", "Always"})


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the API server is. ``authority`` are the PEM certificates that alone may sign its own,
    empty for the system's; ``server_name`` is the name in its certificate, if that is another."""

    server: str
    authority: bytes = b""
    insecure: bool = False
    server_name: str = ""
    proxy: str = ""
    extension: object = None
    """The kubeconfig's data about this cluster for credential plugins."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A program that buys credentials (``client.authentication.k8s.io``)."""

    command: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    version: str
    mode: str
    """``Never``, ``IfAvailable`` or ``Always``: whether it may, or must, talk to a person."""
    install_hint: str = ""
    needs_cluster: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """The user of requests. ``certificate`` and ``key`` are PEM; ``impersonation`` are request headers."""

    token: str = field(default="", repr=False)
    token_file: Path | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)
    plugin: Plugin | None = None
    impersonation: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """A cluster, a user of it, and the name under which they were found together."""

    context: str
    cluster: Cluster
    user: User
    namespace: str = ""


def find_access(
    context: str = "",
    *,
    environment: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access:
    """Return the access that ``context`` names, or the current one; a pod's own, if there is no kubeconfig.

    Raises :class:`InvalidConfiguration`.
    """
    files = [path for path in kubeconfig_files(environment) if path.exists()]
    if files:
        return Kubeconfig(files).access(context)
    if context:
        raise InvalidConfiguration(
            f"there is no kubeconfig that could have the context {shown(context)}",
            hint="name the file with KUBECONFIG",
        )
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    if host:
        return _in_cluster(host, environment.get("KUBERNETES_SERVICE_PORT", ""), service_account)
    raise InvalidConfiguration(
        "there is no kubeconfig, and this is not a pod of a cluster",
        hint="name the file with KUBECONFIG, or write it to ~/.kube/config",
    )


def kubeconfig_files(environment: Mapping[str, str]) -> list[Path]:
    """Return the paths where a kubeconfig may be."""
    named = [Path(part) for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    home = environment.get("HOME", "") or str(Path("~").expanduser())
    return named or [Path(home) / ".kube" / "config"]


def _in_cluster(host: str, port: str, directory: Path) -> Access:
    server = f"https://[{host}]" if ":" in host else f"https://{host}"
    try:
        namespace = (directory / "namespace").read_text("utf-8", "replace").strip()
    except OSError:
        namespace = ""
    return Access(
        context="the pod's service account",
        cluster=Cluster(f"{server}:{port or '443'}", authority=_content(directory / "ca.crt")),
        user=User(token_file=directory / "token"),
        namespace=namespace,
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One named entry of a kubeconfig, and the file that it is from."""

    values: JsonObject
    file: Path
    what: str

    def string(self, key: str) -> str:
        value = self.values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.refuse(f"{key!r} is not a string")
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            self.refuse(f"{key!r} is neither true nor false")
        return value

    def part(self, key: str) -> _Entry | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.refuse(f"{key!r} is not an object")
        return _Entry(value, self.file, f"{self.what}, {key}")

    def items(self, key: str) -> list[object]:
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(f"{key!r} is not a list")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        values = self.items(key)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) != len(values):
            self.refuse(f"{key!r} has something that is not a string")
        return texts

    def path(self, key: str) -> Path | None:
        value = self.string(key)
        return self.file.parent / value if value else None

    def bytes(self, key: str) -> bytes:
        """Return the content of ``key-data``, which is base64, or else of the file that ``key`` names."""
        data = self.string(f"{key}-data")
        if data:
            try:
                return base64.b64decode(data, validate=False)
            except (binascii.Error, ValueError):
                self.refuse(f"'{key}-data' is not base64")
        path = self.path(key)
        return b"" if path is None else _content(path)

    def refuse(self, reason: str) -> NoReturn:
        raise InvalidConfiguration(f"{self.file}: {self.what}: {reason}")


class Kubeconfig:
    """Some files, merged. Raises :class:`InvalidConfiguration` for one that cannot be used."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._current = ""
        self._named: dict[str, dict[str, _Entry]] = {"contexts": {}, "clusters": {}, "users": {}}
        for path in files:
            self._merge(path)

    def access(self, context: str = "") -> Access:
        """Return the cluster and the user of ``context``, or of the current one if it is empty."""
        name = context or self._current
        if not name:
            raise InvalidConfiguration(
                f"{self._where()} has no current context",
                hint=f"name one: kubernetes:CONTEXT; there are {self._known('contexts')}",
            )
        chosen = self._find("contexts", name)
        cluster = self._find("clusters", chosen.string("cluster"), f"the context {shown(name)} names the ")
        user_name = chosen.string("user")
        user = self._find("users", user_name, f"the context {shown(name)} names the ") if user_name else None
        return Access(
            context=name,
            cluster=_cluster(cluster),
            user=User() if user is None else _user(user),
            namespace=chosen.string("namespace"),
        )

    def _merge(self, path: Path) -> None:
        document = _Entry(_document(path), path, "the file")
        self._current = self._current or document.string("current-context")
        for plural, entries in self._named.items():
            singular = plural.removesuffix("s")
            for position, value in enumerate(document.items(plural)):
                what = f"entry {position + 1} of {plural}"
                if not isinstance(value, dict):
                    document.refuse(f"{what} is not an object")
                entry = _Entry(value, path, what)
                name = entry.string("name")
                inner = entry.part(singular) or _Entry({}, path, what)
                entries.setdefault(name, _Entry(inner.values, path, f"the {singular} {shown(name)}"))

    def _find(self, plural: str, name: str, why: str = "") -> _Entry:
        entry = self._named[plural].get(name)
        if entry is None:
            singular = plural.removesuffix("s")
            raise InvalidConfiguration(
                f"{self._where()}: {why}{singular} {shown(name)}{', which' if why else ''} is not there",
                hint=f"there are {self._known(plural)}",
            )
        return entry

    def _known(self, plural: str) -> str:
        return ", ".join(map(shown, sorted(self._named[plural]))) or "none"

    def _where(self) -> str:
        return " and ".join(map(str, self._files))


def _document(path: Path) -> JsonObject:
    import yaml  # noqa: PLC0415 - only requests to a cluster need it

    content = _content(path)
    # Both are safe loaders; the one on libyaml is some ten times faster, where it was built.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(content, Loader=loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # The error's own text quotes the line, which may have a secret in it.
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise InvalidConfiguration(f"{path}{where}: not YAML that can be read") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidConfiguration(f"{path}: a kubeconfig is an object, this is something else")
    return document


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror or error}") from error
    if len(content) > LARGEST_FILE:
        raise InvalidConfiguration(f"{path} is longer than {LARGEST_FILE} bytes, and was not read")
    return content


def _cluster(entry: _Entry) -> Cluster:
    server = entry.string("server")
    try:
        parts = urlsplit(server)
        usable = parts.scheme in {"http", "https"} and parts.hostname and not parts.username
        usable = usable and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        entry.refuse(f"'server' is not an address such as https://host:6443: {shown(server)}")
    extension: object = None
    for value in entry.items("extensions"):
        if isinstance(value, dict) and value.get("name") == _EXEC_EXTENSION:
            extension = value.get("extension")
    insecure = entry.flag("insecure-skip-tls-verify")
    authority = entry.bytes("certificate-authority")
    if insecure and authority:
        entry.refuse("it has a certificate authority, and says at the same time that none is to be checked")
    return Cluster(
        server=server.rstrip("/"),
        authority=authority,
        insecure=insecure,
        server_name=entry.string("tls-server-name"),
        proxy=entry.string("proxy-url"),
        extension=extension,
    )


def _user(entry: _Entry) -> User:
    plugin = entry.part("exec")
    token = entry.string("token").strip()
    provider = entry.part("auth-provider")
    if provider is not None and plugin is None and not token:
        entry.refuse(
            f"the 'auth-provider' {shown(provider.string('name'))} is of a kind that Kubernetes gave up: "
            "use a credential plugin ('exec')"
        )
    certificate, key = entry.bytes("client-certificate"), entry.bytes("client-key")
    if bool(certificate) != bool(key):
        entry.refuse("a client certificate and its key go together, and one of them is missing")
    return User(
        token=token,
        token_file=None if token else entry.path("tokenFile"),
        username=entry.string("username"),
        password=entry.string("password"),
        certificate=certificate,
        key=key,
        plugin=None if plugin is None else _plugin(plugin),
        impersonation=_impersonation(entry),
    )


def _plugin(entry: _Entry) -> Plugin:
    command = entry.string("command")
    if not command:
        entry.refuse("it names no command")
    if "/" in command:
        # As kubectl has it: a bare name is looked for on the PATH, a path is relative to the file.
        command = str(entry.file.parent / command)
    variables = []
    for value in entry.items("env"):
        variable = _Entry(value if isinstance(value, dict) else {}, entry.file, f"{entry.what}, env")
        variables.append((variable.string("name"), variable.string("value")))
    mode = entry.string("interactiveMode") or "IfAvailable"
    if mode not in _MODES:
        entry.refuse(f"'interactiveMode' is none of {', '.join(sorted(_MODES))}: {shown(mode)}")
    return Plugin(
        command=command,
        arguments=entry.strings("args"),
        environment=tuple((name, value) for name, value in variables if name),
        version=entry.string("apiVersion"),
        mode=mode,
        install_hint=entry.string("installHint"),
        needs_cluster=entry.flag("provideClusterInfo"),
    )


def _impersonation(entry: _Entry) -> tuple[tuple[str, str], ...]:
    """Return the request headers that impersonate another user (``as``, ``as-groups`` …)."""
    user = entry.string("as")
    headers = [("Impersonate-User", user)] if user else []
    uid = entry.string("as-uid")
    headers += [("Impersonate-Uid", uid)] if uid else []
    headers += [("Impersonate-Group", group) for group in entry.strings("as-groups")]
    extra = entry.part("as-user-extra")
    for key in extra.values if extra is not None else ():
        if extra is not None and isinstance(key, str):
            headers += [(f"Impersonate-Extra-{quote(key, safe='')}", value) for value in extra.strings(key)]
    if headers and not user:
        entry.refuse("it acts as somebody else without 'as', which says who")
    return tuple(headers)
