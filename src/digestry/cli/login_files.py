"""The registry and the file of a login, for ``login`` and ``logout``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.client.credential_file import CredentialFile


def authfile_option(function: Callable[..., object]) -> Callable[..., object]:
    """Add the option ``--authfile``, which podman and skopeo have too."""
    return click.option(
        "--authfile",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="A file of podman's (auth.json), in place of docker's config.json.",
    )(function)


def registry_host(settings: Settings, text: str | None) -> str:
    """Return the host of the registry that an argument names, which may be an address.

    Raises :class:`InvalidReference`.
    """
    from digestry.client.credentials import plain_host
    from digestry.model.reference import check_host

    if text is None:
        return settings.registry
    host, slash, path = (text.partition("://")[2] or text).partition("/")
    return check_host(plain_host(host if not path or "://" in text else f"{host}{slash}{path}"))


def credential_file(settings: Settings, authfile: Path | None) -> CredentialFile:
    """Return the file that logins are kept in: docker's, or one that the caller names."""
    from digestry.client.credential_file import CredentialFile

    if authfile is not None:
        return CredentialFile.podman(authfile)
    return CredentialFile.docker(settings.docker_config)


def shadowing(settings: Settings, host: str, file: CredentialFile) -> list[str]:
    """Return the other places with a login for ``host`` that digestry finds, the first that it uses first.

    Those behind ``file`` are no matter while it has a login itself, and are left out then.
    """
    import os

    from digestry.client.credentials import DockerCredentials
    from digestry.client.options import podman_files
    from digestry.errors import DigestryError

    given = os.environ.get("DOCKER_AUTH_CONFIG", "")
    sources = [("DOCKER_AUTH_CONFIG", DockerCredentials(None, given=given))] if given else []
    docker = settings.docker_config
    files = (docker / "config.json", *podman_files())
    sources += [(str(path), DockerCredentials(None, more=(path,))) for path in files]
    found: list[str] = []
    for name, credentials in sources:
        try:
            has = credentials.get(host) is not None
        except DigestryError:
            continue  # it has no login that could be used
        if name == str(file.path):
            if has:
                break
        elif has:
            found.append(name)
    return found
