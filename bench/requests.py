"""Many small requests: pulls and pushes of manifests and small blobs, by tags and by clients."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from tests.support import RegistryServer

from bench import content
from bench.compare import OURS, Line, Measure, Options, measure
from bench.content import Repository
from bench.load import Flow, Load, Work, drive, get, request
from digestry.model import media_types

CLIENTS = 16
MANIFEST_GOAL = 13.0
BLOB_GOAL = 8.0
_COUNTS = (1, 4, 16, 64)
_RARE = frozenset({"HEAD manifest by tag", "PATCH blob of 1.6 KB"})
"""What is measured once, and not how it changes: it goes the way of the others."""
# docker-registry refuses to serve an OCI manifest to who does not say that it is wanted.
_ACCEPT = {"Accept": media_types.OCI_MANIFEST}


class Loads:
    """The loads that one repository can be put under."""

    def __init__(self, repository: Repository, seconds: float) -> None:
        self._repository = repository
        self._seconds = seconds
        self._by_tag = repository.tag_paths()
        self._by_digest = repository.digest_paths()
        self._blobs = repository.blob_paths()

    def by_tag(self, clients: int = CLIENTS) -> Measure:
        """GET of manifests by any of the tags."""
        return self._get(self._by_tag, clients)

    def by_digest(self, clients: int = CLIENTS) -> Measure:
        return self._get(self._by_digest, clients)

    def blobs(self, clients: int = CLIENTS) -> Measure:
        """GET of small blobs."""
        return self._get(self._blobs, clients)

    def first_page(self, clients: int = CLIENTS) -> Measure:
        """The first 100 of the tags. Not by wrk, which gives up before docker-registry has listed 100,000."""
        page = request("GET", f"/v2/{self._repository.name}/tags/list?n=100")

        def work(_: int) -> Flow:
            answer = yield page
            assert answer.status == 200, answer

        return self._drive(lambda: work, clients)

    def head(self, clients: int = CLIENTS) -> Measure:
        """HEAD of manifests by tag."""
        chance = random.Random(1505)  # noqa: S311 - the same ones in every run

        def work(_: int) -> Flow:
            answer = yield request("HEAD", chance.choice(self._by_tag), accept=media_types.OCI_MANIFEST)
            assert answer.status == 200, answer

        return self._drive(lambda: work, clients)

    def put_blobs(self, clients: int = CLIENTS) -> Measure:
        """POST and PUT of new small blobs."""
        return self._drive(lambda: content.new_blobs(self._repository.name, patch=False), clients)

    def patch_blobs(self, clients: int = CLIENTS) -> Measure:
        """The same as docker does it."""
        return self._drive(lambda: content.new_blobs(self._repository.name, patch=True), clients)

    def put_manifests(self, clients: int = CLIENTS) -> Measure:
        """PUT of new manifests by tag: each moves a tag."""
        return self._drive(lambda: content.new_manifests(self._repository.name), clients)

    def _get(self, paths: Sequence[str], clients: int) -> Measure:
        def run(server: RegistryServer) -> Load:
            return get(server.host, paths, clients=clients, seconds=self._seconds, headers=_ACCEPT)

        return run

    def _drive(self, make: Callable[[], Work], clients: int) -> Measure:
        return lambda server: drive(server.port, make(), clients=clients, seconds=self._seconds)


Many = Callable[[Loads], Callable[[int], Measure]]

_KINDS: tuple[tuple[str, Many, float | None], ...] = (
    ("GET manifest by tag", lambda loads: loads.by_tag, MANIFEST_GOAL),
    ("GET manifest by digest", lambda loads: loads.by_digest, MANIFEST_GOAL),
    ("HEAD manifest by tag", lambda loads: loads.head, None),
    ("GET blob of 1.6 KB", lambda loads: loads.blobs, BLOB_GOAL),
    ("PUT blob of 1.6 KB", lambda loads: loads.put_blobs, None),
    ("PATCH blob of 1.6 KB", lambda loads: loads.patch_blobs, None),
    ("PUT manifest", lambda loads: loads.put_manifests, None),
)


def by_cores(
    one: tuple[RegistryServer, RegistryServer],
    every: tuple[RegistryServer, RegistryServer],
    repository: Repository,
    options: Options,
) -> list[Line]:
    """Each kind of request, with one core for each server, with all, and with one against all."""
    loads = Loads(repository, options.seconds)
    servers = {f"{OURS} 1": one[0], "peer 1": one[1], f"{OURS} all": every[0], "peer all": every[1]}
    lines = []
    for what, kind, goal in _KINDS:
        results = measure(servers, options.rounds, kind(loads)(CLIENTS))
        lines += [
            Line(what, f"{mine} : {its}", "/s", results[f"{OURS} {mine}"], results[f"peer {its}"], goal)
            for mine, its in (("1", "1"), ("all", "all"), ("1", "all"))
        ]
    return lines


def by_clients(
    pair: Mapping[str, RegistryServer], repository: Repository, options: Options
) -> dict[str, list[Line]]:
    """The same requests from more and more clients, for half the time each."""
    loads = Loads(repository, options.seconds / 2)
    return {
        what: [
            _line(
                what, f"{clients} clients", pair=pair, options=options, load=kind(loads)(clients), goal=goal
            )
            for clients in _COUNTS
        ]
        for what, kind, goal in _KINDS
        if what not in _RARE
    }


def by_tags(
    pair: Mapping[str, RegistryServer], repositories: Sequence[Repository], options: Options
) -> dict[str, list[Line]]:
    """The same requests to repositories with more and more tags, for half the time each."""
    kinds: tuple[tuple[str, Many, float | None], ...] = (
        *(one for one in _KINDS if "manifest" in one[0] and one[0] not in _RARE),
        ("the first 100 tags", lambda loads: loads.first_page, None),
    )
    loads = {one.tags: Loads(one, options.seconds / 2) for one in repositories}
    return {
        what: [
            _line(
                what, f"{tags:,} tags", pair=pair, options=options, load=kind(loads[tags])(CLIENTS), goal=goal
            )
            for tags in loads
        ]
        for what, kind, goal in kinds
    }


def _line(
    what: str,
    setting: str,
    *,
    pair: Mapping[str, RegistryServer],
    options: Options,
    load: Measure,
    goal: float | None,
) -> Line:
    ours, theirs = measure(pair, options.rounds, load).values()
    return Line(what, setting, "/s", ours, theirs, goal)
