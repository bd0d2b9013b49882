"""An API server of a cluster in this process, and the papers that one needs to be let in."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import select
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from digestry.inventory.observation import ContainerObservation, Observation, Unseen
from digestry.inventory.sources.kubernetes import KubernetesSource, Where
from tests.inventory.fakes import RECORDED
from tests.support import program

TOKEN = "let-me-in"
LISTS = {
    "deployments": "/apis/apps/v1/deployments",
    "statefulsets": "/apis/apps/v1/statefulsets",
    "daemonsets": "/apis/apps/v1/daemonsets",
    "cronjobs": "/apis/batch/v1/cronjobs",
    "jobs": "/apis/batch/v1/jobs",
}


def constructed(name: str) -> Any:
    return json.loads((RECORDED / "kubernetes" / f"{name}.json").read_text())


@dataclass(frozen=True)
class Papers:
    """Files of PEM: an authority, what it signed for a server and for a user, and another authority."""

    directory: Path

    def path(self, name: str) -> Path:
        return self.directory / name

    def data(self, name: str) -> str:
        return base64.b64encode(self.path(name).read_bytes()).decode()

    @property
    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path("server.pem"), self.path("server.key"))
        context.load_verify_locations(self.path("ca.pem"))
        context.verify_mode = ssl.CERT_OPTIONAL
        return context


def make_papers(directory: Path) -> Papers:
    """New ones, signed on the spot: for 127.0.0.1, and for ``named.example``."""
    for name in ("ca", "other"):
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *(
                "-subj",
                f"/CN={name}",
                "-keyout",
                directory / f"{name}.key",
                "-out",
                directory / f"{name}.pem",
            ),
        )
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1"),
        ("named", "subjectAltName=DNS:named.example"),
        ("client", "extendedKeyUsage=clientAuth"),
    ):
        request, key = directory / f"{name}.csr", directory / f"{name}.key"
        (directory / f"{name}.ext").write_text(extension)
        _openssl(
            *(
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                f"/CN={name}",
            ),
            *("-keyout", key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-days", "2", "-in", request, "-CA", directory / "ca.pem"),
            *("-CAkey", directory / "ca.key", "-CAcreateserial", "-extfile", directory / f"{name}.ext"),
            *("-out", directory / f"{name}.pem"),
        )
    return Papers(directory)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run([program("openssl"), *arguments], check=True, capture_output=True)


@dataclass
class Asked:
    """One request."""

    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    user: str


Answer = Callable[["Handler", Asked], None]


@dataclass
class Cluster:
    """A running API server. ``lists`` are objects by path; ``answers`` go before them. ``users`` are
    the values of ``Authorization`` that are let in; a client certificate always is."""

    url: str
    lists: dict[str, list[Any]] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=lambda: {f"Bearer {TOKEN}"})
    asked: list[Asked] = field(default_factory=list)
    page: int = 500
    version: int = 100
    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    watches: list[Answer] = field(default_factory=list)
    """What the next watches get, one after another; then they get what is true."""
    forgotten: int = 0
    """Versions up to this one are compacted."""

    def paths(self) -> list[str]:
        return [one.path for one in self.asked]

    def watched(self) -> list[Asked]:
        return [one for one in self.asked if "watch" in one.query]

    def change(self, kind: str, pod: dict[str, Any], *, lose: bool = False) -> None:
        """A pod that comes (``ADDED``), changes or goes; with ``lose``, no watch tells of it."""
        self.version += 1
        pods = self.lists.setdefault("/api/v1/pods", [])
        name = pod["metadata"]["name"]
        pods[:] = [one for one in pods if one["metadata"]["name"] != name]
        if kind != "DELETED":
            pods.append(pod)
        metadata = {**pod["metadata"], "resourceVersion": str(self.version)}
        if not lose:
            event = {"type": kind, "object": {"kind": "Pod", **pod, "metadata": metadata}}
            self.events.append((self.version, event))

    def fill(self) -> None:
        """The constructed cluster."""
        self.lists["/api/v1/pods"] = constructed("pods")["items"]
        self.lists["/api/v1/nodes"] = constructed("nodes")["items"]
        for name, one in constructed("workloads").items():
            self.lists[LISTS[name]] = one["items"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        peer = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        asked = Asked(parts.path, query, dict(self.headers), "client" if peer else "")
        cluster = self.server.cluster
        cluster.asked.append(asked)
        with contextlib.suppress(OSError):
            if parts.path in cluster.answers:
                cluster.answers[parts.path](self, asked)
            elif not asked.user and self.headers.get("Authorization") not in cluster.users:
                self.say(401, status(401, "Unauthorized"))
            else:
                self._list(asked)

    def _list(self, asked: Asked) -> None:
        cluster = self.server.cluster
        resource = asked.path.rpartition("/")[2]
        if asked.path in cluster.forbidden or resource in cluster.forbidden:
            self.say(403, status(403, f'{resource} is forbidden: User "auditor" cannot list resource'))
            return
        objects = cluster.lists.get(asked.path)
        if objects is None:
            namespace, _, name = asked.path.removeprefix("/api/v1/namespaces/").partition("/")
            known = {one["metadata"].get("namespace") for many in cluster.lists.values() for one in many}
            if asked.path.startswith("/api/v1/namespaces/") and not name:
                found = namespace in known
                self.say(200 if found else 404, {"kind": "Namespace"} if found else status(404, "no"))
                return
            whole = asked.path.replace(
                f"/namespaces/{asked.path.split('/namespaces/')[-1].split('/')[0]}", ""
            )
            inside = asked.path.split("/namespaces/")[-1].split("/")[0]
            objects = [
                one for one in cluster.lists.get(whole, []) if one["metadata"].get("namespace") == inside
            ]
        size = min(int(asked.query.get("limit", "500")), cluster.page)
        start = int(asked.query.get("continue", "0"))
        following = str(start + size) if start + size < len(objects) else ""
        if "watch" in asked.query:
            (cluster.watches.pop(0) if cluster.watches else tell)(self, asked)
            return
        document = listing(objects[start : start + size], following)
        document["metadata"]["resourceVersion"] = str(cluster.version)
        if following and "labelSelector" not in asked.query:
            document["metadata"]["remainingItemCount"] = len(objects) - start - size
        self.say(200, document)

    def stream(self, *events: Any) -> None:
        """Begins an answer that comes in chunks, and sends some of it."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.more(*events)

    def more(self, *events: Any) -> None:
        for event in events:
            raw = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))

    def end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def say(self, code: int, body: Any, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)


