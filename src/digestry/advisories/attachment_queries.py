"""The questions to registries that reading attachments takes."""

from __future__ import annotations

from typing import Protocol

from digestry.advisories.trust import TrustPolicy
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference


class AttachmentQueries(Protocol):
    """The questions to registries that reading attachments takes. Each raises
    :class:`~digestry.errors.DigestryError`."""

    @property
    def trust(self) -> TrustPolicy:
        """The policy that decides which of the answers count; it sends no question."""
        ...

    def resolve(self, repository: Reference, tag: str) -> Descriptor | None:
        """Return the descriptor that ``tag`` points to; None if there is no such tag."""
        ...

    def manifest(self, repository: Reference, digest: Digest) -> Manifest | None:
        """Return the manifest; None if the repository does not have it, or not whole."""
        ...

    def listed_manifest(self, repository: Reference, digest: Digest) -> Manifest | None:
        """Return the manifest as :meth:`manifest` does, raising
        :class:`~digestry.errors.RemoteDamaged` if the registry has it and cannot give it out."""
        ...

    def blob(self, repository: Reference, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return a blob's verified bytes, raising :class:`~digestry.errors.TooLarge` over ``limit``."""
        ...

    def referrers(self, repository: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the referrers of ``digest``; empty if there are none."""
        ...
