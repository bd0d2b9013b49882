"""The keys and columns of an inventory file, under their usual names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from digestry.inventory.formats.digest_columns import Role, plain, role_of

_Column: TypeAlias = Literal[
    "host",
    "namespace",
    "pod",
    "name",
    "id",
    "reference",
    "registry",
    "repository",
    "tag",
    "platform",
    "state",
]

_CALLED: Final[dict[_Column, str]] = {
    # The columns, each with its usual names, the clearest first.
    "host": "host hostname node nodename server machine k8snodename",
    "namespace": "namespace project stack k8snamespacename",
    "pod": "pod podname k8spodname",
    "name": "name containername container names k8scontainername",
    "id": "id containerid",
    "reference": "reference image imagename imagereference imageuri imagespec",
    "registry": "registry registryhost registryserver imageregistry",
    "repository": "repository imagerepository repo containerimagename containerimagerepository",
    "tag": "tag imagetag containerimagetag containerimagetags",
    "platform": "platform",
    "state": "state status phase laststatus currentstate running desiredstatus clientstatus isrunning online",
}
_COLUMNS: Final = {name: column for column, names in _CALLED.items() for name in names.split()}
_RANK: Final = {name: rank for names in _CALLED.values() for rank, name in enumerate(names.split())}

WHO: Final[tuple[_Column, ...]] = ("host", "namespace", "name", "id")
"""The columns that say which container it is, and not which image it has."""

IDENTIFYING: Final[dict[str, Role]] = {"digest": "digest", "image_id": "image-id"}
"""The kinds of identities under the documented keys."""


class Values(NamedTuple):
    """One container of an inventory; "" is an unknown value. ``identities`` are keys and values."""

    host: str
    namespace: str
    name: str
    id: str
    reference: str
    platform: str
    state: str
    identities: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The meaning of a row's cells: ``columns`` by their positions, ``identities`` besides.

    ``read`` are the headings that are read, ``suspect`` those that could hold an identity and are not.
    """

    columns: dict[_Column, tuple[int, ...]]
    identities: tuple[tuple[str, int], ...]
    read: frozenset[str]
    suspect: frozenset[str]

    @property
    def of_image(self) -> tuple[int, ...]:
        """The positions of all cells that decide which image a container has, and whether it runs."""
        cells = [at for column, found in self.columns.items() if column not in WHO for at in found]
        return (*cells, *(at for _, at in self.identities))

    @property
    def of_container(self) -> tuple[int, ...] | None:
        """The positions of host, namespace, name and ID, -1 where there is none.

        None if one of these is to be chosen from several cells.
        """
        if "pod" in self.columns or any(len(self.columns.get(column, ())) > 1 for column in WHO):
            return None
        return tuple(next(iter(self.columns.get(column, ())), -1) for column in WHO)

    @property
    def identifies(self) -> bool:
        """Whether any column says which image a container has."""
        return bool(self.identities) or "reference" in self.columns or "repository" in self.columns

    def values(self, cells: Sequence[str]) -> Values:
        """Return the container that one row describes."""
        found: dict[_Column, str] = {}
        for column, positions in self.columns.items():
            for at in positions:
                if cells[at]:
                    found[column] = cells[at]
                    break
        get = found.get
        reference, name, pod = get("reference", ""), get("name", ""), get("pod", "")
        reference = _with_tag(reference or get("repository", ""), get("tag", "").partition(" ")[0])
        reference = _with_registry(get("registry", ""), reference)
        identities: list[tuple[str, str]] = []
        for heading, at in self.identities:
            cell = cells[at]
            # Of several in one cell, each is one.
            parts = cell.replace(",", " ").split() if " " in cell or "," in cell else (cell,)
            identities += [(heading, part) for part in parts if not is_empty(part)]
        return Values(
            get("host", ""),
            get("namespace", ""),
            f"{pod}/{name}" if pod and name else pod or name,
            get("id", ""),
            reference,
            get("platform", ""),
            get("state", ""),
            tuple(identities),
        )


_SCHEME: Final = re.compile(r"https?://", re.IGNORECASE)
_HOST: Final = re.compile(
    r"(?:[a-z0-9-]+(?:\.[a-z0-9-]+)+|localhost|\[[0-9a-f:.]+\]|[a-z0-9-]+(?=:))(?::[0-9]+)?",
    re.IGNORECASE | re.ASCII,
)
_EMPTY: Final = frozenset(
    {"", "<none>", "<none>@<none>", "<nil>", "-", "--", "null", "nil", "none", "n/a", "na", "unknown", "[]"}
)
_NAMES_VERSION: Final = re.compile(r"[^/]*[:@][^/]*|[0-9a-f]{64}", re.ASCII)


def is_empty(cell: str) -> bool:
    """Return whether ``cell`` is what programs write for a value that they do not have."""
    return cell.lower() in _EMPTY


def _with_tag(reference: str, tag: str) -> str:
    """Return ``reference`` with a tag from a column of its own, if it names neither a tag nor a digest."""
    last = reference.rpartition("/")[2]
    if not last or is_empty(tag) or _NAMES_VERSION.fullmatch(last):
        return reference
    return f"{reference}:{tag}"


def _with_registry(registry: str, reference: str) -> str:
    """Return ``reference`` with its registry before it, from a column of its own.

    Without it, the name would be one of docker.io. A registry that is no host's name, such as ``Docker Hub``,
    is not used.
    """
    host = _SCHEME.sub("", registry).rstrip("/")
    if not reference or _HOST.fullmatch(host) is None or reference.startswith(f"{host}/"):
        return reference
    first, slash, _ = reference.partition("/")
    return reference if slash and _HOST.fullmatch(first) else f"{host}/{reference}"


def plan(headings: Sequence[str]) -> Plan:
    """Return how to read a row with these headings. Case and punctuation do not matter."""
    columns: dict[_Column, list[int]] = {}
    identities: list[tuple[str, int]] = []
    read: set[str] = set()
    suspect: set[str] = set()
    for at, heading in enumerate(headings):
        role = role_of(heading)
        column = _COLUMNS.get(plain(heading))
        if column is not None:
            columns.setdefault(column, []).append(at)
            read.add(heading)
        elif role == "unread":
            suspect.add(heading)
        elif role:
            identities.append((heading, at))
            read.add(heading)
    ordered = {
        # The last of several that are called the same counts, and the documented names before others.
        column: tuple(sorted(positions, key=lambda at: (_RANK[plain(headings[at])], -at)))
        for column, positions in columns.items()
    }
    identities.sort(key=lambda identity: role_of(identity[0]) == "image-id")
    return Plan(ordered, tuple(identities), frozenset(read), frozenset(suspect))


@lru_cache(4096)
def names_image(key: str) -> bool:
    """Return whether a key holds an image's name, or an identity that is read."""
    return bool(reads(key)) or _COLUMNS.get(plain(key)) == "reference"


def is_state(key: str) -> bool:
    """Return whether a key says whether a container runs."""
    return _COLUMNS.get(plain(key)) == "state"


@lru_cache(4096)
def reads(key: str) -> Role:
    """Return which identity a key holds, if it is one that is read; "" for any other key."""
    role = role_of(key)
    return "" if role == "unread" else role
