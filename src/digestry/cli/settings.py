"""The user's settings and directories: one frozen object, built once.

``DIGESTRY_HOME`` places everything under one directory; without it the XDG folders are used.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.model.digest import shown
from digestry.model.reference import DOCKER_HUB, Reference, check_host
from digestry.model.text import did_you_mean

HOME_VARIABLE: Final = "DIGESTRY_HOME"

KEYS: Final[dict[str, str]] = {
    "registry": "the registry that a name without a host means, such as localhost:5000",
    "insecure-registries": "hosts, separated by commas, that may be spoken to over plain HTTP",
    "token-servers": "hosts, separated by commas, that may be sent your logins for registries elsewhere",
    "docker-config": "the directory of docker's config.json, which holds the credentials",
}
_HOST_ALONE: Final = re.compile(r"(?:localhost|[0-9]+(?:\.[0-9]+){3}):[0-9]+/?", re.ASCII)
_THERE_ARE: Final = f"the settings are: {', '.join(KEYS)}"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force, with their defaults filled in."""

    config_file: Path
    store: Path
    registry: str = DOCKER_HUB
    insecure_registries: tuple[str, ...] = ()
    token_servers: tuple[str, ...] = ()
    docker_config: Path = Path()

    def reference(self, text: str) -> Reference:
        """Return the image name that ``text`` is. Raises :class:`InvalidReference`."""
        if _HOST_ALONE.fullmatch(text):
            raise InvalidReference(
                f"{text} is a registry, and names no repository of it", hint=f"write {text}/REPO"
            )
        try:
            return Reference.parse(text, default_host=self.registry)
        except InvalidReference as error:
            rest = text.partition("@")[2]
            if error.hint or not rest.startswith(("sha256:", "sha512:")):
                raise
            raise InvalidReference(
                error.message,
                hint="write the whole digest, or the first 7 or more digits of it, in lower case",
            ) from error


def locate() -> tuple[Path, Path]:
    """Return the configuration file and the local store's directory, for this user and environment."""
    home = os.environ.get(HOME_VARIABLE)
    if home:
        base = _expanded(home)
        return base / "config.toml", base / "images"
    config = _xdg("XDG_CONFIG_HOME") or _expanded("~/.config")
    data = _xdg("XDG_DATA_HOME") or _expanded("~/.local/share")
    return config / "digestry" / "config.toml", data / "digestry" / "images"


def _xdg(variable: str) -> Path | None:
    # "All paths … must be absolute", and one that is not is ignored (XDG Base Directory, "Basics").
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else None


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InvalidConfiguration(
            f"cannot tell which directory {shown(path)} is: {error}",
            hint=f"set HOME, or {HOME_VARIABLE} and DOCKER_CONFIG",
        ) from error


def read_values(config_file: Path) -> dict[str, str]:
    """Return the settings file's values by key. Raises :class:`InvalidConfiguration`."""
    try:
        text = config_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {config_file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{config_file} is not valid TOML: {error}") from error
    import tomllib  # only where there is something to read

    try:
        document = tomllib.loads(text)
    except RecursionError as error:
        raise InvalidConfiguration(f"{config_file} is nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfiguration(f"{config_file} is not valid TOML: {error}") from error
    for key, value in document.items():
        if key not in KEYS:
            raise InvalidConfiguration(
                f"{config_file}: unknown setting {shown(key)}{did_you_mean(key, KEYS)}", hint=_THERE_ARE
            )
        if not isinstance(value, str):
            raise InvalidConfiguration(f"{config_file}: {key} must be a string")
    return document


def check_key(key: str) -> str:
    """Return ``key`` if there is such a setting. Raises :class:`InvalidConfiguration`."""
    if key not in KEYS:
        raise InvalidConfiguration(f"unknown setting {shown(key)}{did_you_mean(key, KEYS)}", hint=_THERE_ARE)
    return key


def check_value(key: str, value: str) -> str:
    """Return ``value`` if setting ``key`` may have it. Raises :class:`InvalidConfiguration`."""
    check_key(key)
    try:
        if key == "registry":
            Reference(value, "any")  # a host alone: one that names can be read back with
        elif key in {"insecure-registries", "token-servers"}:
            for host in _hosts(value):
                check_host(host)
    except InvalidReference as error:
        raise InvalidConfiguration(f"setting {key}: {error.message}", hint=error.hint) from error
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidConfiguration(f"setting {key}: {shown(value)} is not UTF-8") from error
    return value


def load() -> Settings:
    """Return the settings in force. Raises :class:`InvalidConfiguration`."""
    config_file, store = locate()
    values = {key: check_value(key, value) for key, value in read_values(config_file).items()}
    docker = values.get("docker-config") or os.environ.get("DOCKER_CONFIG") or "~/.docker"
    return Settings(
        config_file=config_file,
        store=store,
        registry=values.get("registry", DOCKER_HUB),
        insecure_registries=tuple(_hosts(values.get("insecure-registries", ""))),
        token_servers=tuple(_hosts(values.get("token-servers", ""))),
        docker_config=_expanded(docker),
    )


def _hosts(value: str) -> list[str]:
    return [host.strip() for host in value.split(",") if host.strip()]


def change(key: str, value: str | None) -> None:
    """Write one setting, or remove it (None), leaving the rest of the file as it is."""
    import tomlkit

    from digestry.file_locks import locked
    from digestry.fsio import make_directory, storage_errors, write_file

    config_file, _ = locate()
    make_directory(config_file.parent)
    with locked(config_file.with_name(".config.lock")):
        read_values(config_file)  # a file that cannot be used is reported, not overwritten
        # The file that a symbolic link leads to is the one to change; its mode and line ends stay.
        target, text, mode = config_file.resolve(), "", 0o644
        with storage_errors("read", target), contextlib.suppress(FileNotFoundError):
            text = target.read_bytes().decode()
            mode = target.stat().st_mode & 0o777
        document = tomlkit.parse(text)
        if value is None:
            document.pop(key, None)
        else:
            document[key] = value
        write_file(target, tomlkit.dumps(document).encode(), mode=mode)
