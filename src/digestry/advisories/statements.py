"""Documents of advisories in any form: their statements, and the products that these are about."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from digestry.advisories.dsse import Envelope
from digestry.model.digest import Digest
from digestry.model.json_values import JsonObject
from digestry.model.reference import Reference

Status: TypeAlias = Literal["affected", "not_affected", "fixed", "under_investigation"]
STATUSES: Final[tuple[Status, ...]] = ("affected", "not_affected", "fixed", "under_investigation")
GOOD: Final[frozenset[Status]] = frozenset({"fixed", "not_affected"})
SEVERITIES: Final = ("negligible", "low", "medium", "high", "critical")
"""How severe scanners call a vulnerability, the least severe first."""
LONG_AGO: Final = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)
"""The time of statements without one, in formats that do not require it: any other time is newer."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product of a statement. ``names`` are its identifiers as they were written (purls, image names, IRIs,
    CPEs), ``hashes`` its hashes by algorithm. ``inside``: it is a component that the document itself lists
    for its image. ``components`` are the subcomponents that the statement is about; none is all of the
    product."""

    names: tuple[str, ...] = ()
    hashes: tuple[tuple[str, str], ...] = ()
    components: tuple[str, ...] = ()
    inside: bool = False

    @property
    def shown(self) -> str:
        """What people call it."""
        if self.names:
            return self.names[0]
        return ":".join(self.hashes[0]) if self.hashes else "a product without a name"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, completed by the fields that it inherits from its document.

    Without ``products`` it is about the image that it is attached to. ``fixed_by`` are the images that its
    action names. ``severity`` is a word of :data:`SEVERITIES`, empty if it is not known. ``raw`` is its JSON,
    with its time filled in.
    """

    vulnerability: str
    aliases: tuple[str, ...]
    status: Status
    timestamp: datetime.datetime
    version: int
    author: str
    products: tuple[Product, ...]
    raw: JsonObject
    fixed_by: tuple[Reference, ...] = ()
    action: str = ""
    notes: str = ""
    justification: str = ""
    impact: str = ""
    identity: str = ""
    severity: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One document. ``kind`` is its format, such as ``OpenVEX``; ``identity`` and ``author`` identify the
    document that it is a version of. ``subjects`` are the digests that the in-toto statement around it is
    about, and ``vague``: it names subjects by other means only; ``enveloped``: it was in an envelope with
    signatures; ``envelope`` is that one, unless the envelope is around something else that the document was
    found in. ``ours``: digestry wrote it. ``revision`` is a version of several numbers, the most
    significant first, and ``updated`` when the version was made. ``faults`` are statements that could not be
    read."""

    kind: str
    predicate: JsonObject
    version: int
    author: str
    identity: str
    statements: tuple[Statement, ...]
    faults: tuple[str, ...] = ()
    subjects: frozenset[Digest] = frozenset()
    vague: bool = False
    enveloped: bool = False
    envelope: Envelope | None = None
    ours: bool = False
    revision: tuple[int, ...] = ()
    updated: datetime.datetime = LONG_AGO

    @property
    def rank(self) -> tuple[tuple[int, ...], datetime.datetime]:
        """The order of the versions of one document: by version, and of the same version by time."""
        return self.revision or (self.version,), self.updated

    @property
    def shown_version(self) -> str:
        """The version, for people."""
        return ".".join(map(str, self.revision)) or str(self.version)


@dataclass(frozen=True, slots=True)
class UnreadableDocument:
    """Bytes in which something may be stated that cannot be read, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class ForeignDocument:
    """A document of another kind, which states nothing: a bill of materials, a provenance."""

    kind: str


def read_each(
    entries: Iterable[object], what: str, read: Callable[[object], Iterable[Statement | UnreadableDocument]]
) -> tuple[tuple[Statement, ...], tuple[str, ...]]:
    """Return the statements that ``read`` finds in each of ``entries``, and the faults: unreadable entries,
    named by ``what`` an entry is and its position."""
    statements: list[Statement] = []
    faults: list[str] = []
    for position, entry in enumerate(entries, 1):
        for found in read(entry):
            if isinstance(found, UnreadableDocument):
                faults.append(f"{what} {position}: {found.reason}")
            else:
                statements.append(found)
    return tuple(statements), tuple(faults)
