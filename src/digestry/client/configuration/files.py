"""The places of docker's and containers' configuration files, and all that they say together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from digestry.errors import InvalidConfiguration

_REGISTRIES: Final = "registries.conf"
_ROOT: Final = Path("/")
NAMED_REGISTRIES: Final = "CONTAINERS_REGISTRIES_CONF"


class ConfigurationFiles(NamedTuple):
    """The files of other programs that are read. Those that are not there are among them, or not."""

    registries: tuple[Path, ...] = ()
    """``registries.conf`` and the files beside it; later ones take precedence."""
    recorded_aliases: Path | None = None
    """Where podman records the short names that somebody chose."""
    certificates: tuple[Path, ...] = ()
    """Directories like docker's ``certs.d``."""
    policy: Path | None = None


def configuration_files(
    environment: Mapping[str, str], *, docker: bool = True, containers: bool = True, root: Path = _ROOT
) -> ConfigurationFiles:
    """Return the files of docker and of containers for this user. A user's own go before the machine's.

    Raises :class:`InvalidConfiguration` if ``CONTAINERS_REGISTRIES_CONF`` names a file that is not there, and
    for a directory that cannot be read.
    """
    home = environment.get("HOME")
    named = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    # A service may have no access to its user's home: then no file is there.
    bases = [*([Path(named)] if named.startswith("/") and os.access(named, os.X_OK) else []), root / "etc"]
    kinds = [*(["containers"] if containers else []), *(["docker"] if docker else [])]
    certificates = tuple(base / kind / "certs.d" for base in bases for kind in kinds)
    if not containers:
        return ConfigurationFiles(certificates=certificates)
    ours = [base / "containers" for base in bases]
    policies = [base / "policy.json" for base in ours]
    cache = environment.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else "")
    return ConfigurationFiles(
        registries=_registries(environment.get(NAMED_REGISTRIES), ours),
        recorded_aliases=Path(cache, "containers", "short-name-aliases.conf") if cache else None,
        certificates=certificates,
        policy=next((path for path in policies if _is_there(path)), None),
    )


def demands_something(policy: Path) -> bool:
    """Return whether a ``policy.json`` may do more than accept anything, as nearly all do.

    It is read for that alone, in no time.
    """
    try:
        text = policy.read_bytes()
    except OSError:
        return True  # its reader reports why it cannot be read
    return any(sign in text for sign in (b"reject", b"igned", b"\\"))


def says_something(registries: Path) -> bool:
    """Return whether a ``registries.conf`` has more than comments and aliases, as few have.

    It is read for that alone, in no time.
    """
    try:
        lines = registries.read_bytes().splitlines()
    except OSError:
        return True
    tables = False
    for line in map(bytes.strip, lines):
        if line == b"[aliases]":
            tables = True
        elif line and line[:1] != b"#" and not (tables and line[:1] == b'"'):
            return True
    return False


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from error
    return True


def _unreadable(path: Path, error: OSError) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"cannot read {path}: {error.strerror}",
        hint="let this user read it, or: digestry config set read-files-of none",
    )


def _registries(named: str | None, bases: list[Path]) -> tuple[Path, ...]:
    """Return the one main file, and the files beside each of ``bases``: the machine's first."""
    if named:
        if not _is_there(Path(named)):
            raise InvalidConfiguration(f"{NAMED_REGISTRIES} names {named}, which is not there")
        main = [Path(named)]
    else:
        main = [path for base in bases if _is_there(path := base / _REGISTRIES)][:1]
    beside: list[Path] = []
    for base in reversed(bases):
        directory = base / f"{_REGISTRIES}.d"
        try:
            beside += sorted(path for path in directory.iterdir() if path.suffix == ".conf")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _unreadable(directory, error) from error
    return (*main, *beside)
