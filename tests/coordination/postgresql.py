"""A PostgreSQL server of the tests' own, and a pooler before it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import free_port, lacking, wait_until

_FOLDERS = ("/usr/lib/postgresql/15/bin",)


def _program(name: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), *_FOLDERS])
    return shutil.which(name, path=path) or lacking(name, "no such program")


def _as_ordinary_user() -> dict[str, object]:
    return {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}


@contextlib.contextmanager
def running_postgresql() -> Iterator[str]:
    """A server; gives the URL of an empty database."""
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    user = _as_ordinary_user()
    if user:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            lacking("postgresql", "the server does not run as root, and there is no user postgres")
    with tempfile.TemporaryDirectory(prefix="digestry-pg-") as folder:
        place = Path(folder)
        if user:
            shutil.chown(place, "postgres", "postgres")
        data, port = place / "data", free_port()
        quiet = {"stdout": subprocess.DEVNULL, **user}
        make = [initdb, "-D", str(data), "-A", "trust", "-U", "digestry", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(make, check=True, **quiet)  # type: ignore[call-overload]
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={place}"
        control = [pg_ctl, "-D", str(data), "-w"]
        start = [*control, "-l", str(place / "log"), "-o", options, "start"]
        subprocess.run(start, check=True, **quiet)  # type: ignore[call-overload]
        try:
            yield f"postgresql://digestry@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, **quiet)  # type: ignore[call-overload]


@contextlib.contextmanager
def running_pgbouncer(port_of_server: int) -> Iterator[int]:
    """PgBouncer in transaction mode before a server; gives its port."""
    pgbouncer = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if pgbouncer is None:
        pytest.skip("needs pgbouncer: no such program")
    with tempfile.TemporaryDirectory(prefix="digestry-pgb-") as folder:
        place, port = Path(folder), free_port()
        settings = place / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={port_of_server} user=digestry\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            "pool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 100\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        settings.chmod(0o644)
        place.chmod(0o755)
        user = _as_ordinary_user()
        command = [pgbouncer, "-q", str(settings)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **user)  # type: ignore[call-overload]
        try:
            wait_until(lambda: _listens(port), what="the start of PgBouncer")
            yield port
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
