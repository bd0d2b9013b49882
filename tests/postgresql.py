"""A PostgreSQL server for tests: a private cluster on a free port, whose texts no ICU locale orders by bytes.

Debian's package ``postgresql-15`` has the programs. Where they are missing, tests that need them are skipped;
``DIGESTRY_REQUIRE_PEERS=1`` makes that an error.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg

from digestry.backend import StoreLocations, open_backend
from tests.support import free_port, lacking, open_directory

USER: Final = "digestry"
PASSWORD: Final = "a%secret/of:the@tests"
"""The password of the user that owns the databases: no superuser."""
_URL_PASSWORD: Final = "a%25secret%2Fof%3Athe%40tests"
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "64MB",
    # It would analyse tables, and so change plans, in whichever test it meets.
    "autovacuum": "off",
    "log_min_messages": "fatal",
    # A server that is killed loses nothing by these: only a machine that loses power would.
    "fsync": "off",
    "full_page_writes": "off",
}


@functools.cache
def programs() -> Path | None:
    """Return the directory of the newest server's programs; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


def require_programs() -> Path:
    """Return the directory of the server's programs, or skip the test."""
    return programs() or lacking("postgresql", "no such program (apt-get install postgresql-15)")


def as_server() -> dict[str, Any]:
    """Return how a process runs as a user that the server accepts: root may not run one."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": ()}


class Cluster:
    """A PostgreSQL server of a test process, in a directory of its own."""

    def __init__(self, directory: Path, *, settings: dict[str, str] | None = None) -> None:
        self.programs = require_programs()
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self._numbers = itertools.count(1)
        self._settings = {**_SETTINGS, **(settings or {})}
        self._was_started = False

    def run(self, program: str, *arguments: str, check: bool = True) -> None:
        """Run one of the server's programs as the server's user."""
        with (self.directory / "log").open("ab") as log:
            subprocess.run(
                [self.programs / program if "/" not in program else program, *arguments],
                check=check,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
                **as_server(),
            )

    def make(self) -> None:
        """Make the cluster, and a user that is no superuser."""
        for user in as_server().items():
            if user[0] == "user":
                os.chown(self.directory, user[1], -1)
        (self.directory / "log").touch()
        locale = ("--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8", "--encoding=UTF8")
        self.run("initdb", "-D", str(self.data), "--auth=trust", "--username=postgres", "--no-sync", *locale)
        access = self.data / "pg_hba.conf"
        access.write_text(
            "host all postgres 127.0.0.1/32 trust\n"
            "host replication postgres 127.0.0.1/32 trust\n"
            "host all all 127.0.0.1/32 scram-sha-256\n"
        )
        self.start()
        with self.superuser() as connection:
            connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")

    def start(self) -> None:
        """Start the server. The first time, a port that another process took meanwhile is not insisted on."""
        for _ in range(2):
            try:
                self._start()
            except subprocess.CalledProcessError:
                if self._was_started:
                    raise
                self.port = free_port()
            else:
                self._was_started = True
                return
        self._start()

    def _start(self) -> None:
        options = " ".join(f"-c {name}='{value}'" for name, value in self._settings.items())
        self.run(
            "pg_ctl", "-D", str(self.data), "-w", "-l", str(self.directory / "server.log"),
            "-o", f"-c port={self.port} {options}", "start",
        )  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop", check=False)

    @property
    def runs(self) -> bool:
        """Whether the server was started, and not stopped since."""
        return (self.data / "postmaster.pid").exists()

    def standby(self, directory: Path) -> Cluster:
        """Start another server that follows this one, and return it."""
        directory.mkdir()
        for name, number in as_server().items():
            if name == "user":
                os.chown(directory, number, -1)
        follower = Cluster(directory, settings=self._settings)
        source = f"host=127.0.0.1 port={self.port} user=postgres"
        self.run("pg_basebackup", "-D", str(follower.data), "-d", source, "-R", "-X", "stream", "-c", "fast")
        (directory / "log").touch()
        follower.start()
        return follower

    def base_backup(self, directory: Path) -> None:
        """Copy the cluster while it runs, without the log that ``archive_command`` keeps."""
        source = f"host=127.0.0.1 port={self.port} user=postgres"
        self.run("pg_basebackup", "-D", str(directory), "-d", source, "-X", "none", "-c", "fast")

    def promote(self) -> None:
        """Let a server that follows another one take changes."""
        self.run("pg_ctl", "-D", str(self.data), "-w", "promote")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    @contextlib.contextmanager
    def superuser(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        """Open a connection of the superuser's."""
        url = f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection

    def new_database(self, *, migrated: bool = False) -> str:
        """Make a database, empty or with a catalog's tables; return its URL for the user that owns it."""
        name = f"registry_{next(self._numbers)}"
        template = self._migrated() if migrated else "template0"
        with self.superuser() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {USER} TEMPLATE {template}")
        return self.url(name)

    @functools.cache  # noqa: B019 - a test process has one or two
    def _migrated(self) -> str:
        """Return the name of a database with the tables of a catalog, from which others are copied."""
        url = self.new_database()
        catalog = open_backend(self.directory, stores=StoreLocations(database=url)).open_catalog()
        catalog.migrate()
        catalog.close()
        return url.rpartition("/")[2]

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        with self.superuser() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def url(self, name: str, *, port: int | None = None) -> str:
        return f"postgresql://{USER}:{_URL_PASSWORD}@127.0.0.1:{port or self.port}/{name}"


@contextlib.contextmanager
def running_cluster(**settings: str) -> Iterator[Cluster]:
    """Run a server of the caller's own. ``{directory}`` in one of its ``settings`` is its directory.

    Its directory is no test's: the server's user must reach it.
    """
    require_programs()
    with open_directory("digestry-pg-") as directory:
        cluster = Cluster(
            directory,
            settings={name: value.replace("{directory}", str(directory)) for name, value in settings.items()},
        )
        try:
            cluster.make()
            yield cluster
        finally:
            cluster.stop()
