"""An observer that is killed at each step in turn, and another one that goes on after it.

::

    python -m tests.observer.steps CONFIG ROOT WANTED [--every N] [--server URL --template NAME]

CONFIG is a configuration, and ROOT a registry that has observed the state before; what the other registry
answers is the state after. A step is a statement, a commit, a request, or a change of a file's name: right
before each Nth of them, the observer is killed. What must hold afterwards is in ``check``. With a database
server, the catalog of each run is a copy of the database TEMPLATE. Prints a line of JSON.

A process of its own: each run is forked from it, so that it has no threads and has imported everything.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from sqlalchemy.engine.default import DefaultDialect

from digestry.blobs.protocols import BlobReader
from digestry.catalog.catalog import Catalog
from digestry.catalog.observations import LIST
from digestry.cli.serve import upstream
from digestry.model.digest import Digest
from digestry.observer.single_round import observe_all_once
from digestry.registry.config import RegistryConfig, load

NAME: Final = "up.test/own/app"
_SECONDS: Final = 120
_SHOWN: Final = 5


class Steps:
    """Counts the steps of this process, and ends it before step ``at``."""

    def __init__(self, at: int, said: int) -> None:
        self._at = at
        self._said = said
        self._lock = threading.Lock()
        self.count = 0

    def step(self, what: str) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._at:
                os.write(self._said, f"before {what[:100]}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)

    def watch(self) -> None:
        """Begins."""
        self._wrap(DefaultDialect, "do_execute", lambda _, __, statement, *___: " ".join(statement.split()))
        self._wrap(DefaultDialect, "do_executemany", lambda _, __, statement, *___: statement)
        self._wrap(DefaultDialect, "do_commit", lambda *_: "commit")
        self._wrap(socket.socket, "send", lambda _, sent, *__: bytes(sent[:80]).decode("latin-1"))
        for name in ("rename", "replace", "link", "fsync", "fdatasync", "unlink"):
            self._wrap(os, name, lambda *found, name=name: f"{name} {found[0]}")

    def _wrap(self, owner: Any, name: str, what: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.step(what(*arguments))
            return real(*arguments, **options)

        setattr(owner, name, wrapped)


def observe(config: RegistryConfig) -> None:
    """Observe everything once, as the command does."""
    backend = config.backend()
    catalog = backend.open_catalog()
    try:
        done = observe_all_once(config, backend, catalog, upstream, names=(), due=False, seconds=_SECONDS)
        assert (done.failed, done.unfinished) == (0, 0), done
    finally:
        catalog.close()


def check(config: RegistryConfig, wanted: Mapping[str, Sequence[str | None]]) -> None:
    """Assert that each move is in the journal once and in order, was looked at, was told once, and is kept.

    ``wanted`` are the digests that each tag has had, None for a deletion.
    """
    backend = config.backend()
    catalog = backend.open_catalog()
    try:
        assert catalog.verify_journal() is None
        told = [move for tag, digests in wanted.items() for move in _moves(catalog, tag, digests)]
        lists = catalog.observations.spans(NAME, LIST)
        assert [one.outcome for one in lists] == ["seen"], lists
        moves = catalog.observed_moves.since(0, limit=100)
        assert all(move.document for move in moves), moves
        assert sorted((one.tag, str(one.to_digest)) for one in moves) == sorted(told)
        ever = time.time_ns()
        assert catalog.observed_moves.unfinished(ever, limit=10) == []
        queued = [one.document or "" for one in catalog.delivery_queue.listed(limit=1000)]
        assert len(queued) == len(told), queued
        for tag, _ in told:
            assert sum(f'"tag":"{tag}"' in one for one in queued) == 1, (tag, queued)
        for digest in {one for digests in wanted.values() for one in digests if one is not None}:
            _check_content(catalog, backend.blobs, Digest.parse(digest))
    finally:
        catalog.close()


def _moves(catalog: Catalog, tag: str, digests: Sequence[str | None]) -> list[tuple[str, str]]:
    """Check a tag's history, and return its moves: what is not its first sight."""
    entries = catalog.journal(NAME, tag=tag, limit=100)[::-1]
    found = [None if one.to_digest is None else str(one.to_digest) for one in entries]
    assert found == list(digests), (tag, found)
    spans = catalog.observations.spans(NAME, tag)[::-1]
    for earlier, later in itertools.pairwise(spans):
        assert earlier.last_at <= later.first_at, (earlier, later)
    assert all(one.outcome != "failed" and one.first_at <= one.last_at for one in spans), spans
    moved = [one for one in entries if one.not_before is not None]
    assert all(one.not_before is not None and one.not_before < one.at for one in moved)
    return [(tag, str(one.to_digest)) for one in moved]


