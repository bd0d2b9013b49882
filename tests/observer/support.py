"""Registries that are observed, and one that observes them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digestry.model.digest import Digest
from tests.registry.pull_through.support import mirroring
from tests.support import RegistryServer, wait_until

HOST = "up.test"


@dataclass
class Observing:
    """A registry that observes the repository ``up.test/own/app``, under that name."""

    server: RegistryServer
    name: str = f"{HOST}/own/app"

    def entries(self, tag: str = "", name: str = "") -> list[dict[str, Any]]:
        """The journal's entries, the oldest first."""
        answer = self.server.request("GET", f"/v2/{name or self.name}/_digestry/journal?n=1000")
        found = json.loads(answer.body)["entries"] if answer.status == 200 else []
        return [one for one in reversed(found) if not tag or one["tag"] == tag]

    def moves(self, tag: str, name: str = "") -> list[tuple[str, str | None]]:
        """What happened to a tag: kind and new digest."""
        return [(one["event"], one.get("toDigest")) for one in self.entries(tag, name)]

    def wait_for(self, tag: str, *digests: Digest | None, name: str = "") -> None:
        """Wait until a tag has pointed to these digests (None: was deleted), and to nothing else."""
        wanted = [None if one is None else str(one) for one in digests]

        def there() -> bool:
            return [to for _, to in self.moves(tag, name)] == wanted

        wait_until(there, what=f"{tag} at {wanted}", log=self.server.log)


@contextlib.contextmanager
def observing(root: Path, url: str, keys: str = 'every = "1s"', more: str = "") -> Iterator[Observing]:
    """Start a registry that observes ``up.test/own/app``, a registry at ``url``."""
    sections = (
        f'workers = 1\n[observe-registry."{HOST}"]\nurl = "{url}"\ntimeout = "5s"\n'
        f'[observe."{HOST}/own/app"]\n{keys}\n{more}'
    )
    with mirroring(root, sections) as server:
        yield Observing(server)


def report(observing: Observing) -> dict[str, Any]:
    """What the registry reports over HTTP."""
    answer = observing.server.request("GET", "/v2/_digestry/observed")
    assert answer.status == 200, answer.body
    found = answer.json()
    assert isinstance(found, dict)
    return found


def spans(observing: Observing, tag: str) -> list[dict[str, Any]]:
    """The spans of a tag, the oldest first."""
    answer = observing.server.request("GET", f"/v2/{observing.name}/_digestry/observations/{tag}?n=1000")
    return list(reversed(answer.json()["spans"])) if answer.status == 200 else []
