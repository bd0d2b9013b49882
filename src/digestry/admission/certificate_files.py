"""The certificate of the webhook in files that another program renews, such as cert-manager."""

from __future__ import annotations

import logging
import ssl
import tempfile
from pathlib import Path
from typing import Final

from cryptography import x509

from digestry.errors import InvalidConfiguration

log: Final = logging.getLogger("digestry.admission")


class ServerCertificate:
    """What new connections get: a TLS context whose certificate may be replaced at any time."""

    def __init__(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.expires = 0.0
        """In seconds since 1970; 0 if there is no certificate yet."""
        self._content: tuple[bytes, bytes] | None = None

    def use(self, certificate: bytes, key: bytes, where: str) -> bool:
        """Use a certificate with its chain, and its key, in PEM; return whether it is another one.

        Raises :class:`InvalidConfiguration` if they cannot be used: then nothing has changed.
        """
        if self._content == (certificate, key):
            return False
        try:
            leaf = x509.load_pem_x509_certificate(certificate)
            # The ssl module reads files alone. A trial first: a failed load leaves a context half changed.
            with tempfile.TemporaryDirectory(prefix="digestry-") as directory:
                file = Path(directory) / "pair.pem"
                file.touch(mode=0o600)
                file.write_bytes(certificate.rstrip() + b"\n" + key)
                for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.context):
                    context.load_cert_chain(file, password=_no_password)
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else str(error)
            raise InvalidConfiguration(
                f"{where}: the certificate and its key cannot be used: {reason}",
                hint="PEM is required: the certificate with its chain, and its key, without a password",
            ) from error
        self._content = certificate, key
        self.expires = leaf.not_valid_after_utc.timestamp()
        return True


class CertificateFiles:
    """A certificate and its key in two files."""

    def __init__(self, certificate: Path, key: Path, used: ServerCertificate) -> None:
        self._certificate = certificate
        self._key = key
        self._used = used

    def refresh(self) -> bool:
        """Read the files, and return whether they have another certificate, which is now in use.

        Raises :class:`InvalidConfiguration`.
        """
        try:
            content = self._certificate.read_bytes(), self._key.read_bytes()
        except OSError as error:
            where = error.filename or self._certificate
            raise InvalidConfiguration(
                f"cannot read {where}: {(error.strerror or str(error)).lower()}"
            ) from error
        changed = self._used.use(*content, str(self._certificate))
        if changed:
            log.info("%s: new connections get this certificate", self._certificate)
        return changed


def _no_password() -> str:
    raise ValueError("the key has a password")  # rather than asking for it on the terminal
