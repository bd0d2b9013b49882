"""What goes on beside a load's pushes while nodes and stores fail: jobs that depend on time and on others.

A tag of another registry moves and is observed, containers of an affected image start, somebody watches the
signed log, and a retention rule deletes tags. Each checks at its end what its job did.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

from digestry.model.digest import Digest
from tests.cli.test_layer_advisories import push
from tests.cluster.load import TAG
from tests.crash.test_log import Watcher, check
from tests.fleet.support import SimulatedAgent, runs
from tests.registry.pull_through.support import Upstream
from tests.registry.webhook_receiver import SECRET, Receiver
from tests.support import PATIENCE, RegistryServer, run_digestry, wait_until

HOST: Final = "registry.example"
"""The name by which containers' images name the registry."""
KEEP: Final = 3
"""So many numbered tags of a repository are kept."""
OBSERVED: Final = "up.test/own/app"
_MOVE_SECONDS: Final = (1.5, 4.0)
_START_SECONDS: Final = 0.7
_WATCH_SECONDS: Final = 0.05

_SETTINGS = """
hosts = ["{host}"]

[[webhook]]
name = "fleet"
url = "{receiver}"
secret = "{secret}"
events = ["affected-started", "upstream-moved"]

[[retention]]
repository = "load/*"
tag = "{tag}*"
keep-newest = {keep}

[observe-registry."up.test"]
url = "{upstream}"
timeout = "5s"

[observe."{observed}"]
every = "1s"
"""


def settings(upstream: Upstream, receiver: Receiver) -> tuple[str, str]:
    """Return the top of a configuration, and the sections, that the companions need."""
    given = _SETTINGS.format(
        host=HOST,
        receiver=receiver.url,
        secret=SECRET,
        tag=TAG,
        keep=KEEP,
        upstream=upstream.url,
        observed=OBSERVED,
    )
    top, _, sections = given.partition("\n[[")
    return top, f"[[{sections}"


