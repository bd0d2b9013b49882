"""Where the webhook's replicas share their certificate: a Secret of the cluster, or a directory."""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Final, Protocol

import msgspec

from digestry import fsio
from digestry.admission.certificate_authority import CertificateSet
from digestry.errors import InvalidConfiguration, Refused, RemoteNotFound
from digestry.file_locks import locked
from digestry.inventory.kube.api import KubeAPI
from digestry.model.json_types import prepared
from digestry.model.json_values import as_list, as_object, as_text

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
CONFLICT: Final = 409

_FILE: Final = "certificates.json"
_FIELDS: Final = {
    "ca.crt": "authorities",
    "ca.key": "authority_key",
    "tls.crt": "certificate",
    "tls.key": "key",
}


class CertificateStore(Protocol):
    """One set of certificates, shared by replicas."""

    def read(self) -> tuple[CertificateSet | None, str]:
        """Return the set, None if there is none yet, and its version. Raises
        :class:`~digestry.errors.DigestryError`."""

    def write(self, found: CertificateSet, version: str) -> bool:
        """Store a set in place of that of ``version``; return False if another replica was faster."""


class SecretStore:
    """A Secret, with the fields of ``kubernetes.io/tls`` and the authority's beside them. It may be there
    already, without them."""

    def __init__(self, api: KubeAPI, secret: str) -> None:
        self._api = api
        self._namespace, _, self._name = secret.partition("/")
        self._all = f"/api/v1/namespaces/{self._namespace}/secrets"

    def read(self) -> tuple[CertificateSet | None, str]:
        """Return the set in the Secret, and the Secret's version."""
        try:
            document = as_object(self._api.get(f"{self._all}/{self._name}", "get secrets"))
        except RemoteNotFound:
            return None, ""
        version = as_text(as_object(document.get("metadata")).get("resourceVersion"))
        data = as_object(document.get("data"))
        if not as_text(data.get("tls.key")):
            return None, version  # made empty, for this webhook to fill
        try:
            values = {field: base64.b64decode(as_text(data.get(key))) for key, field in _FIELDS.items()}
        except (binascii.Error, ValueError) as error:
            raise InvalidConfiguration(
                f"the Secret {self._namespace}/{self._name} has something that is not base64"
            ) from error
        return CertificateSet(**values), version

    def write(self, found: CertificateSet, version: str) -> bool:
        """Create or change the Secret."""
        data = {key: base64.b64encode(getattr(found, field)).decode() for key, field in _FIELDS.items()}
        try:
            if version:
                # Only what is the webhook's own: the Secret may have labels and annotations of others.
                patch = {"metadata": {"resourceVersion": version}, "data": data}
                path = f"{self._all}/{self._name}"
                self._api.send("PATCH", path, "patch secrets", patch, MERGE_PATCH)
            else:
                document = {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": self._name, "namespace": self._namespace},
                    "data": data,
                }
                self._api.send("POST", self._all, "create secrets", document, JSON)
        except Refused as error:
            if error.status == CONFLICT:
                return False
            raise
        return True


class _Stored(msgspec.Struct, frozen=True):
    authorities: str
    authority_key: str
    certificate: str
    key: str


class DirectoryStore:
    """A directory, for one host. ``ca.crt`` in it is for whoever has to trust the webhook."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / _FILE

    def read(self) -> tuple[CertificateSet | None, str]:
        """Return the set in the directory, and a version of it."""
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            raise InvalidConfiguration(
                f"cannot read {self._file}: {(error.strerror or str(error)).lower()}"
            ) from error
        try:
            stored = msgspec.json.decode(content, type=prepared(_Stored))
        except msgspec.DecodeError as error:
            raise InvalidConfiguration(
                f"{self._file} cannot be read: {error}", hint="remove it, and the webhook makes it anew"
            ) from error
        values = {name: text.encode() for name, text in msgspec.structs.asdict(stored).items()}
        return CertificateSet(**values), hashlib.sha256(content).hexdigest()

    def write(self, found: CertificateSet, version: str) -> bool:
        """Replace the set in the directory."""
        fsio.make_directory(self._directory, mode=fsio.PRIVATE)
        with locked(self._directory / ".lock"):
            if self.read()[1] != version:
                return False
            stored = _Stored(*(getattr(found, field).decode() for field in _FIELDS.values()))
            # One file has it all, so that no reader gets halves of two sets.
            fsio.write_file(self._file, msgspec.json.encode(stored), mode=0o600)
            fsio.write_file(self._directory / "ca.crt", found.authorities, mode=0o644)
        return True


class TrustedAuthority:
    """The ``caBundle`` of a ValidatingWebhookConfiguration: whom API servers trust to be the webhook."""

    def __init__(self, api: KubeAPI, name: str) -> None:
        self._api = api
        self._path = f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}"
        self._name = name

    def trust(self, authorities: bytes) -> bool:
        """Have API servers trust ``authorities``, PEM; return whether they did already. Raises
        :class:`~digestry.errors.DigestryError`."""
        what = "validatingwebhookconfigurations"
        document = as_object(self._api.get(self._path, f"get {what}"))
        wanted = base64.b64encode(authorities).decode()
        patch: list[dict[str, object]] = []
        for number, value in enumerate(as_list(document.get("webhooks"))):
            webhook = as_object(value)
            if as_text(as_object(webhook.get("clientConfig")).get("caBundle")) == wanted:
                continue
            # The test: the list may have changed since it was read.
            patch.append({"op": "test", "path": f"/webhooks/{number}/name", "value": webhook.get("name")})
            path = f"/webhooks/{number}/clientConfig/caBundle"
            patch.append({"op": "add", "path": path, "value": wanted})
        if not patch:
            return True
        self._api.send("PATCH", self._path, f"patch {what}", patch, JSON_PATCH)
        return False
