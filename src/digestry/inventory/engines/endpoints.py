"""The addresses of engines: docker's contexts, podman's connections, users' sockets.

The default is the engine that the ``docker`` program itself would ask: ``DOCKER_HOST``, else the
context that is named by ``DOCKER_CONTEXT`` or is the current one, else docker's own socket.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from digestry.client.options import is_loopback
from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject

DEFAULT_SOCKET: Final = "unix:///var/run/docker.sock"
DEFAULT_CONTEXT: Final = "default"

_SCHEMES: Final = ("unix", "tcp", "http", "https", "ssh")
_CONTEXT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", re.ASCII)
_USER: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*", re.ASCII)
_PODMAN_SECONDS: Final = 20.0
_LISTED: Final = 8
_PLAIN_PORT: Final = 2375
_TLS_PORT: Final = 2376


@dataclass(frozen=True, slots=True)
class TLS:
    """How to speak TLS: PEM files, each None if there is none, and whether the engine is verified."""

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    verify: bool = True

    @classmethod
    def of_directory(cls, directory: Path, *, verify: bool = True) -> TLS:
        """Return those of ``ca.pem``, ``cert.pem`` and ``key.pem`` that are in ``directory``."""
        found = [directory / name for name in ("ca.pem", "cert.pem", "key.pem")]
        authority, certificate, key = [path if path.is_file() else None for path in found]
        return cls(authority, certificate, key, verify)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine's address. ``identity`` is the private key for ``ssh://``, if one is named; ``program`` is
    the program that serves the engine's API there."""

    url: str
    tls: TLS | None = None
    identity: str = ""
    program: str = "docker"

    @classmethod
    def parse(cls, url: str, environment: Mapping[str, str] = os.environ) -> Endpoint:
        """Read ``unix:///path``, ``tcp://host:port``, ``http(s)://host:port`` or ``ssh://…``.

        TLS is used for ``https://``, and for ``tcp://`` if ``DOCKER_TLS_VERIFY`` or ``DOCKER_TLS``
        is set, with the certificates of ``DOCKER_CERT_PATH``, or else of docker's directory, as
        docker's client does. The engine is verified in either case. Raises
        :class:`InvalidConfiguration`.
        """
        scheme = _checked(url).scheme
        required = environment.get("DOCKER_TLS_VERIFY") or environment.get("DOCKER_TLS")
        if scheme == "https" or (scheme == "tcp" and required):
            place = environment.get("DOCKER_CERT_PATH")
            directory = Path(place) if place else docker_directory(environment)
            return cls(url, TLS.of_directory(directory) if place or required else TLS())
        return cls(url)

    @property
    def address(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def port(self) -> int:
        return self.address.port or (_PLAIN_PORT if self.tls is None else _TLS_PORT)

    @property
    def is_remote(self) -> bool:
        """Whether the engine is on another machine, whose "localhost" is not this one's."""
        address = self.address
        return address.scheme != "unix" and not is_loopback(address.netloc.rpartition("@")[2])


def _checked(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        port = address.port
    except ValueError as error:
        raise InvalidConfiguration(f"engine address {shown(url)}: {error}") from error
    if address.scheme in {"npipe", "fd"}:
        raise InvalidConfiguration(
            f"engine address {shown(url)}: {address.scheme}:// is not supported",
            hint="let the engine listen on tcp:// with TLS, or on ssh://, and name that",
        )
    usable = address.path if address.scheme == "unix" else address.hostname
    if address.scheme not in _SCHEMES or not usable or port == 0:
        raise InvalidConfiguration(
            f"engine address {shown(url)} is not valid",
            hint="write it as unix:///path/docker.sock, tcp://127.0.0.1:2376 or ssh://user@host",
        )
    if address.scheme == "ssh":
        _check_ssh(url, address)
    return address


def _check_ssh(url: str, address: SplitResult) -> None:
    if address.password is not None:
        raise InvalidConfiguration(
            f"engine address of {shown(address.hostname)}: a password cannot be given in it",
            hint="let ssh reach it by a key or an agent",
        )
    what = ""
    if address.query or address.fragment:
        what = "there is more than a path after the host"
    elif address.username is not None and not _USER.fullmatch(unquote(address.username)):
        what = "the user's name is not valid"
    elif (address.hostname or "-").startswith("-"):
        what = "the host's name is not valid"
    if what:
        raise InvalidConfiguration(
            f"engine address {shown(url)}: {what}", hint="write it as ssh://user@host:22/path/docker.sock"
        )


# -- docker -------------------------------------------------------------------------------------


def docker_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory in which docker's client keeps its configuration."""
    place = environment.get("DOCKER_CONFIG")
    return Path(place) if place else Path(environment.get("HOME") or Path.home()) / ".docker"


def docker_endpoint(where: str = "", environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Return the engine that ``where`` names: an address, a context, or, if empty, docker's own default.

    Raises :class:`InvalidConfiguration`.
    """
    if "://" in where or where.startswith("/"):
        return Endpoint.parse(where, environment)
    name = where or _current_context(environment)
    if name == DEFAULT_CONTEXT:
        return Endpoint.parse(environment.get("DOCKER_HOST") or DEFAULT_SOCKET, environment)
    return _of_context(name, environment)


def _current_context(environment: Mapping[str, str]) -> str:
    if environment.get("DOCKER_HOST"):
        return DEFAULT_CONTEXT
    name = environment.get("DOCKER_CONTEXT")
    if name:
        return name
    path = docker_directory(environment) / "config.json"
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return DEFAULT_CONTEXT
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidConfiguration(
            f"{path} cannot be read, so that docker's current context is not known: {error}"
        ) from error
    current = document.get("currentContext") if isinstance(document, dict) else document
    if not isinstance(current, str | None):
        raise InvalidConfiguration(
            f"{path} cannot be read, so that docker's current context is not known: it is not text"
        )
    return current or DEFAULT_CONTEXT


def _of_context(name: str, environment: Mapping[str, str]) -> Endpoint:
    contexts = docker_directory(environment) / "contexts"
    if not _CONTEXT.fullmatch(name):
        raise InvalidConfiguration(
            f"{shown(name)} is neither an engine's address nor the name of a docker context",
            hint="an address is docker:unix:///path, docker:tcp://host:port or docker:ssh://user@host",
        )
    directory = hashlib.sha256(name.encode()).hexdigest()
    path = contexts / "meta" / directory / "meta.json"
    try:
        document = json.loads(path.read_bytes())
        endpoint = document["Endpoints"]["docker"]
        host = endpoint.get("Host") or DEFAULT_SOCKET
        skips = endpoint.get("SkipTLSVerify") is True
    except FileNotFoundError as error:
        raise InvalidConfiguration(
            f"docker has no context {shown(name)}", hint=f"there are: {', '.join(_contexts(contexts))}"
        ) from error
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise InvalidConfiguration(
            f"docker's context {shown(name)} cannot be read: {path}: {error}"
        ) from error
    if not isinstance(host, str):
        raise InvalidConfiguration(f"docker's context {shown(name)} has no address: {path}")
    # The TLS variables of the environment do not apply to contexts.
    found = Endpoint.parse(host, {})
    tls = contexts / "tls" / directory / "docker"
    if found.address.scheme in {"tcp", "https"} and (tls.is_dir() or skips):
        return replace(found, tls=TLS.of_directory(tls, verify=not skips))
    return found


def _contexts(directory: Path) -> list[str]:
    """Return the names of the first few contexts."""
    names = [DEFAULT_CONTEXT]
    for path in sorted((directory / "meta").glob("*/meta.json")):
        try:
            name = json.loads(path.read_bytes())["Name"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        names.append(str(name))
    return names[:_LISTED] + (["…"] if len(names) > _LISTED else [])


def docker_is_here(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the argument for :func:`docker_endpoint` if an engine is named or runs here, else None.

    It is empty for docker's own default. Raises :class:`InvalidConfiguration`.
    """
    named = environment.get("DOCKER_HOST") or _current_context(environment) != DEFAULT_CONTEXT
    return "" if named or _is_there(Path(urlsplit(DEFAULT_SOCKET).path)) else None


def _is_there(path: Path) -> bool:
    """Return whether ``path`` exists, or this user may not see whether it does."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


# -- podman -------------------------------------------------------------------------------------


def podman_sockets(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the paths where podman's socket may be: the user's, then the system's."""
    own = environment.get("XDG_RUNTIME_DIR")
    places = [Path(own)] if own else []
    if os.geteuid() != 0:
        places.append(Path(f"/run/user/{os.geteuid()}"))
    found = [place / "podman" / "podman.sock" for place in dict.fromkeys(places)]
    return [*found, Path("/run/podman/podman.sock")]


def podman_is_here(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the argument for :func:`podman_endpoint` if a podman is named or is here, else None.

    It is empty for one that is here, by a socket or its program.
    """
    # As podman has it: an address before the name of a connection.
    named = environment.get("CONTAINER_HOST") or environment.get("CONTAINER_CONNECTION")
    if named:
        return named
    if any(map(_is_there, podman_sockets(environment))):
        return ""
    import shutil  # noqa: PLC0415 - an agent that follows one engine does without its memory

    return "" if shutil.which("podman") is not None else None


def podman_endpoint(where: str) -> Endpoint:
    """Return the podman that ``where`` names: an address, or one of ``podman system connection list``.

    Raises :class:`InvalidConfiguration`.
    """
    if "://" in where or where.startswith("/"):
        return replace(Endpoint.parse(where), program="podman")
    connections = _podman_connections()
    found = connections.get(where)
    if found is None:
        raise InvalidConfiguration(
            f"{shown(where)} is neither an engine's address nor one of podman's connections",
            hint="there are: "
            + (", ".join(list(connections)[:_LISTED]) or "none")
            + " (podman system connection list)",
        )
    identity = found.get("Identity")
    endpoint = replace(Endpoint.parse(str(found.get("URI"))), program="podman")
    return replace(endpoint, identity=identity if isinstance(identity, str) else "")


def _podman_connections() -> dict[str, JsonObject]:
    import subprocess  # noqa: PLC0415 - as above

    command = ["podman", "system", "connection", "list", "--format", "json"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PODMAN_SECONDS,
            check=True,
        )
        listed = json.loads(done.stdout or b"[]")
    except (OSError, subprocess.SubprocessError, ValueError, RecursionError) as error:
        raise InvalidConfiguration(f"podman's connections cannot be listed: {error}") from error
    entries = listed if isinstance(listed, list) else []
    return {
        entry["Name"]: entry
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("Name"), str)
    }


# -- users --------------------------------------------------------------------------------------


def users_sockets(run: Path = Path("/run/user")) -> list[tuple[str, Path]]:
    """Return the sockets of users' own engines, each with its kind. Only root sees them."""
    if os.geteuid() != 0:
        return []
    found = [("docker", path) for path in run.glob("*/docker.sock")]
    found += [("podman", path) for path in run.glob("*/podman/podman.sock")]
    return sorted((kind, path) for kind, path in found if path.is_socket())
