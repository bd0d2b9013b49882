"""The TLS certificate: checked before use, and reloaded when its files change."""

from __future__ import annotations

import logging
import shutil
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from granian.constants import SSLProtocols

from digestry import fsio
from digestry.errors import InvalidConfiguration, StorageError
from digestry.registry.config import TlsConfig

log: Final = logging.getLogger("digestry.registry")

DIRECTORY: Final = "tls"
"""The folder of the scratch directory with the copies that the workers read."""

OLDEST: Final = SSLProtocols.tls12

_LOOK_SECONDS: Final = 1.0


class Certificate:
    """A copy of the certificate and its key for the workers, made when both were valid.

    A worker may start at any time, because another one died, and ends if the two files do not match. So it
    must not read the original files: one of the two may just have been replaced, or be broken. Each pair has
    a folder of its own, so that no worker reads one file of this pair and one of the next.
    """

    def __init__(self, files: TlsConfig, scratch: Path) -> None:
        """Copy the files. Raises :class:`InvalidConfiguration` unless both are there, and belong together."""
        self._files = files
        self._directory = scratch / DIRECTORY
        self._content: tuple[bytes, bytes] | None = None
        self._made = 0
        self._folders: list[Path] = []
        self.used = files
        try:
            self.take()
        except StorageError as error:
            # A disk that is full can still be read from.
            log.error("%s; the certificate and its key are read where they are", error.message)

    def take(self) -> bool:
        """Copy the files if they changed, and return whether they did.

        Raises :class:`InvalidConfiguration` if they cannot be used, :class:`StorageError`. Then the copy is
        unchanged.
        """
        content = _read(self._files.certificate), _read(self._files.key)
        # Not by size and time: a renewal may keep both (`cp -p`).
        if content == self._content:
            return False
        check(self._files)
        try:
            used = self._write(*content)
        except (OSError, ValueError) as error:
            raise _unusable(self._files, error) from error
        self._content, self.used = content, used
        return True

    def _write(self, certificate: bytes, key: bytes) -> TlsConfig:
        self._made += 1
        folder = self._directory / str(self._made)
        copy = TlsConfig(folder / "certificate.pem", folder / "key.pem")
        try:
            fsio.make_directory(folder)
            fsio.write_file(copy.certificate, certificate, mode=0o600)
            fsio.write_file(copy.key, key, mode=0o600)
            _load(copy)  # the files may have changed between the two looks at them
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # The one before stays: a worker that is just starting may be about to read it.
        for old in self._folders[:-1]:
            shutil.rmtree(old, ignore_errors=True)
        self._folders = [*self._folders[-1:], folder]
        return copy

    def options(self) -> dict[str, object]:
        """Return the server's TLS options."""
        return {
            "ssl_cert": self.used.certificate,
            "ssl_key": self.used.key,
            "ssl_protocol_min": OLDEST,
        }

    def watch(self, renew: Callable[[Certificate], None]) -> None:
        """Call ``renew``, from a thread, whenever the files have changed and are valid."""
        threading.Thread(target=self._watch, args=(renew,), name="certificate", daemon=True).start()

    def _watch(self, renew: Callable[[Certificate], None]) -> None:
        last_error = ""
        while True:
            time.sleep(_LOOK_SECONDS)
            try:
                changed = self.take()
            except (InvalidConfiguration, StorageError) as error:
                # Perhaps only one of the two is there yet.
                if error.message != last_error:
                    log.error("%s; the certificate stays as it was", error.message)
                last_error = error.message
                continue
            last_error = ""
            if changed:
                log.info("%s changed: new connections get the new certificate", self._files.certificate)
                renew(self)


def check(files: TlsConfig) -> None:
    """Raise :class:`InvalidConfiguration` unless the files have a certificate and its key."""
    for file in (files.certificate, files.key):
        _read(file)
    try:
        _load(files)
    except (OSError, ValueError) as error:
        raise _unusable(files, error) from error


def clear(scratch: Path) -> None:
    """Remove the copies that this server, or a killed one, made."""
    shutil.rmtree(scratch / DIRECTORY, ignore_errors=True)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidConfiguration(
            f"[tls]: cannot read {file}: {(error.strerror or str(error)).lower()}",
            hint="certificate and key in [tls] of registry.toml are paths, relative to that file",
        ) from error


def _unusable(files: TlsConfig, error: Exception) -> InvalidConfiguration:
    reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else str(error)
    return InvalidConfiguration(
        f"[tls]: {files.certificate} and {files.key} cannot be used for TLS: {reason}",
        hint="PEM is required: the certificate with its chain, and its key, without a password",
    )


def _load(files: TlsConfig) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key, password=_no_password)


def _no_password() -> str:
    raise ValueError("the key has a password")  # rather than asking for it on the terminal
