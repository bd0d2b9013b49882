"""The questions that a follower asks an engine: what Docker's API and podman's both answer."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from digestry.inventory.engines.client import Waiting
from digestry.inventory.formats.engine_documents import ImageRecord, ListedContainer
from digestry.inventory.observation import Observation
from digestry.model.digest import Digest
from digestry.model.platform import Platform


@dataclass(frozen=True, slots=True)
class NamedImage:
    """The image that a name means, its ID, and when the name was set; None if the engine does not say."""

    identity: Digest | None
    record: ImageRecord
    named_at: datetime.datetime | None = None


class ListedSource(Protocol):
    """The source whose containers are followed. Each question raises
    :class:`~digestry.errors.DigestryError`."""

    def containers(self, *, include_stopped: bool) -> list[ListedContainer]:
        """Return the engine's list of containers."""
        ...

    def container(
        self,
        entry: ListedContainer,
        host: str,
        platform: Platform | None,
        images: Callable[[str], ImageRecord],
        *,
        still_listed: bool,
    ) -> Observation | None:
        """Return one container; None if it is gone."""
        ...


class EngineAPI(Protocol):
    """The questions to an engine. Each raises :class:`~digestry.errors.DigestryError`."""

    @property
    def url(self) -> str: ...

    @property
    def made_up(self) -> bool:
        """Whether the engine pairs names and digests itself."""
        ...

    @property
    def clock_ahead(self) -> float:
        """The seconds by which the engine's clock is ahead of this machine's."""
        ...

    @property
    def source(self) -> ListedSource: ...

    def describe(self) -> tuple[str, Platform | None]: ...

    def events(self, since: int, wait: Waiting) -> Iterator[bytes | None]: ...

    def image(self, identity: str) -> ImageRecord: ...

    def named_image(self, name: str) -> NamedImage: ...
