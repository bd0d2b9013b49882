"""``digestry agent``: report what starts and stops here to a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from digestry.cli import exit_codes

if TYPE_CHECKING:
    from digestry.inventory.runs import Follower

_MEGABYTE = 1 << 20


@click.command()
@click.option("--registry", required=True, metavar="URL", help="The registry: https://HOST[:PORT].")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file with the agent's token. It is read before each report.",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="KIND[:WHERE]",
    help="Where containers run, as for `audit`; repeatable.  [default: the engines of this machine]",
)
@click.option("--place", help="The name of this host or cluster.  [default: the host's name]")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="The directory for what is not sent yet; one agent each."
    "  [default: $STATE_DIRECTORY, or a directory of this user]",
)
@click.option(
    "--interval",
    type=click.IntRange(1, 3600),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="The most seconds between two reports.",
)
@click.option(
    "--buffer",
    type=click.IntRange(1, 65536),
    default=64,
    show_default=True,
    metavar="MB",
    help="The most megabytes that are kept while the registry is away.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="The format of the log on standard error.",
)
@click.option("--once", is_flag=True, help="Report what runs now, and exit.")
def agent(
    *,
    registry: str,
    token_file: Path,
    sources: tuple[str, ...],
    place: str | None,
    state_dir: Path | None,
    interval: int,
    buffer: int,
    log_format: Literal["text", "json"],
    once: bool,
) -> None:
    """Report to a registry what runs here, and what starts and stops, until SIGTERM or SIGINT.

    The registry keeps it as the fleet's history (`digestry fleet`). While it cannot be reached, what
    happens is kept on disk, and sent later. The token must be for this place (docs/agent.md).

    With --once, exit code 3 if not everything was seen, or the registry did not take it.
    """
    import signal
    import socket

    from digestry.agent.agent import Agent, AgentOptions
    from digestry.agent.log_lines import start_log
    from digestry.cli.sessions import client_options
    from digestry.cli.settings import load
    from digestry.client.fleet_reports import FleetIntake
    from digestry.client.transport import Transport
    from digestry.file_locks import locked
    from digestry.fsio import PRIVATE, make_directory

    start_log(log_format)
    options = client_options(load()).replace(
        retries=0, patience=60.0, waiting=None, longest_command=None, tell=None
    )
    intake = FleetIntake(Transport(options), registry)
    followers = _followers(sources)
    state = state_dir or _state_directory()
    make_directory(state, mode=PRIVATE)
    with locked(state / ".lock", wait=False, held=f"another agent uses {state}"):
        running = Agent(
            intake,
            followers,
            AgentOptions(
                place=place or socket.gethostname(),
                token_file=token_file,
                state=state,
                interval=interval,
                buffer_limit=buffer * _MEGABYTE,
            ),
        )
        if once:
            if not running.run_once():
                raise click.exceptions.Exit(exit_codes.REMOTE)
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _, __: running.end())
        running.run()


def _followers(sources: tuple[str, ...]) -> list[Follower]:
    from digestry.inventory.follower_selection import followers_here, parse_follower

    if sources:
        return [parse_follower(text) for text in dict.fromkeys(sources)]
    return followers_here()


def _state_directory() -> Path:
    import os

    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/digestry-agent")
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "digestry-agent"
