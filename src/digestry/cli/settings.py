"""The user's settings and directories: one frozen object, built once.

``DIGESTRY_HOME`` places everything under one directory; without it the XDG folders are used.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.model.digest import shown
from digestry.model.reference import DOCKER_HUB, Reference, check_host, names_its_host
from digestry.model.text import did_you_mean

if TYPE_CHECKING:
    from digestry.advisories.trust import TrustPolicy
    from digestry.cli.registry_blocks import Blocks
    from digestry.client.configuration.files import ConfigurationFiles

HOME_VARIABLE: Final = "DIGESTRY_HOME"

KEYS: Final[dict[str, str]] = {
    "registry": "the registry that a name without a host means, such as localhost:5000",
    "insecure-registries": "hosts, separated by commas, that may be spoken to over plain HTTP",
    "token-servers": "hosts, separated by commas, that may be sent your logins for registries elsewhere",
    "docker-config": "the directory of docker's config.json, which holds the credentials",
    "read-files-of": "docker, containers or none: whose certs.d, registries.conf and policy.json are read",
}
_PROGRAMS: Final = ("docker", "containers")
_REGISTRIES: Final = "registries"
_ADVISORIES: Final = "advisories"
_TABLES: Final = (_REGISTRIES, _ADVISORIES)
_HOST_ALONE: Final = r"(?:localhost|[0-9]+(?:\.[0-9]+){3}):[0-9]+/?"
_THERE_ARE: Final = f"the settings are: {', '.join(KEYS)}"


def _place_of(text: str) -> str:
    """Return what to write in place of a place that only copies know, such as ``oci:DIR:1``; else nothing."""
    from digestry.copy.location import TRANSPORTS

    transport, _, rest = text.partition(":")
    if transport == "local" and rest.isprintable():
        return f"write {rest}, with --local if the command has that option; local: is for copy and sync"
    if transport in TRANSPORTS and transport != "docker":
        return (
            f"{transport}: names a place for copy and sync; this command takes an image of a registry or the "
            "local store: digestry copy brings it there"
        )
    return ""


def _tell_nobody(_: str) -> None:
    pass


class Settings(NamedTuple):
    """The settings in force, with their defaults filled in."""

    config_file: Path
    store: Path
    registry: str = DOCKER_HUB
    insecure_registries: tuple[str, ...] = ()
    token_servers: tuple[str, ...] = ()
    docker_config: Path = Path()
    programs: tuple[str, ...] = _PROGRAMS
    """Whose configuration files are read: docker's, containers'."""
    blocks: Blocks | None = None
    """The settings file's blocks of registries; None without any."""
    advisories: object = None
    """The settings file's table of whose advisories count, as it is written; None without it."""
    aliases: bool = True
    """Whether names without a registry may be the aliases of containers' files."""
    tell: Callable[[str], None] = _tell_nobody
    """Called with a sentence for the user."""

    def files(self) -> ConfigurationFiles:
        """Return the configuration files of other programs. Raises :class:`InvalidConfiguration`."""
        from digestry.client.configuration.files import configuration_files

        return configuration_files(
            os.environ, docker="docker" in self.programs, containers="containers" in self.programs
        )

    def trust(self) -> TrustPolicy:
        """Return the policy that decides which advisories count. Raises :class:`InvalidConfiguration`."""
        from digestry.advisories.trust import TRUST_EVERYBODY

        if self.advisories is None:
            return TRUST_EVERYBODY
        from digestry.advisories.trust_settings import read_trust

        return read_trust(self.advisories, self.config_file)

    def reference(self, text: str) -> Reference:
        """Parse ``text``, and return the image name; report an alias from containers' files.

        Raises :class:`InvalidReference`, and :class:`InvalidConfiguration` for such a file.
        """
        if "/" not in text[:-1] and re.fullmatch(_HOST_ALONE, text, re.ASCII):
            raise InvalidReference(
                f"{text} is a registry, and names no repository of it", hint=f"write {text}/REPO"
            )
        try:
            found = Reference.parse(text, default_host=self.registry)
        except InvalidReference as error:
            if place := _place_of(text):
                raise InvalidReference(error.message, hint=place) from error
            rest = text.partition("@")[2]
            if error.hint or not rest.startswith(("sha256:", "sha512:")):
                raise
            raise InvalidReference(
                error.message,
                hint="write the whole digest, or the first 7 or more digits of it, in lower case",
            ) from error
        if self.aliases and not names_its_host(text.partition("@")[0]):
            from digestry.cli.short_names import follow_alias

            return follow_alias(found, self.files(), self.tell)
        return found


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


