"""``digestry serve``: run the registry."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from digestry.cli.output import note, say


@click.command()
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The directory that holds everything; made if it is not there.",
)
@click.option(
    "--listen", default="127.0.0.1:5000", show_default=True, metavar="HOST:PORT", help="Port 0: a free one."
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Server processes.")
@click.option(
    "--manifest-limit",
    type=click.IntRange(4 << 20, 64 << 20),
    default=4 << 20,
    show_default=True,
    help="The largest manifest to take, in bytes.",
)
def serve(root: Path, listen: str, workers: int, manifest_limit: int) -> None:
    """Run the registry.

    Prints one line, its URL, when it is ready; logs go to standard error. SIGTERM and SIGINT stop
    it after the requests under way. One server at a time may have a root.
    """
    from digestry.registry.config import RegistryConfig, parse_listen
    from digestry.registry.server import serve as run

    host, port = parse_listen(listen)
    if not (host.startswith("127.") or host in {"localhost", "::1"}):
        note(
            f"digestry: warning: {host} is not a loopback address, and this registry does not ask who"
            " its clients are: whoever reaches it may push and delete"
        )
    config = RegistryConfig(
        root=root.absolute(), host=host, port=port, workers=workers, manifest_limit=manifest_limit
    )

    def ready(url: str) -> None:
        say(url)
        sys.stdout.flush()

    run(config, ready=ready)
