"""Connections to a Kubernetes API server: TLS as the kubeconfig says, and proxies.

The certificate is always checked, unless the kubeconfig says that it is not to be.
"""

from __future__ import annotations

import contextlib
import ssl
import tempfile
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import LocationParseError
from urllib3.util import make_headers

from digestry.client.options import is_loopback
from digestry.errors import InvalidConfiguration
from digestry.inventory.kube.config import Access
from digestry.inventory.kube.credentials import Credential
from digestry.model.digest import shown


class _UncheckedConnection(urllib3.connection.HTTPSConnection):
    """A connection to a server that the kubeconfig leaves unchecked: it needs no further warning."""

    def connect(self) -> None:
        super().connect()
        self.is_verified = True


class _UncheckedPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _UncheckedConnection


def manager_for(access: Access, credential: Credential) -> urllib3.PoolManager:
    """Return the connections to the server of ``access``, with ``credential``.

    Raises :class:`InvalidConfiguration` for a certificate, a key or a proxy that cannot be used.
    """
    cluster = access.cluster
    options: dict[str, Any] = {"maxsize": 2}  # keyword arguments of urllib3, of several types
    if cluster.server.startswith("https://"):
        options["ssl_context"] = _context(access, credential)
        if cluster.insecure:
            options["assert_hostname"] = False
        elif cluster.server_name:
            options["server_hostname"] = options["assert_hostname"] = cluster.server_name
    manager = _through(access, cluster.proxy or _environments_proxy(cluster.server), options)
    if cluster.insecure:
        manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": _UncheckedPool}
    return manager


def _through(access: Access, proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    if not proxy:
        return urllib3.PoolManager(**options)
    try:
        parts = urlsplit(proxy)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(proxy)
        login = f"{parts.username}:{parts.password or ''}" if parts.username else None
        return urllib3.ProxyManager(
            proxy, proxy_headers=make_headers(proxy_basic_auth=login) if login else None, **options
        )
    except (ValueError, LocationParseError) as error:
        raise InvalidConfiguration(
            f"{access.cluster.server}: the proxy of that cluster cannot be used",
            hint="proxies are http://host:port or https://host:port",
        ) from error


def _context(access: Access, credential: Credential) -> ssl.SSLContext:
    cluster = access.cluster
    try:
        authority = cluster.authority.decode("ascii") or None
        # With an authority of its own, no other may have signed the server's certificate.
        context = ssl.create_default_context(cadata=authority)
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidConfiguration(
            f"{cluster.server}: the certificate authority of that cluster is not PEM"
        ) from error
    # Newer Pythons refuse, by this flag, the authorities that many clusters have made for themselves.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if credential.certificate:
        # The ssl module reads a key from a file alone.
        with tempfile.TemporaryDirectory(prefix="digestry-") as directory:
            file = Path(directory) / "client.pem"
            file.touch(mode=0o600)
            file.write_bytes(credential.certificate + b"\n" + credential.key)
            try:
                context.load_cert_chain(file, password=lambda: "")
            except (OSError, ValueError) as error:
                raise InvalidConfiguration(
                    f"{cluster.server}: the client certificate of {shown(access.context)} cannot be used",
                    hint="certificate and key must be PEM, belong together, and have no passphrase",
                ) from error
    return context


def _environments_proxy(server: str) -> str:
    """Return the environment's proxy for ``server`` (HTTPS_PROXY, NO_PROXY …); empty for none."""
    parts = urlsplit(server)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or ""
    with contextlib.suppress(OSError):
        if not proxy or is_loopback(parts.netloc) or urllib.request.proxy_bypass(parts.netloc):
            return ""
    return proxy if "://" in proxy else f"http://{proxy}"
