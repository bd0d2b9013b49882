"""PgBouncer in transaction mode: a pooler that gives each transaction another connection of the server's."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

from tests.postgresql import PASSWORD, USER, Cluster, as_server
from tests.support import free_port, lacking, open_directory, wait_until


@contextlib.contextmanager
def running_pgbouncer(cluster: Cluster) -> Iterator[int]:
    """Run it before all databases of ``cluster``; give its port."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        lacking("pgbouncer", "no such program (apt-get install pgbouncer)")
    with open_directory("digestry-pgbouncer-") as place:
        port = free_port()
        settings = place / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={cluster.port} user={USER} password='{PASSWORD}'\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 100\n"
        )
        settings.chmod(0o644)
        process = subprocess.Popen([program, "-q", settings], stderr=subprocess.DEVNULL, **as_server())
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
