"""TLS: the certificate's files, checked before they are used, and used anew when they change."""

from __future__ import annotations

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

_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


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


def watch(files: TlsConfig, reload: Callable[[], None]) -> None:
    """Calls ``reload`` whenever the files changed, and can be used. From a thread of its own."""
    seen = _stamp(files)  # here, and not when the thread first runs: no change may fall between
    threading.Thread(target=_watch, args=(files, seen, reload), name="certificate", daemon=True).start()


def _watch(files: TlsConfig, seen: _Stamp, reload: Callable[[], None]) -> None:
    told = seen
    while True:
        time.sleep(_LOOK_SECONDS)
        now = _stamp(files)
        if now == seen:
            continue
        try:
            check(files)
        except InvalidConfiguration as error:
            # Perhaps only one of the two is there yet; said once for each change.
            if now != told:
                log.error("%s; the certificate stays as it was", error.message)
            told = now
            continue
        seen = now
        log.info("%s changed: new connections get the new certificate", files.certificate)
        reload()


def _stamp(files: TlsConfig) -> _Stamp:
    found = []
    for path in (files.certificate, files.key):
        try:
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)
