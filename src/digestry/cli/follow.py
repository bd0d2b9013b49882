"""``digestry follow``: keep a verified copy of another registry's log."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from digestry.cli import exit_codes
from digestry.cli.log_options import trust_options
from digestry.cli.output import complain, printable, say
from digestry.cli.timeout_options import Seconds, timeout_option

if TYPE_CHECKING:
    from digestry.cli.log_trust import TrustOptions
    from digestry.follower.follower import Follower


@click.command()
@click.argument("registry", metavar="URL")
@click.option(
    "--directory",
    "-C",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the copy is; one follower each."
    "  [default: $STATE_DIRECTORY, or a directory beside the local store]",
)
@click.option(
    "--repository",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="The repositories whose sealed entries are opened, such as 'team/**'; repeatable.  [default: all]",
)
@click.option(
    "--interval",
    type=Seconds(1, 86400),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="The pause between two looks.",
)
@click.option("--once", is_flag=True, help="Look once, and exit: 1 if there is an alarm.")
@click.option("--recheck", is_flag=True, help="Verify all of the copy again, and copy what is missing.")
@click.option("--listen", metavar="HOST:PORT", help="Serve the history from the copy, read-only, over HTTP.")
@click.option(
    "--serve-sealed",
    is_flag=True,
    help="Serve what was opened of repositories that not everybody may read, too: to anybody who asks.",
)
@click.option("--on-alarm", metavar="COMMAND", help="Run this at an alarm, which is in its environment.")
@click.option("--alarm-url", metavar="URL", help="Post an alarm there, as a CloudEvent.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="The format of the log on standard error.",
)
@trust_options
@timeout_option
def follow(
    *,
    registry: str,
    directory: Path | None,
    patterns: tuple[str, ...],
    interval: float,
    once: bool,
    recheck: bool,
    listen: str | None,
    serve_sealed: bool,
    on_alarm: str | None,
    alarm_url: str | None,
    log_format: Literal["text", "json"],
    stated: TrustOptions,
) -> None:
    """Keep a verified copy of the transparency log of the registry URL, and raise an alarm at a fork.

    Each checkpoint must continue the one before it, and each entry is verified before it is kept. At a
    contradiction nothing is copied, both checkpoints are kept as evidence, and the alarm is told: in the log,
    to --alarm-url and by --on-alarm. Killed at any time, it goes on where it was.

    --listen serves where tags pointed, from the copy, also while the registry is away (docs/follow.md).
    """

    from digestry.agent.log_lines import start_log
    from digestry.cli.log_trust import open_verifier
    from digestry.cli.sessions import client_options
    from digestry.cli.settings import load
    from digestry.client.connection import Connection
    from digestry.file_locks import locked
    from digestry.follower.alarms import Alarms, Listeners
    from digestry.follower.follower import Follower
    from digestry.fsio import PRIVATE, make_directory
    from digestry.model.name_pattern import check_pattern
    from digestry.verifier.seen_logs import SeenLogs

    start_log(log_format)
    settings = load()
    options = client_options(settings)
    if not once:
        options = options.replace(retries=0, patience=60.0, waiting=None, longest_command=None)
    for pattern in patterns:
        check_pattern(pattern)
    address = None if listen is None else _address(listen)
    connection = Connection(options)
    host = _host(registry, connection)
    place = directory or _directory(settings.store, host)
    make_directory(place, mode=PRIVATE)
    with contextlib.ExitStack() as opened:
        opened.enter_context(
            locked(place / ".lock", wait=False, held=f"another follower uses {place}", mode=0o600)
        )
        opened.callback(connection.close)
        verifier = open_verifier(settings, stated)
        verifier.seen = SeenLogs(place / "seen")
        follower = Follower(
            connection,
            host,
            place,
            verifier,
            Alarms(place / "alarm.json", Listeners(alarm_url, on_alarm), connection.transport),
            patterns=patterns or ("**",),
            with_sealed=serve_sealed,
        )
        opened.callback(follower.close)
        if recheck:
            follower.recheck()
        if once:
            _once(follower)
        else:
            _run(follower, interval, address)


def _once(follower: Follower) -> None:
    found = follower.round()
    if found.alarm:
        complain(f"ALARM: {found.alarm}")
        raise click.exceptions.Exit(exit_codes.FINDINGS)
    opened = f", {found.opened} opened" if found.opened else ""
    say(printable(f"{follower.host}: {found.size} entries, {found.new} of them new{opened}"))


def _run(follower: Follower, interval: float, address: tuple[str, int] | None) -> None:
    import signal
    import threading

    from digestry.agent.service_manager import ServiceManager
    from digestry.follower.http_server import serving
    from digestry.follower.serving import CopyServer
    from digestry.verifier.log_view import utc_now

    ended = threading.Event()
    manager = ServiceManager()
    server = CopyServer(follower, utc_now)

    def heard(problem: str) -> None:
        server.heard(problem)
        manager.tell("WATCHDOG=1")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _, __: ended.set())
    with contextlib.ExitStack() as opened:
        if address is not None:
            opened.enter_context(serving(server.application(), *address))
        manager.tell("READY=1")
        follower.run(interval, ended, heard)
        manager.tell("STOPPING=1")


def _host(registry: str, connection: object) -> str:
    from urllib.parse import urlsplit

    from digestry.client.connection import Connection
    from digestry.errors import InvalidConfiguration
    from digestry.model.reference import check_host

    assert isinstance(connection, Connection)  # noqa: S101 - for the type checker
    parts = urlsplit(registry if "://" in registry else f"//{registry}")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise InvalidConfiguration(
            f"{registry} is not a registry", hint="write https://HOST[:PORT], or HOST[:PORT]"
        )
    host = check_host(parts.netloc)
    if parts.scheme == "http" and not connection.options.may_be_plain(host):
        raise InvalidConfiguration(
            f"{registry}: plain HTTP is not allowed for {host}",
            hint=f"digestry config set insecure-registries {host}",
        )
    if parts.scheme in {"http", "https"}:
        connection.transport.place(host, f"{parts.scheme}://{host}")
    elif parts.scheme:
        raise InvalidConfiguration(f"{registry}: only http and https are spoken to registries")
    return host


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.UsageError(f"--listen {text}: HOST:PORT is required, such as 127.0.0.1:5080.")
    return host.strip("[]"), int(port)


def _directory(store: Path, host: str) -> Path:
    import os
    from urllib.parse import quote

    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(given) if given else store.with_name("followed") / quote(host, safe=".:[]-")
