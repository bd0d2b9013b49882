"""The soak: clients, collection and scrub at once; then the question whether anything is left."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.clients import Client, totals
from tests.soak.places import Place, on_disk, on_nodes

_CONFIGURATION = """
[collection]
every = "0s"
lease = "{lease}s"
untagged = "1s"
sighted = "1s"

[scrub]
every = "1s"
rate = "100 MiB"

[limits]
upload-idle-seconds = {idle}

[log]
audit = "off"
"""
_PATIENCE = 120.0
_EMPTY_SECONDS = 900.0
"""So long collections may take for what all clients have dropped, on a machine that is busy."""


@dataclass
class Outcome:
    """``wrong``: promises that were broken; ``left``: what nothing holds and is there all the same."""

    wrong: list[str]
    left: list[str]
    did: Counter[str]
    collected: dict[str, float]
    seconds: float
    logged: list[str] = field(default_factory=list)


def soak(
    directory: Path,
    *,
    seconds: float,
    clients: int,
    seed: int,
    lease: int = 6,
    workers: int = 2,
    nodes: int = 0,
) -> Outcome:
    """Runs it in an empty directory, on a disk, or on so many nodes."""
    config = directory / "registry.toml"
    config.write_text(_CONFIGURATION.format(lease=lease, idle=lease // 3))
    opened = (
        on_nodes(directory, config, count=nodes) if nodes else on_disk(directory, config, workers=workers)
    )
    with opened as place:
        began = time.monotonic()
        crew = [Client(place.front.port, number, seed, began + seconds, lease) for number in range(clients)]
        for client in crew:
            client.start()
        for client in crew:
            client.join(seconds + 10 * _PATIENCE)
        wrong = [text for client in crew for text in client.wrong]
        if not wrong:
            for client in crew:
                client.drop_all()
            _wait_until_empty(place)
        return Outcome(
            wrong,
            [] if wrong else place.left(),
            totals(crew),
            place.collected(),
            time.monotonic() - began,
            _errors(place),
        )


def _wait_until_empty(place: Place) -> None:
    """Grants the grace times, and collections after them that may remove everything."""
    end = time.monotonic() + _EMPTY_SECONDS
    while time.monotonic() < end and place.left():
        time.sleep(0.5)
        place.collect()  # the server's own may be under way


def _errors(place: Place) -> list[str]:
    return [
        line
        for line in place.logs()
        # Where all is dropped, the server's own collection asks for a word more.
        if (" ERROR " in line or "Traceback" in line) and "that is most of the store" not in line
    ]