def _check_content(catalog: Catalog, blobs: BlobReader, digest: Digest) -> None:
    assert catalog.manifest(NAME, digest) is not None, digest
    document = json.loads(blobs.read(digest, limit=1 << 20))
    for child in document.get("manifests", []):
        _check_content(catalog, blobs, Digest.parse(child["digest"]))
    for part in [*([document["config"]] if "config" in document else []), *document.get("layers", [])]:
        found = Digest.parse(part["digest"])
        assert catalog.blob_size(NAME, found) == part["size"], part
        assert blobs.read(found, limit=part["size"]), part


def forked(function: Callable[[int], None], said: Path) -> int:
    """Run ``function`` in a process of its own; return its status, negative for a signal."""
    process = os.fork()
    if process == 0:
        code = 1
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            signal.alarm(_SECONDS * 2)
            function(descriptor)
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, it is told
            os.write(descriptor, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


class Place:
    """Copies of the registry as it was before."""

    def __init__(self, config: str, root: Path, directory: Path, server: str, template: str) -> None:
        self._config = config
        self._root = root
        self._directory = directory
        self._server = server
        self._template = template
        self._database = f"steps_{os.getpid()}"

    def fresh(self) -> RegistryConfig:
        """Make one more copy, in place of the last."""
        root = self._directory / "root"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self._root, root)
        text = self._config
        if self._server:
            self._statement(f"DROP DATABASE IF EXISTS {self._database} WITH (FORCE)")
            self._statement(f"CREATE DATABASE {self._database} OWNER digestry TEMPLATE {self._template}")
            text = text.replace(f"/{self._template}", f"/{self._database}")
        file = self._directory / "registry.toml"
        file.write_text(text)
        return load(file, {"root": root})

    def end_locks(self) -> None:
        """As if the time had passed after which a node's locks end."""
        if self._server:
            address = urlsplit(self._server)._replace(path=f"/{self._database}").geturl()
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute("UPDATE locks SET expires_at = 0")

    def _statement(self, text: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(text.encode())


def _again(config: RegistryConfig, wanted: Mapping[str, Sequence[str | None]], _: int) -> None:
    observe(config)
    check(config, wanted)


def _ended(config: RegistryConfig, wanted: Mapping[str, Sequence[str | None]], _: int) -> None:
    check(config, wanted)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("wanted")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--server", default="")
    parser.add_argument("--template", default="")
    options = parser.parse_args()
    wanted = json.loads(options.wanted)
    runs, failures = 0, []
    with tempfile.TemporaryDirectory(prefix="digestry-steps-") as name:
        directory, said = Path(name), Path(name, "said")
        place = Place(options.config.read_text(), options.root, directory, options.server, options.template)
        at = 1
        while True:
            config = place.fresh()

            def killed(descriptor: int, config: RegistryConfig = config, at: int = at) -> None:
                steps = Steps(at, descriptor)
                steps.watch()
                observe(config)
                os.write(descriptor, f"{steps.count}".encode())

            status = forked(killed, said)
            where = said.read_text()
            if status == 1:
                failures.append(f"step {at}: {where}")
            elif status < 0:
                place.end_locks()
                if forked(partial(_again, config, wanted), said):
                    failures.append(f"killed at step {at}, {where}: {said.read_text()}")
            else:
                if forked(partial(_ended, config, wanted), said):
                    failures.append(f"not killed: {said.read_text()}")
                break
            runs += 1
            at += options.every
        place.end_locks()
        if options.server:
            place._statement(f"DROP DATABASE IF EXISTS {place._database} WITH (FORCE)")
    for failure in failures[:_SHOWN]:
        print(failure, file=sys.stderr)
    print(json.dumps({"runs": runs, "steps": at, "failed": len(failures)}))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
