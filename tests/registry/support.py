"""What the registry's tests share: uploads step by step, raw sockets, and what the server holds."""

from __future__ import annotations

import re
import socket
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.backends import open_blobs
from tests.support import PATIENCE, RegistryServer, Response

HTTP_FIRST_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


@dataclass
class Upload:
    """An upload under way at a running registry."""

    server: RegistryServer
    path: str

    @classmethod
    def begin(cls, server: RegistryServer, name: str, query: str = "") -> Upload:
        answer = server.request("POST", f"/v2/{name}/blobs/uploads/{query}")
        assert answer.status == 202, answer.body
        assert answer.headers["range"] == "0-0"
        return cls(server, answer.headers["location"])

    @property
    def id(self) -> str:
        return self.path.rpartition("/")[2]

    def patch(
        self, content: bytes, start: int | None = None, *, content_range: str | None = None
    ) -> Response:
        headers = {}
        if start is not None:
            content_range = f"{start}-{start + len(content) - 1}"
        if content_range is not None:
            headers["Content-Range"] = content_range
        return self.server.request("PATCH", self.path, content, headers)

    def put(self, digest: Digest | str, content: bytes = b"", **headers: str) -> Response:
        return self.server.request("PUT", f"{self.path}?digest={digest}", content, headers)

    def status(self) -> Response:
        return self.server.request("GET", self.path)

    def offset(self) -> int:
        """The bytes that count, as the catalog has them: ``Range: 0-0`` does not tell 0 from 1."""
        rows = query(self.server, "SELECT offset FROM uploads WHERE id = ?", self.id)
        assert len(rows) == 1
        return int(rows[0][0])


def query(server: RegistryServer, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Reads the running registry's catalog."""
    connection = sqlite3.connect(f"file:{server.root / 'catalog.db'}?mode=ro", uri=True, timeout=PATIENCE)
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def end_leases(server: RegistryServer) -> None:
    """As if the time had passed for which what was pushed and found is promised to be kept."""
    with closing(sqlite3.connect(server.root / "catalog.db", timeout=PATIENCE)) as connection, connection:
        connection.execute("UPDATE leases SET expires_at = 0")


def upload_rows(server: RegistryServer, name: str) -> int:
    return int(query(server, "SELECT count(*) FROM uploads WHERE repository = ?", name)[0][0])


def ingest_files(server: RegistryServer) -> set[str]:
    return set(open_blobs(server.root).ingests())


def on_disk(server: RegistryServer, digest: Digest) -> bool:
    return open_blobs(server.root).stat(digest) is not None


def events(server: RegistryServer, name: str) -> list[dict[str, Any]]:
    """The repository's journal, oldest first."""
    answer = server.request("GET", f"/v2/{name}/_digestry/journal?n=1000")
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found[::-1]


def put_manifest(
    server: RegistryServer,
    name: str,
    target: str,
    raw: bytes,
    media_type: str | None = media_types.OCI_MANIFEST,
) -> Response:
    """A manifest's PUT that may fail, unlike ``push_manifest``."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    return server.request("PUT", f"/v2/{name}/manifests/{target}", raw, headers)


def raw_exchange(
    server: RegistryServer,
    *pieces: bytes,
    answered: bool = True,
    quiet: float = 30.0,
    until_close: bool = True,
) -> bytes:
    """Sends bytes as they are; what came back until the server closed, or was ``quiet`` for so long.

    The first byte is waited for longer, unless it is not known that it will be ``answered``.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.settimeout(PATIENCE if answered else quiet)
            while part := connection.recv(1 << 16):
                received += part
                if not until_close:
                    break
                connection.settimeout(quiet)
        except (TimeoutError, ConnectionError):
            pass
    return received


def statuses(received: bytes) -> list[int]:
    """The status of every answer in what a connection sent."""
    return [int(code) for code in HTTP_FIRST_LINE.findall(received)]


def still_answers(server: RegistryServer) -> None:
    answer = server.request("GET", "/v2/")
    assert (answer.status, answer.body) == (200, b"{}")


def next_path(headers: Mapping[str, str]) -> str | None:
    """Where a ``Link`` with ``rel="next"`` leads."""
    link = headers.get("link")
    if link is None:
        return None
    match = re.fullmatch(r'<([^>]+)>; rel="next"', link)
    assert match is not None, link
    return match[1]


def every_page(server: RegistryServer, path: str, most: int = 100) -> list[Response]:
    """Follows ``Link`` to the very end."""
    pages: list[Response] = []
    following: str | None = path
    while following is not None:
        assert len(pages) < most, "the pages never end"
        answer = server.request("GET", following)
        assert answer.status == 200, answer.body
        pages.append(answer)
        following = next_path(answer.headers)
    return pages


def joined(pages: Sequence[Response], field: str) -> list[Any]:
    return [item for page in pages for item in page.json()[field]]


def edit_catalog(root: Path, *statements: str) -> None:
    """Change the catalog of a registry that does not run, as whoever has its file: nothing guards the journal
    and the log any more."""
    with closing(sqlite3.connect(root / "catalog.db")) as connection, connection:
        triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        for (name,) in triggers.fetchall():
            if name.startswith(("journal", "log_")):
                connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)


def rewrite_past(root: Path) -> None:
    """Change all entries of a registry's journal, and forget what was signed of them."""
    (root / "log-head.json").unlink()
    edit_catalog(
        root,
        "DELETE FROM log_entries",
        "DELETE FROM log_checkpoints",
        "UPDATE journal SET to_digest = replace(to_digest, 'f', 'e')",
    )
