"""Registries with users and rules, and how the tests log in."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import bcrypt

from digestry.model.digest import Digest
from tests.support import RegistryServer, Response, descriptor, start_registry

PASSWORDS = {"alice": "wonder land", "bob": "builder", "carol": "pass:with:colons\u00fc"}
RULES = """
[[rule]]
who = ["alice"]
repository = "team/**"
actions = ["pull", "push", "move-tag", "delete", "audit"]

[[rule]]
who = "bob"
repository = ["team/**", "bob/*"]
actions = ["pull"]

[[rule]]
who = "bob"
repository = "bob/*"
actions = ["push"]

[[rule]]
who = "carol"
repository = "**"
actions = ["admin"]

[[rule]]
who = "robot$ci*"
repository = "team/**"
actions = ["pull", "push"]

[[rule]]
who = "anonymous"
repository = "public/**"
actions = ["pull"]
"""


def htpasswd(passwords: Mapping[str, str]) -> str:
    """The lines of a file, with the cheapest hashes there are."""
    return "".join(
        f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
        for name, password in passwords.items()
    )


def basic(name: str, password: str | None = None) -> dict[str, str]:
    pair = f"{name}:{PASSWORDS[name] if password is None else password}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class As:
    """A registry, asked by somebody."""

    server: RegistryServer
    headers: Mapping[str, str]

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        return self.server.request(method, path, body, {**self.headers, **(headers or {})})

    def push_blob(self, name: str, content: bytes) -> Response:
        return self.request("POST", f"/v2/{name}/blobs/uploads/?digest={Digest.of(content)}", content)

    def push_image(self, name: str, tag: str, layer: bytes = b"layer") -> Response:
        """Pushes a small image; the answer to the first request that was refused, or the last."""
        root = {"type": "layers", "diff_ids": [str(Digest.of(layer))]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": root}).encode()
        for content in (config, layer):
            answer = self.push_blob(name, content)
            if answer.status != 201:
                return answer
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": descriptor("application/vnd.oci.image.config.v1+json", Digest.of(config), len(config)),
            "layers": [
                descriptor("application/vnd.oci.image.layer.v1.tar", Digest.of(layer), len(layer)),
            ],
        }
        raw = json.dumps(manifest).encode()
        return self.request("PUT", f"/v2/{name}/manifests/{tag}", raw, {"Content-Type": kind})


def of(server: RegistryServer, name: str) -> As:
    return As(server, basic(name))


def nobody(server: RegistryServer) -> As:
    return As(server, {})


def token(
    server: RegistryServer, *scopes: str, headers: Mapping[str, str] | None = None, **query: str
) -> dict[str, Any]:
    """What the token endpoint gives."""
    pairs = [*query.items(), *(("scope", scope) for scope in scopes)]
    answer = server.request("GET", f"/token?{urlencode(pairs)}", headers=headers)
    assert answer.status == 200, answer.body
    document: dict[str, Any] = answer.json()
    return document


def challenge(answer: Response) -> dict[str, str]:
    """The parameters of a 401's challenge, with its scheme."""
    assert answer.status == 401, (answer.status, answer.body)
    scheme, _, rest = answer.headers["www-authenticate"].partition(" ")
    return {"scheme": scheme, **dict(re.findall(r'(\w+)="([^"]*)"', rest))}


@contextlib.contextmanager
def guarded(
    configuration: str = RULES, *arguments: str, auth: str = "", users: Mapping[str, str] | None = None
) -> Iterator[RegistryServer]:
    """A registry with the users above and this configuration; its files are beside its root."""
    with tempfile.TemporaryDirectory(prefix="digestry-test-") as name:
        directory = Path(name)
        (directory / "users").write_text(htpasswd(PASSWORDS if users is None else users))
        file = directory / "registry.toml"
        file.write_text(f'[auth]\nhtpasswd = "users"\n{auth}\n{configuration}')
        server = start_registry(directory / "root", "--config", str(file), *arguments)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.stop()
