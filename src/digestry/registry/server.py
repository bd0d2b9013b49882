"""The server: a root that is prepared, worker processes with the application, and the maintenance process."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import resource
import signal
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp

from digestry import fsio
from digestry.backend import Backend, host_coordination
from digestry.catalog import clock
from digestry.coordination.protocol import Coordination, Job
from digestry.errors import Conflict, StorageError, StorageFull
from digestry.registry import allocator, config_files, served_retention, store_identity, tls
from digestry.registry.access.keys import KeyRing
from digestry.registry.app import create_app
from digestry.registry.config import RegistryConfig
from digestry.registry.connections import listening
from digestry.registry.connections.heartbeat import Heartbeat
from digestry.registry.connections.listening import Listening
from digestry.registry.disk_reserve import A_BIT, reserve_of
from digestry.registry.draining import Drain
from digestry.registry.jobs import MakeFurtherJobs, jobs, no_further_jobs
from digestry.registry.maintenance import Maintenance, MakeJobs
from digestry.registry.observability import exposition, logs
from digestry.registry.observability.audit_log import AuditLog, record_path
from digestry.registry.page_host import MakeMounts
from digestry.registry.permissions import make_private, umask
from digestry.registry.pull_through.upstream import MakeUpstream
from digestry.registry.reloading import Announcements, Reloader
from digestry.registry.root import check_catalog, check_content, check_root, warn_of_owner
from digestry.registry.scratch import with_scratch
from digestry.registry.workers import STOP_SECONDS, Workers

_PARENT_SECONDS: Final = 0.5
_KILLED_SECONDS: Final = 3.0

log: Final = logging.getLogger("digestry.registry")


def free_port(host: str, port: int) -> int:
    """Return the port, or for 0 a free one. Raises :class:`InvalidConfiguration` if it is in use."""
    probe = listening.listen(host, port, patience=1)
    probe.close()
    return probe.port


def prepare(config: RegistryConfig) -> None:
    """Make the root's files, and migrate the catalog. Called under the root's lock.

    If the disk is full, release the disk reserve and try again.
    """
    _prepare(config, config.backend())


def _prepare(config: RegistryConfig, backend: Backend) -> None:
    reserve = reserve_of(backend)
    try:
        _prepare_stores(config, backend)
    except StorageFull:
        if not reserve.release(A_BIT):
            raise
        _prepare_stores(config, backend)
    # After a loss of power it may have its name and no bytes, and pushes would be refused meanwhile.
    with contextlib.suppress(StorageError):  # its job goes on trying
        reserve.refill_if_idle()


def _prepare_stores(config: RegistryConfig, backend: Backend) -> None:
    for mistake in config_files.mistakes(config):  # told here, and not by every worker
        raise mistake
    blobs = backend.blobs
    blobs.prepare()
    fsio.sweep_temporaries(config.scratch)
    catalog = backend.open_catalog()
    try:
        check_catalog(backend)
        catalog.migrate()
        catalog.relocation.require_here(read_only=config.read_only)
        store_identity.ensure(catalog, blobs)
        if not config.read_only:
            store_identity.advance(catalog, blobs)
        begun = exposition.ServerStart(clock.now(), catalog.statistics.last_entry())
    finally:
        catalog.close()
    AuditLog(config.log, config.scratch).check()
    AuditLog(config.log.for_anonymous_refusals(config.scratch), config.scratch).check()
    record_path(config.log, config.scratch)
    served_retention.record(backend.coordination.notes, config.collection.retention)
    try:
        exposition.record_server_start(config.scratch, begun)
    except OSError as error:
        # A disk that is full can still be read from.
        log.error("the metrics will not be complete: %s", error)
    if config.access.enabled:
        KeyRing(backend.coordination.keys).ensure()


def serve(
    config: RegistryConfig,
    *,
    ready: Callable[[str], None],
    make_upstream: MakeUpstream | None = None,
    make_mounts: MakeMounts | None = None,
    make_jobs: MakeFurtherJobs = no_further_jobs,
    read_again: Callable[[], RegistryConfig] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Calls ``ready`` with the URL once requests are answered.

    After SIGTERM requests are still answered for the time of the drain, unless another of the two comes.

    SIGHUP reloads the configuration, which ``read_again`` reads, as far as :mod:`.reloading` has it.

    ``make_upstream`` is for a configuration with mirrors, and ``make_mounts`` gives the applications that
    answer beside the API; each worker process calls them. ``make_jobs`` gives jobs of the maintenance process
    beside the registry's own; it is called there, and must be picklable.

    Raises :class:`Conflict` if another server has this root, :class:`InvalidConfiguration` if the
    address cannot be used, :class:`StorageError`.
    """
    with umask(group=config.group_access), with_scratch(config) as (node, scratch):
        fsio.make_directory(scratch)
        _serve(node, scratch, ready, make_upstream, make_mounts, make_jobs=make_jobs, read_again=read_again)