def read_document(config_file: Path) -> dict[str, Any]:
    """Return the content of the settings file, with known settings only. Raises
    :class:`InvalidConfiguration`."""
    from digestry.client.configuration.toml_file import parse_toml, read_text

    text = read_text(config_file)
    if text is None:
        return {}
    document = parse_toml(text, config_file)
    for key, value in document.items():
        if key in _TABLES:
            continue
        if key not in KEYS:
            raise InvalidConfiguration(
                f"{config_file}: unknown setting {shown(key)}{did_you_mean(key, (*KEYS, *_TABLES))}",
                hint=_THERE_ARE,
            )
        if not isinstance(value, str):
            raise InvalidConfiguration(f"{config_file}: {key} must be a string")
    return document


def read_values(config_file: Path) -> dict[str, str]:
    """Return the settings file's values by key. Raises :class:`InvalidConfiguration`."""
    return {key: value for key, value in read_document(config_file).items() if key not in _TABLES}


def read_blocks(config_file: Path, document: dict[str, Any]) -> Blocks | None:
    """Return a settings file's blocks of registries; None without a block.

    Raises :class:`InvalidConfiguration`.
    """
    if _REGISTRIES not in document:
        return None
    from digestry.cli.registry_blocks import read_blocks as read

    return read(document[_REGISTRIES], config_file)


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
        elif key == "read-files-of":
            _programs(value)
    except InvalidReference as error:
        raise InvalidConfiguration(f"setting {key}: {error.message}", hint=error.hint) from error
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidConfiguration(f"setting {key}: {shown(value)} is not UTF-8") from error
    return value


def load() -> Settings:
    """Return the settings in force. Raises :class:`InvalidConfiguration`."""
    from digestry.cli.output import note, printable

    config_file, store = locate()
    document = read_document(config_file)
    values = {key: check_value(key, value) for key, value in document.items() if key not in _TABLES}
    programs = _programs(values.get("read-files-of", ",".join(_PROGRAMS)))
    reported: set[str] = set()

    def tell(text: str) -> None:
        if text not in reported:
            reported.add(text)
            note(printable(f"digestry: {text}"))

    docker = values.get("docker-config") or os.environ.get("DOCKER_CONFIG") or "~/.docker"
    return Settings(
        config_file=config_file,
        store=store,
        registry=values.get("registry", DOCKER_HUB),
        insecure_registries=tuple(_hosts(values.get("insecure-registries", ""))),
        token_servers=tuple(_hosts(values.get("token-servers", ""))),
        docker_config=_expanded(docker),
        programs=programs,
        blocks=read_blocks(config_file, document),
        advisories=document.get(_ADVISORIES),
        # The setting `registry` decides what such names mean.
        aliases="containers" in programs and "registry" not in values,
        tell=tell,
    )


def _programs(value: str) -> tuple[str, ...]:
    programs = tuple(_hosts(value))
    if programs == ("none",):
        return ()
    for program in programs:
        if program not in _PROGRAMS:
            raise InvalidConfiguration(
                f"setting read-files-of: {shown(program)} is no program whose files are read",
                hint=f"write {', '.join(_PROGRAMS)}, both with a comma between them, or none",
            )
    return programs


def _hosts(value: str) -> list[str]:
    return [host.strip() for host in value.split(",") if host.strip()]


def change(key: str, value: object, registry: str | None = None) -> None:
    """Write one setting, or remove it (None), leaving the rest of the file as it is.

    With ``registry``, it is a key of that registry's block. Raises :class:`InvalidConfiguration`.
    """
    import tomlkit

    from digestry.file_locks import locked
    from digestry.fsio import make_directory, storage_errors, write_file

    config_file, _ = locate()
    make_directory(config_file.parent)
    with locked(config_file.with_name(".config.lock")):
        read_blocks(config_file, read_document(config_file))  # a file that cannot be used is not overwritten
        # The target of a symbolic link is the file to change; its mode and line ends stay.
        target, text, mode = config_file.resolve(), "", 0o644
        with storage_errors("read", target), contextlib.suppress(FileNotFoundError):
            text = target.read_bytes().decode()
            mode = target.stat().st_mode & 0o777
        document: Any = tomlkit.parse(text)
        if registry is None:
            _put(document, key, value)
        else:
            blocks = document.setdefault(_REGISTRIES, tomlkit.table(is_super_table=True))
            block = blocks.setdefault(registry, tomlkit.table())
            _put(block, key, value)
            if not block:
                blocks.pop(registry)
            if not blocks:
                document.pop(_REGISTRIES)
            read_blocks(config_file, document.unwrap())
        write_file(target, tomlkit.dumps(document).encode(), mode=mode)


def _put(table: Any, key: str, value: object) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