def tell(handler: Handler, asked: Asked) -> None:
    """What a watch gets from a server that is in order: what happened since, a bookmark, and its end."""
    cluster = handler.server.cluster
    since = int(asked.query["resourceVersion"])
    if since < cluster.forgotten:
        handler.stream({"type": "ERROR", "object": status(410, "too old resource version")})
        handler.end()
        return
    handler.stream(*(event for version, event in cluster.events if version > since))
    handler.more(bookmark(cluster.version))
    handler.end()


def bookmark(version: int) -> dict[str, Any]:
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    return {"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}}


def listing(objects: list[Any], following: Any = "") -> dict[str, Any]:
    return {"kind": "List", "apiVersion": "v1", "metadata": {"continue": following}, "items": objects}


def status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    cluster: Cluster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or does not like the certificate, is what some tests are about."""


@contextlib.contextmanager
def running_cluster(tls: ssl.SSLContext | None) -> Iterator[Cluster]:
    with _Server(("127.0.0.1", 0), Handler) as server:
        scheme = "http"
        if tls is not None:
            scheme = "https"
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.cluster = Cluster(f"{scheme}://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.cluster
        finally:
            server.shutdown()


@contextlib.contextmanager
def running_proxy() -> Iterator[tuple[str, list[str]]]:
    """An HTTP proxy that connects through: its URL, and what it was asked for."""
    asked: list[str] = []

    class Through(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            target = self.rfile.readline().decode().split()[1]
            while self.rfile.readline().strip():
                pass
            asked.append(target)
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port)), 5) as other, contextlib.suppress(OSError):
                self.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                ends = {self.connection: other, other: self.connection}
                while True:
                    for end in select.select(list(ends), [], [], 5)[0]:
                        content = end.recv(65536)
                        if not content:
                            return
                        ends[end].sendall(content)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Through) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()


def kubeconfig(
    path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any] | None = None, **context: Any
) -> dict[str, str]:
    """Writes one with a context ``main``; the environment that names it."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "main",
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u", **context}}],
        "clusters": [{"name": "c", "cluster": dict(cluster)}],
        "users": [{"name": "u", "user": {"token": TOKEN} if user is None else dict(user)}],
    }
    path.write_text(json.dumps(document))
    return {"KUBECONFIG": str(path), "PATH": "/usr/bin:/bin"}


def observe(environment: Mapping[str, str], where: str = "", **options: Any) -> list[Observation]:
    options = {"timeout": 5.0} | options
    source = KubernetesSource("kubernetes", Where.parse(where), environment=environment, **options)
    return list(source.observe())


def problems(observations: list[Observation]) -> list[Unseen]:
    return [one for one in observations if isinstance(one, Unseen)]


def rows(observations: list[Observation]) -> dict[str, ContainerObservation]:
    """By name; each name once."""
    seen = [one for one in observations if isinstance(one, ContainerObservation)]
    found = {one.name: one for one in seen}
    assert len(found) == len(seen)
    return found
