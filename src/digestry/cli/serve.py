"""``digestry serve``: run the registry."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli.output import say

if TYPE_CHECKING:
    from typing import Unpack

    from starlette.types import Receive, Scope, Send

    from digestry.backend import Backend
    from digestry.registry.config import Options, RegistryConfig
    from digestry.registry.maintenance import Job
    from digestry.registry.mounts import Mounts
    from digestry.registry.page_host import PageHost
    from digestry.registry.pull_through.config import MirrorConfig
    from digestry.registry.pull_through.upstream import Upstream
    from digestry.web.app import WebApp


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="registry.toml: users, rules, TLS, limits (docs/registry.md). Options override it.",
)
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="The directory for everything; it is made if it does not exist.",
)
@click.option(
    "--listen", metavar="HOST:PORT|unix:PATH", help="Port 0: a free one.  [default: 127.0.0.1:5000]"
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Server processes.  [default: one a core, up to 4; 1 with a database server]",
)
@click.option(
    "--manifest-limit",
    type=click.IntRange(4 << 20, 64 << 20),
    help="The largest manifest to accept, in bytes.  [default: 4194304]",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="The format of the log on standard error.  [default: text]",
)
@click.option(
    "--allow-anonymous",
    is_flag=True,
    default=None,
    help="Listen on an address that others can reach, without logins.",
)
def serve(config: Path | None, **options: Unpack[Options]) -> None:
    """Run the registry.

    It prints one line, its URL, when it is ready; logs go to standard error. SIGTERM and SIGINT stop
    it after the requests under way. SIGHUP reads FILE of --config again: rules, users, retention,
    webhooks and limits change without a restart. A root can have one server at a time.
    """
    from digestry.registry.config import load
    from digestry.registry.server import serve as run

    loaded = load(config, options)
    again = None if config is None else partial(load, config, options)

    def ready(url: str) -> None:
        say(url)
        sys.stdout.flush()

    make_mounts = pages if loaded.web.enabled else None
    run(
        loaded,
        ready=ready,
        make_upstream=upstream,
        make_mounts=make_mounts,
        make_jobs=further_jobs,
        read_again=again,
    )


def further_jobs(config: RegistryConfig, backend: Backend) -> list[Job]:
    """Return the jobs that judge and scan what agents report, that let fixes through, and that observe other
    registries. Called in the maintenance process."""
    from digestry.fleet.advised_fixes import AdvisedFixesJob
    from digestry.fleet.assessor import AssessorJob
    from digestry.observer.job import ObserverJob

    if config.read_only:
        return []
    found: list[Job] = [AssessorJob(config, backend), ObserverJob(config, backend, upstream)]
    if config.ages:
        found.append(AdvisedFixesJob(config, backend))
    if config.scan.every is not None:
        from digestry.fleet.scanning import ScanJob

        found.append(ScanJob(config, backend))
    return found


def upstream(mirror: MirrorConfig) -> Upstream:
    """Return the upstream of a registry. Called in each of its processes."""
    from digestry.registry.pull_through.upstream import LEAST_RATE, PATIENCE
    from digestry.upstream.http_upstream import ClientUpstream, UpstreamOptions

    return ClientUpstream(
        UpstreamOptions(
            mirror.host,
            mirror.url,
            project=mirror.project,
            username=mirror.username,
            password_file=mirror.password_file,
            authorities=mirror.ca,
            timeout=mirror.timeout,
            patience=mirror.timeout * PATIENCE,
            least_rate=LEAST_RATE,
            internal=mirror.internal,
            realms=mirror.realm,
        )
    )


def pages(host: PageHost) -> Mounts:
    """Return the pages of a registry, to be mounted beside its API. Called in each of its processes."""
    ready: list[WebApp] = []

    def load() -> WebApp:
        from digestry.web.app import WebApp

        return WebApp(host)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        # Loaded for the first visitor, in a thread: a registry without visitors does without its memory.
        if not ready:
            ready.append(await host.run(load))
        await ready[0](scope, receive, send)

    return {"/": answer}
