"""Whose certificates are trusted, by each host that is connected to."""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from digestry.client.configuration.certificates import host_certificates
from digestry.client.configuration.rules import ClientCertificate, first
from digestry.client.options import ClientOptions
from digestry.client.transport_errors import CertificateChanged, is_refusal
from digestry.errors import InvalidConfiguration

_SYSTEM: Final = {"SSL_CERT_FILE": os.path.isfile, "SSL_CERT_DIR": os.path.isdir}
"""The environment's names for the system's certificates, and what they name."""


class Trust:
    """The certificates that are trusted, and those that are shown. Thread-safe.

    Trusted are the system's, and those in the files ``authorities``. If not ``verify``, any certificate is,
    and the first that is seen is the only one from then on. Of ``clients`` one is shown to servers that ask:
    the first, until a server refuses it.
    """

    def __init__(
        self,
        authorities: Sequence[Path] = (),
        *,
        clients: Sequence[ClientCertificate] = (),
        verify: bool = True,
    ) -> None:
        self.is_verified = verify
        self._authorities = tuple(authorities)
        self._clients = tuple(clients)
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._seen: str | None = None
        self._shown = 0

    @property
    def shown(self) -> int:
        """The number of the client certificate that is shown, among those that there are."""
        return self._shown

    def show_next(self, refused: int) -> bool:
        """Show another client certificate than the one whose number was ``refused``.

        Return False if there is no other, which has not been refused.
        """
        with self._lock:
            if refused == self._shown:
                if self._shown + 1 >= len(self._clients):
                    return False
                self._shown += 1
                self._context = None
            return True

    def begin(self) -> None:
        """Begin to make the TLS context, while the caller waits for a connection."""
        if self._context is None:
            threading.Thread(target=self._begin, name="digestry-trust", daemon=True).start()

    def _begin(self) -> None:
        with contextlib.suppress(InvalidConfiguration, OSError):  # whoever needs it hears of it
            self.context()

    def context(self) -> ssl.SSLContext:
        """Return the TLS context, made when it is first needed. Raises :class:`InvalidConfiguration`."""
        with self._lock:
            if self._context is None:
                self._context = self._make()
            return self._context

    def _make(self) -> ssl.SSLContext:
        for variable, is_there in _SYSTEM.items():
            named = os.environ.get(variable)
            places = (named or "").split(os.pathsep) if variable == "SSL_CERT_DIR" else [named or ""]
            if named and not any(map(is_there, places)):
                raise InvalidConfiguration(
                    f"{variable} names {named}, which is not there",
                    hint=f"correct {variable}, or unset it for the system's own certificates",
                )
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        if not self.is_verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for path in self._authorities:
            try:
                context.load_verify_locations(path)
            except (OSError, ssl.SSLError) as error:
                raise InvalidConfiguration(
                    f"cannot use {path} as the certificates of a CA: {_reason(error)}",
                    hint="it must be a file of certificates in PEM form that this user may read",
                ) from error
        if self._clients:
            _load(context, self._clients[self._shown])
        return context

    def without_clients(self) -> Trust:
        """Return the same trust in authorities, for another host on the way, such as a proxy."""
        return Trust(self._authorities) if self._clients or not self.is_verified else self

    def check(self, sock: ssl.SSLSocket) -> None:
        """Raise :class:`CertificateChanged` if nothing is verified, and the certificate is not the first."""
        if self.is_verified:
            return
        shown = hashlib.sha256(sock.getpeercert(binary_form=True) or b"").hexdigest()
        with self._lock:
            if self._seen is None:
                self._seen = shown
        if shown != self._seen:
            raise CertificateChanged("the certificate is not the one that was shown before")


def _load(context: ssl.SSLContext, client: ClientCertificate) -> None:
    def refuse() -> str:
        raise InvalidConfiguration(
            f"the key {client.key} has a passphrase",
            hint="digestry asks for none: give a key without one, such as `openssl pkey -in KEY` writes",
        )

    try:
        context.load_cert_chain(client.certificate, client.key, password=refuse)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfiguration(
            f"cannot use the client certificate {client.certificate} with {client.key}: {_reason(error)}",
            hint="both must be PEM files that this user may read, and the key must be the certificate's",
        ) from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is not PEM").lower().replace("_", " ")
    return error.strerror or str(error)


_Configured = tuple[tuple[Path, ...], tuple[ClientCertificate, ...]]
"""The authorities and the client certificates for one host."""


class HostTrusts:
    """The trust for each host, by the rules and the certificate directories of ``options``. Thread-safe."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self.usual = Trust(_files(options.authorities))
        self._of: dict[tuple[str, str], Trust] = {}
        self._unverified: dict[str, Trust] = {}

    def of(self, host: str, registry: str) -> Trust:
        """Return the trust for ``host[:port]``, which is asked on behalf of ``registry``.

        Without certificates of its own, a token server or a storage has the registry's authorities, but is
        not shown its client certificates. Raises :class:`InvalidConfiguration`.
        """
        with self._lock:
            trust = self._unverified.get(host) or self._of.get((host, registry))
            if trust is None:
                trust = self._of[host, registry] = self._make(host, registry)
            return trust

    def _make(self, host: str, registry: str) -> Trust:
        found = self._configured(host)
        if found is None and registry not in {"", host}:
            beside = self._configured(registry)
            found = None if beside is None else (beside[0], ())
        if found is None or not any(found):
            return self.usual
        authorities, clients = found
        return Trust((*_files(self._options.authorities), *authorities), clients=clients)

    def _configured(self, host: str) -> _Configured | None:
        options = self._options
        rules = options.registries.for_host(host) if options.registries is not None else []
        names = [host, host.removesuffix(":443")]
        files = next(
            (
                found
                for name in dict.fromkeys(names)
                if (found := host_certificates(options.certificate_directories, name)).directory is not None
            ),
            None,
        )
        if not rules and files is None:
            return None
        client = first(rule.client for rule in rules)
        authorities = tuple(path for rule in rules for path in rule.authorities)
        if client is not None:
            return authorities + (files.authorities if files else ()), (client,)
        return (authorities + files.authorities, files.clients) if files else (authorities, ())

    def may_try_anew(self, host: str, trust: Trust | None, error: ssl.SSLError, shown: int) -> bool:
        """Return whether ``host[:port]`` can be asked again after ``error``.

        Any certificate of it is accepted from now on, or it is shown another client certificate of ``trust``
        than the one whose number was ``shown``.
        """
        if isinstance(error, ssl.SSLCertVerificationError):
            return self.accept_any(host, error)
        return trust is not None and is_refusal(error) and trust.show_next(shown)

    def accept_any(self, host: str, error: ssl.SSLCertVerificationError) -> bool:
        """Accept any certificate of ``host[:port]`` from now on, and say why; return whether that is allowed.

        ``error`` is why the certificate is not trusted.
        """
        because = self._options.unverified_because(host)
        if because is None:
            return False
        with self._lock:
            if host in self._unverified:
                return True  # by another thread, a moment ago
            authorities, clients = self._configured(host) or ((), ())
            files = (*_files(self._options.authorities), *authorities)  # for a proxy on the way
            self._unverified[host] = Trust(files, clients=clients, verify=False)
        if self._options.tell is not None:
            self._options.tell(
                f"the certificate of {host} is NOT verified ({error.verify_message}), because {because}"
            )
        return True


def _files(path: Path | None) -> tuple[Path, ...]:
    return () if path is None else (path,)