def _serve(
    config: RegistryConfig,
    root: Path,
    ready: Callable[[str], None],
    make_upstream: MakeUpstream | None,
    make_mounts: MakeMounts | None,
    *,
    make_jobs: MakeFurtherJobs,
    read_again: Callable[[], RegistryConfig] | None,
) -> None:
    backend = config.backend()
    host = host_coordination(root)
    with contextlib.suppress(Conflict):  # raised below: who has the root is told of first
        check_root(root)
        check_content(backend)
        host.prepare()
    with _served_alone(host, root):
        check_root(root)
        check_content(backend)
        warn_of_owner(backend)
        make_private(root, group=config.group_access)
        host.check()
        backend.coordination.check()
        _prepare(config, backend)
        _raise_file_limit()
        tls.clear(config.scratch)
        certificate = None if config.tls is None else tls.Certificate(config.tls, config.scratch)
        heartbeat = Heartbeat(config.connections.worker_seconds)
        socket = _listen(config)
        announcements = Announcements(config)
        drain = Drain(config.drain_seconds)
        load = partial(
            _load,
            announcements,
            drain,
            os.getpid(),
            make_upstream,
            make_mounts,
            address=socket.address,
            beat=heartbeat.beat,
        )

        def make_all_jobs(of: RegistryConfig) -> MakeJobs:
            return partial(jobs, of if of.socket is not None else replace(of, port=socket.port), make_jobs)

        maintenance = Maintenance(make_all_jobs(config), logs.configuration(config.log.format))
        reloader = Reloader(
            announcements,
            None if read_again is None else partial(_read_again, read_again),
            prepare=partial(_prepare_reload, backend),
            workers=lambda: workers.processes(),  # noqa: PLW0108 - they are made below
            changed=lambda new: maintenance.change(make_all_jobs(new)),
        )
        signal.signal(signal.SIGHUP, reloader.want)
        workers = Workers(config, socket, certificate, load=load, reload=reloader.want, drain=drain)
        heartbeat.watch(workers.processes)

        def answers() -> None:
            workers.answered = True
            maintenance.wait()  # all of the server runs, and takes no more than it does at rest
            ready(socket.url(config.scheme, config.host))

        # Of itself, over loopback: whose certificate it is does not matter here. Made now, because a worker
        # that is forked while a thread is in the middle of that inherits its locks.
        context = None if certificate is None else ssl._create_unverified_context()  # noqa: S323
        announce = partial(_announce, socket, context, answers)
        threading.Thread(target=announce, name="announce", daemon=True).start()
        if certificate is not None:
            certificate.watch(workers.renew)
        maintenance.start()
        reloader.start()
        try:
            workers.run()
        finally:
            maintenance.stop()
            if not config.read_only:
                _advance_generation(backend)
            tls.clear(config.scratch)
            socket.close()


@contextlib.contextmanager
def _served_alone(host: Coordination, root: Path) -> Iterator[None]:
    """Keep other servers from the root for the block. Raises :class:`Conflict` if one has it.

    The processes of one that was killed end a moment later: that is waited for.
    """
    until = time.monotonic() + _KILLED_SECONDS
    while True:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(
                    host.only_one(Job.SERVE, held=f"{root} is served by another digestry already")
                )
            except Conflict:
                if time.monotonic() >= until:
                    raise
            else:
                yield
                return
        time.sleep(0.1)


def _listen(config: RegistryConfig) -> Listening:
    if config.socket is not None:
        return listening.listen_unix(config.socket, config.socket_mode)
    # The guard is faster, and counts what it ends.
    return listening.listen(config.host, config.port, patience=2 * config.patience + 10)


def _advance_generation(backend: Backend) -> None:
    """Raise the catalog's generation, so that copies taken meanwhile are recognised as older."""
    catalog = backend.open_catalog()
    try:
        store_identity.advance(catalog, backend.blobs)
    except StorageError as error:
        log.error("it was not noted how recent the catalog is: %s", error.message)
    finally:
        catalog.close()


def _raise_file_limit() -> None:
    """Raise the limit of open files to this user's maximum: each connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _read_again(read: Callable[[], RegistryConfig]) -> RegistryConfig:
    """Read the configuration. Raises :class:`InvalidConfiguration` for a mistake in it or in its files."""
    config = read()
    for mistake in config_files.mistakes(config):
        raise mistake
    return config


def _prepare_reload(backend: Backend, config: RegistryConfig) -> None:
    served_retention.record(backend.coordination.notes, config.collection.retention)
    if config.access.enabled:
        KeyRing(backend.coordination.keys).ensure()


def _load(
    announcements: Announcements,
    drain: Drain,
    parent: int,
    make_upstream: MakeUpstream | None,
    make_mounts: MakeMounts | None,
    *,
    address: tuple[str, int] | None,
    beat: Callable[[], Coroutine[None, None, None]],
) -> ASGIApp:
    """Make the application; called in each worker process."""
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    if announcements.served.storage.stores.blobs is not None:
        allocator.limit_arenas()  # content is in memory on its way there
    config, follow = announcements.served, announcements.follow
    return create_app(
        config,
        make_upstream,
        address=address,
        beat=beat,
        follow=follow,
        make_mounts=make_mounts,
        draining=drain.has_begun,
    )


def _end_with(parent: int) -> None:
    # A server that was killed takes its workers along: left alone they would hold the port, and the
    # root's lock, which they share with it.
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _announce(listens: Listening, context: ssl.SSLContext | None, ready: Callable[[], None]) -> None:
    while True:
        try:
            connection = http.client.HTTPConnection("localhost", timeout=5)
            connection.sock = listens.connect(timeout=5)
            if context is not None:
                connection.sock = context.wrap_socket(connection.sock)
            connection.request("GET", "/v2/")
            if connection.getresponse().status in {200, 401}:
                ready()
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.02)
