"""The protocol of inventory formats, and the rows that they parse: containers, and the images that these
share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from digestry.client.options import is_loopback
from digestry.inventory.engine_values import repository_of
from digestry.inventory.formats.engine_documents import ImageRecord
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.observation import ContainerObservation, ImageFacts, Note, Unseen, now
from digestry.inventory.waiting_reasons import Waiting
from digestry.model.digest import Digest

UNKNOWN_HOST: Final = "unknown host"

_LOOPBACK: Final = "is a registry on the container's own host; the one here was asked"

Fields: TypeAlias = Mapping[str, msgspec.Raw]
"""The keys of a JSON object, and their values, not yet read."""


@dataclass(frozen=True, slots=True)
class RowImage:
    """The image of one or more rows, with the properties that their containers share."""

    facts: ImageFacts
    remarks: tuple[str, ...] = ()
    runs: bool = True
    waiting: Waiting = ""


class DeferredImage:
    """An image that is made after the whole file was read, since later entries may describe it."""

    __slots__ = ("_image", "_make")

    def __init__(self, make: Callable[[], RowImage]) -> None:
        self._make = make
        self._image: RowImage | None = None

    def image(self) -> RowImage:
        if self._image is None:
            image = self._make()
            where = repository_of(image.facts.reference)
            remarks = image.remarks
            # Without a port, "localhost/" is podman's name for images in no registry.
            if where is not None and is_loopback(where.host) and where.host != "localhost":
                remarks = (*remarks, f"{where.host} {_LOOPBACK}")
            self._image = replace(image, remarks=tuple(dict.fromkeys(remarks)))
        return self._image


class Row(NamedTuple):
    """One container. ``host`` is empty if the file does not name it."""

    host: str
    namespace: str
    name: str
    id: str
    image: RowImage | DeferredImage


Item: TypeAlias = Row | ContainerObservation | Unseen | Note


@dataclass(slots=True)
class Reading:
    """The state of reading one file, which its formats share. ``where`` names the file, for people."""

    source: str
    where: str
    include_stopped: bool = False
    stopped: int = 0
    """Containers that were left out because they do not run."""
    answered: bool = False
    """Whether it states explicitly that there is nothing to list."""
    images: dict[Digest, ImageRecord] = field(default_factory=dict)
    _reported: set[Hashable] = field(default_factory=set)
    _shared: dict[Hashable, DeferredImage] = field(default_factory=dict)
    _texts: dict[str, str] = field(default_factory=dict)

    def shared(self, key: tuple[Hashable, ...], make: Callable[[], RowImage]) -> DeferredImage:
        """Return the image of ``key``: the same object for every container that has it."""
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = DeferredImage(make)
        return found

    def text(self, text: str) -> str:
        """Return ``text``, interned: the same object for equal texts."""
        return self._texts.setdefault(text, text)

    def add_image(self, identity: Digest, image: ImageRecord) -> None:
        """Add the file's description of the image that runtimes call ``identity``."""
        known = self.images.get(identity)
        self.images[identity] = image if known is None else known.joined(image)

    def left_out(self, *, runs: bool) -> bool:
        """Return whether to leave a container out because it does not run, and count those."""
        if runs or self.include_stopped:
            return False
        self.stopped += 1
        return True

    def problem(self, message: str, hint: str = "") -> Unseen:
        return Unseen(self.source, f"{self.where}: {message}", hint)

    def problem_on(self, line: int, message: str, hint: str = "") -> Unseen:
        """Return a problem on one line of the file."""
        return Unseen(self.source, f"{self.where}, line {line}: {message}", hint)

    def note(self, message: str, hint: str = "") -> Note:
        return Note(self.source, message, hint)

    def first(self, *what: Hashable) -> bool:
        """Return whether ``what`` was not reported of this file before."""
        if what in self._reported:
            return False
        self._reported.add(what)
        return True


class Format(Protocol):
    """One inventory format. An instance reads one file.

    ``title`` names it for people. ``usable`` names what an entry must have to be of use.
    """

    title: ClassVar[str]
    usable: ClassVar[str]

    def __init__(self, reading: Reading) -> None: ...

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        """Return whether an entry has this format. ``kind`` is its kind according to the list around it."""
        ...

    def read(self, raw: msgspec.Raw, fields: Fields, place: SourceLocation, index: int) -> Iterable[Item]:
        """Return the rows, problems and notes of one entry, the one at ``index`` of ``place``.

        Raises :class:`DigestryError`, and msgspec's errors.
        """
        ...

    def finish(self) -> Iterable[Item]:
        """Return the rows, problems and notes that need the whole file."""
        ...


def observe_rows(rows: Iterable[Row], *, source: str, host: str) -> Iterator[ContainerObservation]:
    """Yield the rows as observations of now. ``host`` is used for rows that have none."""
    seen_at = now()
    for row in rows:
        image = row.image if isinstance(row.image, RowImage) else row.image.image()
        yield ContainerObservation(
            source,
            row.host or host or UNKNOWN_HOST,
            row.namespace,
            row.name or row.id,
            row.id,
            image.facts,
            seen_at,
            image.remarks,
            image.runs,
            image.waiting,
        )


def begins_with(raw: msgspec.Raw | None, character: str) -> bool:
    """Return whether a value is an object (``{``), a list (``[``) or a string (``"``)."""
    if raw is None:
        return False
    view = memoryview(raw)
    return bool(view.nbytes) and view[0] == ord(character)
