"""The advisories of one image, in every repository that has its code."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from digestry.advisories.advisory import Advisory, AdvisoryReading, drop_superseded
from digestry.advisories.attachments import read_advisories
from digestry.advisories.trust import TrustPolicy
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.part_advisories import PartAdvisories
from digestry.audit.registry_queries import RegistryQueries
from digestry.model.digest import Digest
from digestry.model.reference import Reference

NOWHERE_ELSE: Final[Mapping[Reference, frozenset[Digest]]] = MappingProxyType({})


class ImageAdvisories:
    """Reads the advisories of images: those that are attached to them, and to their layers and configs.
    Thread-safe."""

    def __init__(self, queries: RegistryQueries) -> None:
        self._queries = queries
        self._parts = PartAdvisories(queries)

    def gather(
        self,
        identity: ImageIdentity,
        elsewhere: Mapping[Reference, frozenset[Digest]] = NOWHERE_ELSE,
        *,
        without_tags: Container[Reference] = (),
        own: Reference | None = None,
    ) -> AdvisoryReading:
        """Read the advisories of every manifest and index that is or holds the code of ``identity``.

        In the repositories ``elsewhere``, which have the same code as the given digests, advisories are
        searched as well: a mirror of an image often has no copies of its advisories. All errors are reasons:
        an unread advisory may be worse. Repositories ``without_tags`` are not asked for tags. A statement
        counts if the rules of trust for its own repository, for that of ``identity``, and for ``own``, by
        which the image was named, let it.
        """
        ruled_by = (identity.repository, *([own] if own is not None else []))
        indexes = frozenset(node.digest for node in identity.graph.nodes.values() if node.is_index)

        def look(repository: Reference, same_code: frozenset[Digest]) -> AdvisoryReading:
            return self.read(
                repository,
                subjects_of(identity, same_code),
                same_code=same_code,
                indexes=indexes,
                names=(identity.repository, *elsewhere),
                ruled_by=ruled_by,
                tags=repository not in without_tags,
            )

        reading = look(identity.repository, identity.closure)
        for repository, there in elsewhere.items():
            reading.add(look(repository, identity.closure | there), where=f"in {repository.name}: ")
        drop_superseded(reading)
        return reading

    def read(
        self,
        repository: Reference,
        subjects: frozenset[Digest],
        *,
        same_code: frozenset[Digest] = frozenset(),
        indexes: frozenset[Digest] = frozenset(),
        names: Iterable[Reference] = (),
        ruled_by: Iterable[Reference] = (),
        tags: bool = True,
    ) -> AdvisoryReading:
        """Read the advisories on ``subjects``, and on the layers and configs of the images among them. See
        :func:`~digestry.advisories.attachments.read_advisories`."""
        rules = (repository, *ruled_by)
        reading = read_advisories(
            self._queries,
            repository,
            subjects,
            same_code=same_code,
            indexes=indexes,
            names=names,
            ruled_by=rules,
            tags=tags,
        )
        parts = self._parts.read(repository, subjects - indexes)
        reading.attached += parts.attached
        counted, objections = counted_for(rules, parts.advisories, self._queries.trust)
        reading.advisories += counted
        reading.reasons += [*parts.reasons, *objections]
        reading.missed += parts.missed
        drop_superseded(reading)
        return reading

    def read_possible(self, identity: ImageIdentity, image: Digest) -> AdvisoryReading:
        """Read the advisories of ``image``, one of those that may be the one that runs."""
        return self.read(identity.repository, identity.holding(image))


def subjects_of(identity: ImageIdentity, same_code: frozenset[Digest] | None = None) -> frozenset[Digest]:
    """Return the manifests and indexes on which advisories about ``identity`` may be attached."""
    closure = identity.closure if same_code is None else same_code
    return closure - {identity.config} if identity.config else closure


def counted_for(
    repositories: Iterable[Reference], advisories: Iterable[Advisory], trust: TrustPolicy
) -> tuple[list[Advisory], list[str]]:
    """Return the ``advisories`` of other repositories that the rules of trust for ``repositories`` let count,
    and why others do not."""
    counted: list[Advisory] = []
    objections: dict[str, None] = {}
    ruling = tuple(dict.fromkeys(repositories))
    for advisory in advisories:
        status = advisory.statement.status
        every = (trust.objection(advisory.signature, status, repository) for repository in ruling)
        objection = next(filter(None, every), "")
        if not objection:
            counted.append(advisory)
        elif advisory.repository not in ruling:
            objections[f"what is stated in {advisory.repository.name} does not count: {objection}"] = None
    return counted, list(objections)
