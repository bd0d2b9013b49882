"""Reports of agents that are not there, and what a registry makes of them."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support import RegistryServer, wait_until

FLEET = "/v2/_digestry/fleet"


def moment(seconds: float = 0) -> str:
    """Return the time so many seconds from now."""
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)).isoformat()


@dataclass
class SimulatedAgent:
    """An agent of one place: it reports what it is told to."""

    registry: RegistryServer
    place: str
    interval: int = 60
    agent: str = field(default_factory=lambda: os.urandom(16).hex())
    sent: int = 0

    def report(
        self, *entries: Mapping[str, Any], images: Mapping[str, Mapping[str, Any]] | None = None, **more: Any
    ) -> None:
        """Send entries, and that everything is known until now."""
        body = {
            "agent": self.agent,
            "place": self.place,
            "version": "1",
            "interval": self.interval,
            "sentAt": moment(),
            "first": self.sent + 1,
            "images": images or {},
            "entries": entries,
            "sources": [{"source": "docker", "confirmedAt": moment()}],
            **more,
        }
        answer = self.registry.request(
            "POST", f"{FLEET}/reports", json.dumps(body), {"Content-Type": "application/json"}
        )
        assert answer.status == 200, answer.body
        self.sent += len(entries)
        assert answer.json()["received"] == self.sent

    def start(self, containers: Mapping[str, str], *, since: float = -10) -> None:
        """Report that containers started: images, as REPOSITORY:TAG@DIGEST, by the containers' IDs."""
        names = sorted(set(containers.values()))
        keys = {name: str(number) for number, name in enumerate(names)}
        self.report(
            *(
                {
                    "type": "started",
                    "source": "docker",
                    "run": {
                        "container": container,
                        "instance": "1",
                        "image": keys[name],
                        "startedAt": moment(since),
                        "name": f"name-of-{container}",
                    },
                }
                for container, name in containers.items()
            ),
            images={keys[name]: image(self.registry, name) for name in names},
        )

    def stop(self, container: str, at: str, *, after: str | None = None) -> None:
        """Report that a container stopped at a time, or between two times."""
        entry = {"type": "stopped", "source": "docker", "container": container, "at": at}
        self.report(entry if after is None else {**entry, "after": after})


def image(registry: RegistryServer, name: str) -> dict[str, Any]:
    """Return an image as Docker's classic store describes it."""
    tagged, _, digest = name.partition("@")
    host = "" if "." in tagged.partition("/")[0] or ":" in tagged.partition("/")[0] else f"{registry.host}/"
    return {
        "reference": f"{host}{tagged}",
        "claims": [
            {
                "digest": digest,
                "repository": f"{host}{tagged.rpartition(':')[0]}",
                "readFrom": "RepoDigests",
                "foundBy": "repo-digest",
                "obtained": True,
            }
        ],
    }


def runs(registry: RegistryServer, query: str = "") -> list[dict[str, Any]]:
    """Return the runs of a query, each with its image's verdict."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = registry.request("GET", f"{FLEET}/runs?n=1000&{query}{after}").json()
        verdicts = {one["number"]: one["verdict"] for one in page["images"]}
        found += [{**run, "verdict": verdicts[run["image"]]} for run in page["runs"]]
        if not page.get("next"):
            return found
        after = f"&after={page['next']}"


def states(registry: RegistryServer, query: str = "") -> dict[str, int]:
    """Return how many runs of a query have an image in each state."""
    counted: dict[str, int] = {}
    for run in runs(registry, query):
        counted[run["verdict"]["state"]] = counted.get(run["verdict"]["state"], 0) + 1
    return counted


def judged(registry: RegistryServer, expected: Mapping[str, int], query: str = "") -> None:
    """Wait until the runs of a query are in these states."""
    wait_until(lambda: states(registry, query) == dict(expected), what=f"{expected}")


def references(names: Sequence[str], digests: Sequence[object]) -> list[str]:
    """Return NAME:1@DIGEST for each."""
    return [f"{name}:1@{digest}" for name, digest in zip(names, digests, strict=True)]
