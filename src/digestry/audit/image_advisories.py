"""The advisories of one image, in every repository that has its code."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from digestry.advisories.advisory import AdvisoryReading
from digestry.advisories.attachments import read_advisories
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
    ) -> AdvisoryReading:
        """Read the advisories of every manifest and index that is or holds the code of ``identity``.

        In the repositories ``elsewhere``, which have the same code as the given digests, advisories are
        searched as well: a mirror of an image often has no copies of its advisories. All errors are reasons:
        an unread advisory may be worse. Repositories ``without_tags`` are not asked for tags.
        """
        indexes = frozenset(node.digest for node in identity.graph.nodes.values() if node.is_index)

        def look(repository: Reference, same_code: frozenset[Digest]) -> AdvisoryReading:
            return self.read(
                repository,
                subjects_of(identity, same_code),
                same_code=same_code,
                indexes=indexes,
                names=(identity.repository, *elsewhere),
                tags=repository not in without_tags,
            )

        reading = look(identity.repository, identity.closure)
        for repository, there in elsewhere.items():
            other = look(repository, identity.closure | there)
            reading.attached += other.attached
            reading.advisories += other.advisories
            reading.reasons += [f"in {repository.name}: {reason}" for reason in other.reasons]
            reading.missed += other.missed
        return reading

    def read(
        self,
        repository: Reference,
        subjects: frozenset[Digest],
        *,
        same_code: frozenset[Digest] = frozenset(),
        indexes: frozenset[Digest] = frozenset(),
        names: Iterable[Reference] = (),
        tags: bool = True,
    ) -> AdvisoryReading:
        """Read the advisories on ``subjects``, and on the layers and configs of the images among them. See
        :func:`~digestry.advisories.attachments.read_advisories`."""
        reading = read_advisories(
            self._queries,
            repository,
            subjects,
            same_code=same_code,
            indexes=indexes,
            names=names,
            tags=tags,
        )
        parts = self._parts.read(repository, subjects - indexes)
        reading.attached += parts.attached
        reading.advisories += parts.advisories
        reading.reasons += parts.reasons
        reading.missed += parts.missed
        return reading

    def read_possible(self, identity: ImageIdentity, image: Digest) -> AdvisoryReading:
        """Read the advisories of ``image``, one of those that may be the one that runs."""
        return self.read(identity.repository, identity.holding(image))


def subjects_of(identity: ImageIdentity, same_code: frozenset[Digest] | None = None) -> frozenset[Digest]:
    """Return the manifests and indexes on which advisories about ``identity`` may be attached."""
    closure = identity.closure if same_code is None else same_code
    return closure - {identity.config} if identity.config else closure
