"""An authority, a server and a client, each with a certificate that openssl makes."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support import program

_NEW: tuple[str, ...] = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@dataclass(frozen=True)
class Certificates:
    """PEM files, under the names that docker's client expects; the server's are beside them."""

    directory: Path

    @property
    def authority(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def server(self) -> tuple[Path, Path]:
        """The certificate and the key."""
        return self.directory / "server.pem", self.directory / "server-key.pem"

    @property
    def client(self) -> tuple[Path, Path]:
        """The certificate and the key."""
        return self.directory / "cert.pem", self.directory / "key.pem"

    def context(self, *, wants_client: bool = False) -> ssl.SSLContext:
        """What a server speaks TLS with; ``wants_client`` requires a certificate of the authority's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server)
        if wants_client:
            context.load_verify_locations(self.authority)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def make(directory: Path, names: str = "IP:127.0.0.1") -> Certificates:
    """Makes all of it in ``directory``; the server has ``names``, as openssl takes a subjectAltName."""
    directory.mkdir()
    _sign(directory, "ca", "/CN=an authority", "keyUsage=critical,keyCertSign,cRLSign", own="ca-key.pem")
    _sign(directory, "server", "/CN=an engine", f"subjectAltName={names}", own="server-key.pem")
    _sign(directory, "cert", "/CN=a client", "extendedKeyUsage=clientAuth", own="key.pem")
    return Certificates(directory)


def _sign(directory: Path, name: str, subject: str, extension: str, *, own: str) -> None:
    signer = [] if name == "ca" else ["-CA", "ca.pem", "-CAkey", "ca-key.pem"]
    subprocess.run(
        [
            *(program("openssl"), "req", "-x509", *_NEW, *signer, "-subj", subject, "-addext", extension),
            *("-keyout", own, "-out", f"{name}.pem"),
        ],
        cwd=directory,
        check=True,
        capture_output=True,
    )
