"""Reading all tags of a repository, page by page, as ``skopeo list-tags`` does."""

from __future__ import annotations

import http.client
import json
import re
import statistics
import time
from dataclasses import dataclass

from tests.support import RegistryServer

from bench.content import Repository
from bench.load import path_of, quantile

SLOW = 3.0
SLOW_MS = 10.0
"""A page is a slow one if it takes so many times as long as the median, and so long, in every walk."""

_PAGE = 100


@dataclass(frozen=True)
class Walk:
    """One reading of the whole list: the milliseconds of each page, and how many tags there were."""

    pages: tuple[float, ...]
    tags: int


@dataclass(frozen=True)
class Listing:
    """What several walks came to. A page's time is the least that any walk had for it: what else the
    machine did meanwhile is not the page's."""

    walks: tuple[Walk, ...]

    @property
    def pages(self) -> list[float]:
        return [min(times) for times in zip(*(walk.pages for walk in self.walks), strict=True)]

    @property
    def median(self) -> float:
        return statistics.median(self.pages)

    @property
    def p99(self) -> float:
        return quantile(self.pages, 0.99)

    @property
    def slowest(self) -> float:
        return max(self.pages)

    @property
    def total(self) -> float:
        """Milliseconds of a whole walk, the median."""
        return statistics.median(sum(walk.pages) for walk in self.walks)

    @property
    def tags(self) -> int:
        return self.walks[0].tags


def walk(server: RegistryServer, repository: Repository) -> Walk:
    """Follows the pages of 100 tags to the end."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    path: str | None = f"/v2/{repository.name}/tags/list?n={_PAGE}"
    pages: list[float] = []
    tags = 0
    while path is not None:
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        pages.append((time.perf_counter() - began) * 1000)
        assert answer.status == 200, body
        tags += len(json.loads(body)["tags"])
        following = re.match(r"<([^>]*)>", answer.headers.get("Link", ""))
        path = path_of(following[1]) if following else None
    connection.close()
    return Walk(tuple(pages), tags)


def listings(pair: dict[str, RegistryServer], repository: Repository, walks: int) -> dict[str, Listing]:
    """Walks each server's list in turns."""
    made: dict[str, list[Walk]] = {name: [] for name in pair}
    for _ in range(walks):
        for name, server in pair.items():
            made[name].append(walk(server, repository))
    return {name: Listing(tuple(some)) for name, some in made.items()}
