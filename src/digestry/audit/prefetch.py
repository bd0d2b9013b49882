"""Prefetch registry answers: ask a registry about all images at once, if it allows that.

The answers are the same that single queries would give, and are ready when the audit looks at an image. If a
registry has no bulk query, nothing happens here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from digestry.advisories.attachments import attachment_tags
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.repository_search import RepositoryQuestions
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.model.resolution import ResolveQuery

_EACH: Final = 200  # digests, or tags, of one query
_HOSTS: Final = 8


@dataclass(slots=True)
class _Wanted:
    digests: dict[Digest, None] = field(default_factory=dict)
    tags: dict[str, None] = field(default_factory=dict)
    prefixes: dict[str, None] = field(default_factory=dict)


def prefetch(queries: RegistryQueries, questions: Iterable[RepositoryQuestions]) -> None:
    """Fetch the answers to ``questions`` with few requests. Raises nothing: a query that fails is sent again,
    alone, when its answer is needed.

    No request is sent to a host that only a runtime named: the audit may never need it.
    """
    every = list(questions)
    hosts = {question.repository.host for question in every if question.named}
    wanted: dict[Reference, _Wanted] = {}
    for question in every:
        if question.repository.host in hosts:
            mine = wanted.setdefault(question.repository, _Wanted())
            mine.digests.update(dict.fromkeys(question.digests))
            mine.tags.update(dict.fromkeys(question.tags))
            mine.prefixes.update(dict.fromkeys(question.prefixes))
    by_host: dict[str, list[ResolveQuery]] = {}
    for repository, mine in wanted.items():
        by_host.setdefault(repository.host, []).extend(_queries(repository.repository, mine))
    if by_host:
        with ThreadPoolExecutor(min(len(by_host), _HOSTS), "prefetch") as pool:
            list(pool.map(lambda host: queries.prefetch(host, by_host[host]), by_host))


def of_images(images: Iterable[Reference]) -> Iterator[RepositoryQuestions]:
    """Yield questions about images that are named by their digests, and about their attachments."""
    for image in images:
        if image.digest is not None:
            tags = attachment_tags(image.digest)
            yield RepositoryQuestions(image.repository_only(), (image.digest,), tags)


def _queries(repository: str, wanted: _Wanted) -> Iterator[ResolveQuery]:
    digests, tags, prefixes = tuple(wanted.digests), tuple(wanted.tags), tuple(wanted.prefixes)
    longest = max(len(digests), len(tags), len(prefixes))
    for start in range(0, longest, _EACH):
        end = start + _EACH
        yield ResolveQuery(repository, digests[start:end], tags[start:end], prefixes[start:end])
