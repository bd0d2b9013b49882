"""Directories like docker's ``certs.d``: CAs and client certificates in a folder for each ``HOST:PORT``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from digestry.client.configuration.rules import ClientCertificate
from digestry.errors import InvalidConfiguration


class HostCertificates(msgspec.Struct, frozen=True):
    """The files in the folder of one host; ``directory`` is that folder, None if there is none."""

    directory: Path | None = None
    authorities: tuple[Path, ...] = ()
    clients: tuple[ClientCertificate, ...] = ()


def host_certificates(directories: Sequence[Path], host: str) -> HostCertificates:
    """Return the certificates in the first of ``directories`` that has a folder for ``host[:port]``.

    ``*.crt`` are CAs, ``*.cert`` with ``*.key`` of the same name are client certificates; other files do not
    count. Raises :class:`InvalidConfiguration` for half of a pair, and for a folder that cannot be read.
    """
    if host in {"", ".", ".."} or "/" in host or "\0" in host:
        return HostCertificates()
    for directory in directories:
        folder = directory / host
        try:
            names = sorted(path.name for path in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InvalidConfiguration(
                f"cannot read the certificates for {host} in {folder}: {error.strerror}",
                hint="let this user read the folder, or remove it",
            ) from error
        return _read(folder, names)
    return HostCertificates()


def _read(folder: Path, names: Sequence[str]) -> HostCertificates:
    authorities, clients = [], []
    for name in names:
        path = folder / name
        if name.endswith(".crt"):
            authorities.append(path)
        elif name.endswith(".cert"):
            key = path.with_suffix(".key")
            if key.name not in names:
                raise InvalidConfiguration(
                    f"{path} is a client certificate, and its key {key.name} is missing",
                    hint="put the key beside it; the certificate of a CA is called *.crt",
                )
            clients.append(ClientCertificate(path, key))
        elif name.endswith(".key") and path.with_suffix(".cert").name not in names:
            raise InvalidConfiguration(
                f"{path} is a key, and its certificate {path.with_suffix('.cert').name} is missing",
                hint="put the client certificate beside it",
            )
    return HostCertificates(folder, tuple(authorities), tuple(clients))
