"""Nodes of one registry, in this process and in others, over each kind of coordination."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from digestry.catalog.postgresql.address import parse_address
from digestry.catalog.postgresql.database import make_engine
from digestry.catalog.postgresql.failures import failure
from digestry.coordination.files import FileCoordination
from digestry.coordination.postgresql.connections import Connections
from digestry.coordination.postgresql.coordination import PostgresCoordination
from digestry.coordination.protocol import Coordination, Job, Lock
from digestry.errors import Conflict
from digestry.model.digest import Digest

CONTENT = Digest.of(b"content")
_ATTEMPTS = 10


def through(url: str, port: int) -> str:
    """The URL of the same database behind another port."""
    return make_url(url).set(port=port).render_as_string(hide_password=False)


def connections(url: str, **options: float) -> Connections:
    """Connections to the database at a URL."""
    address = parse_address(url)
    engine = make_engine(address, connections_held=8)
    return Connections(engine, partial(failure, address.name), **options)


def open_node(place: str, **options: Any) -> Coordination:
    """One more node of the registry at ``place``: a database's URL, or a directory."""
    if "://" in place:
        return PostgresCoordination(connections(place), **options)
    return FileCoordination(Path(place))


def close_node(node: Coordination) -> None:
    """End what a node has open."""
    if isinstance(node, PostgresCoordination):
        node.close()


class OtherNode:
    """A node in a process of its own, which holds one lock from its start on."""

    def __init__(self, place: str, what: str, lease_seconds: float) -> None:
        command = [sys.executable, "-m", "tests.coordination.nodes", place, what, str(lease_seconds)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        assert self.answer() == "held"

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, question: str) -> str:
        """The answer to ``check`` or ``release``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def other_node(place: str, what: str, *, lease_seconds: float) -> Iterator[OtherNode]:
    """A process that holds ``what``: a job's name, ``shared`` or ``exclusive``."""
    node = OtherNode(place, what, lease_seconds)
    try:
        yield node
    finally:
        node.kill()


def take(node: Coordination, what: str) -> contextlib.AbstractContextManager[Lock]:
    """Take a lock by its name: a job's, or ``shared`` or ``exclusive`` for a guard."""
    if what in {"shared", "exclusive"}:
        return node.guard(CONTENT, exclusive=what == "exclusive")
    return node.only_one(Job(what))


def _taken(held: contextlib.ExitStack, node: Coordination, what: str) -> Lock:
    """Take a lock as often as a busy machine lets its lease end before it is held."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(Conflict):
            return held.enter_context(take(node, what))
    return held.enter_context(take(node, what))


def _main(place: str, what: str, lease_seconds: str) -> None:
    node = open_node(place, **({"lease_seconds": float(lease_seconds)} if "://" in place else {}))
    with contextlib.ExitStack() as held:
        lock = _taken(held, node, what)
        print("held", flush=True)
        for line in sys.stdin:
            if line.strip() == "release":
                break
            try:
                lock.check()
            except Conflict:
                print("lost", flush=True)
            else:
                print("holds", flush=True)
    close_node(node)
    print("released", flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
