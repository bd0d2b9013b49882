"""TLS: the certificate's files, checked before they are used, and used anew when they change."""

from __future__ import annotations

import hashlib
import logging
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from granian.constants import SSLProtocols

from digestry.errors import InvalidConfiguration
from digestry.registry.config import TlsConfig

log: Final = logging.getLogger("digestry.registry")

_LOOK_SECONDS: Final = 1.0

Stamp: TypeAlias = tuple[bytes, ...]
"""Which certificate and key the files hold: their digests."""


def check(files: TlsConfig) -> None:
    """Raises :class:`InvalidConfiguration` unless certificate and key are there, and belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(
            f"{files.certificate} and {files.key} cannot be used for TLS: {error}",
            hint="PEM is wanted: the certificate with its chain, and its key, without a password",
        ) from error


def _no_password() -> str:
    raise ValueError("the key has a password")  # rather than asking for it on the terminal


def options(files: TlsConfig | None) -> dict[str, Any]:
    """What the server is told. Raises as :func:`check` does."""
    if files is None:
        return {}
    check(files)
    return {
        "ssl_cert": files.certificate,
        "ssl_key": files.key,
        "ssl_protocol_min": SSLProtocols.tls12,
    }


def stamp(files: TlsConfig) -> Stamp:
    """To be taken before the files are first used, for :func:`watch`."""
    # Of the content, and not of size and time: who renews a certificate may keep both (`cp -p`), and
    # some file systems are slow to tell of a change.
    found = []
    for path in (files.certificate, files.key):
        try:
            found.append(hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            found.append(b"")
    return tuple(found)


def watch(files: TlsConfig, used: Stamp, reload: Callable[[], None]) -> None:
    """Calls ``reload`` whenever the files are no longer those that are ``used``, and can be used.

    From a thread of its own.
    """
    threading.Thread(target=_watch, args=(files, used, reload), name="certificate", daemon=True).start()


def _watch(files: TlsConfig, used: Stamp, reload: Callable[[], None]) -> None:
    told = used
    while True:
        time.sleep(_LOOK_SECONDS)
        now = stamp(files)
        if now == used:
            continue
        try:
            check(files)
        except InvalidConfiguration as error:
            # Perhaps only one of the two is there yet; said once for each change.
            if now != told:
                log.error("%s; the certificate stays as it was", error.message)
            told = now
            continue
        used = now
        log.info("%s changed: new connections get the new certificate", files.certificate)
        reload()
