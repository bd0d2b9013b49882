"""``/livez``, ``/readyz``, ``/healthz``: open to all, and right about what they say."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.backends import open_blobs
from tests.registry.access.support import guarded
from tests.registry.observability.support import configured
from tests.support import RegistryServer, running_registry, wait_until

GOOD = {"catalog": "ok", "disk": "ok", "space": "ok"}


def good(server: RegistryServer) -> dict[str, str]:
    """What a server says whose parts are all well: a store that is not on its disk is one of them."""
    return {**GOOD, "store": "ok"} if open_blobs(server.root).is_listed_in_catalog else GOOD


@pytest.mark.parametrize("path", ["/readyz", "/healthz"])
def test_ready(registry: RegistryServer, path: str) -> None:
    answer = registry.request("GET", path)
    assert (answer.status, answer.json()) == (200, {"status": "ok", "checks": good(registry)})
    assert answer.headers["cache-control"] == "no-store"
    head = registry.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert registry.request("POST", path).status == 405


def test_alive(registry: RegistryServer) -> None:
    answer = registry.request("GET", "/livez")
    assert (answer.status, answer.json()) == (200, {"status": "ok", "checks": {}})


@pytest.mark.long
def test_who_is_not_known_may_ask() -> None:
    with guarded() as server:
        for path in ("/livez", "/readyz", "/healthz"):
            assert server.request("GET", path).status == 200
        # Also with credentials that are wrong: it is not asked who it is.
        assert server.request("GET", "/readyz", headers={"Authorization": "Basic eDp5"}).status == 200


@pytest.mark.long
def test_too_little_space(tmp_path: Path) -> None:
    wanted = shutil.disk_usage(tmp_path).total * 2
    with configured(f"[health]\nfree = {wanted}\n") as server:
        answer = server.request("GET", "/readyz")
        assert answer.status == 503
        assert answer.json() == {
            "status": "unavailable",
            "checks": {**good(server), "space": f"less than the {wanted} bytes that are required are free"},
        }
        assert server.request("GET", "/livez").status == 200


@pytest.mark.long
def test_a_disk_and_a_catalog_that_fail() -> None:
    with running_registry() as server:
        assert server.request("GET", "/readyz").status == 200
        shutil.rmtree(server.root / "metrics")
        (server.root / "metrics").write_text("in the way")
        connection = sqlite3.connect(server.root / "catalog.db", timeout=20)
        connection.execute("ALTER TABLE journal RENAME TO gone")
        connection.close()

        def broken() -> bool:
            checks = server.request("GET", "/readyz").json()["checks"]
            return bool(checks["disk"] == "cannot be written: File exists" and checks["catalog"] != "ok")

        wait_until(broken, what="the answer that it does not work")
        answer = server.request("GET", "/readyz")
        assert answer.status == 503
        assert str(server.root) not in answer.body.decode()
        assert server.request("GET", "/livez").status == 200


@pytest.mark.long
def test_a_catalog_that_hangs_hides_nothing_else() -> None:
    with running_registry() as server:
        assert server.request("GET", "/readyz").status == 200
        # SQLite's own locks, which it waits for: as of a process that recovers the log, and takes its time.
        shared = os.open(server.root / "catalog.db-shm", os.O_RDWR)
        try:
            fcntl.lockf(shared, fcntl.LOCK_EX, 8, 120)

            def hangs() -> bool:
                checks = server.request("GET", "/readyz").json()["checks"]
                return bool(checks == {**GOOD, "catalog": "no answer within 3 s"})

            wait_until(hangs, what="the answer that the catalog hangs")
            assert server.request("GET", "/livez").status == 200
        finally:
            os.close(shared)
        wait_until(lambda: server.request("GET", "/readyz").status == 200, what="a catalog that answers")