class Companions:
    """All of them, for the length of a block."""

    def __init__(self, front: RegistryServer, upstream: Upstream, receiver: Receiver) -> None:
        self._front = front
        self._receiver = receiver
        self._upstream = upstream
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._watcher = Watcher([front], pause=_WATCH_SECONDS)
        self.moved: list[Digest] = []
        self.containers: list[str] = []
        self.figures: dict[str, int] = {}

    def __enter__(self) -> Companions:
        digest = push(self._front, "fleet/app", "1", b"affected")
        stated = ("--id", "CVE-1", "--status", "affected", "--author", "me")
        name = f"{self._front.host}/fleet/app:1"
        done = run_digestry("advisory", "add", name, *stated, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        self._move()
        agent = SimulatedAgent(self._front, "rack/host")
        self._threads = [
            threading.Thread(target=self._move_forever, daemon=True),
            threading.Thread(target=self._start_forever, args=(agent, digest), daemon=True),
        ]
        for thread in (*self._threads, self._watcher):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._watcher.stop()

    def _move(self) -> None:
        layer = os.urandom(8)
        self.moved.append(self._upstream.image("own/app", "1.5", layer=layer))

    def _move_forever(self) -> None:
        while not self._stop.wait(random.uniform(*_MOVE_SECONDS)):
            self._move()

    def _start_forever(self, agent: SimulatedAgent, digest: Digest) -> None:
        while not self._stop.wait(_START_SECONDS):
            container = f"c{len(self.containers)}"
            while True:  # an agent reports the same until it is taken
                try:
                    agent.start({container: f"{HOST}/fleet/app:1@{digest}"}, since=0)
                    break
                except (AssertionError, OSError, ValueError, http.client.HTTPException):
                    if self._stop.wait(0.1):
                        return
            self.containers.append(container)

    def check(self, journal: Iterable[bytes], nodes: list[RegistryServer]) -> None:
        """Check what the jobs did. ``journal`` is the export of the journal, once nothing moves any more."""
        self._check_fleet()
        entries = [json.loads(line) for line in journal]
        self._check_observer([entry for entry in entries if entry.get("repository") == OBSERVED])
        self._check_retention([e for e in entries if str(e.get("repository")).startswith("load/")])
        wait_until(lambda: all(map(_signed, nodes)), what="the end of signing")
        self.figures["checkpoints"] = len(self._watcher.seen)
        check(nodes[0], self._watcher.seen)

    # -- the fleet -----------------------------------------------------------------------------

    def _check_fleet(self) -> None:
        """Each container is there once, is judged, and was told once."""
        reported = set(self.containers)

        def judged() -> bool:
            found = runs(self._front)
            states = {run["verdict"]["state"] for run in found}
            return reported <= {run["container"] for run in found} and states == {"affected"}

        wait_until(judged, what="the verdict of each container")
        there = [run["container"] for run in runs(self._front)]
        assert len(there) == len(set(there))
        self.figures["containers"] = len(there)
        wait_until(lambda: self._told_containers() >= len(there), what="an event of each container")
        time.sleep(1.0)  # another that is too many would come now
        assert self._told_containers() == len(there)
        listed = [one["container"] for event in self._events("affected-started") for one in event["listed"]]
        assert len(listed) == len(set(listed))

    def _told_containers(self) -> int:
        return sum(event["containers"] for event in self._events("affected-started"))

    def _events(self, kind: str) -> list[dict[str, Any]]:
        """The data of the different messages of a kind: one may come twice, with the same ID."""
        with self._receiver.lock:
            taken = list(self._receiver.taken)
        return list({one["id"]: one["data"] for one in taken if f".{kind}." in one["type"]}.values())

    # -- the observer --------------------------------------------------------------------------

    def settled(self, node: RegistryServer) -> bool:
        """Return whether the last move elsewhere is in the journal."""
        answer = node.request("GET", f"/v2/{OBSERVED}/_digestry/journal?tag=1.5&n=1")
        entries = answer.json()["entries"] if answer.status == 200 else []
        return bool(entries) and entries[0].get("toDigest") == str(self.moved[-1])

    def _check_observer(self, entries: list[dict[str, Any]]) -> None:
        """Moves are in their order, each once; what was missed is missing."""
        found = [entry["toDigest"] for entry in entries if entry["tag"] == "1.5"]
        order = [str(digest) for digest in self.moved]
        places = [order.index(digest) for digest in found]
        assert places == sorted(set(places))
        assert found[-1] == order[-1]
        times = [entry["notBefore"] for entry in entries[1:]]
        assert times == sorted(times)
        assert all(entry["notBefore"] < entry["at"] for entry in entries[1:])
        numbers = {entry["number"] for entry in entries}
        wait_until(lambda: self._told_moves() >= numbers - {1}, what="an event of each move elsewhere")
        told = [event["entry"] for event in self._events("upstream-moved")]
        assert len(told) == len(set(told))
        self.figures["observed moves"] = len(found)

    def _told_moves(self) -> set[int]:
        return {int(event["entry"]) for event in self._events("upstream-moved")}

    # -- retention -----------------------------------------------------------------------------

    def _check_retention(self, entries: list[dict[str, Any]]) -> None:
        """A tag was deleted once, and only after so many others had come."""
        there: dict[str, list[str]] = {}
        deleted = 0
        for entry in entries:
            tags = there.setdefault(entry["repository"], [])
            if not entry["tag"].startswith(TAG):
                continue
            if entry["event"] == "deleted":
                assert entry["tag"] in tags[:-KEEP]
                tags.remove(entry["tag"])
                deleted += 1
            else:
                assert entry["tag"] not in tags
                tags.append(entry["tag"])
        assert all(len(tags) <= KEEP for tags in there.values())
        self.figures["tags deleted"] = deleted


def _signed(node: RegistryServer) -> bool:
    return b"digestry_log_unsigned_entries 0.0" in node.request("GET", "/metrics").body
