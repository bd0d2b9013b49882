"""The table: situations that containers get into, how each is made, and the one right answer to it.

A row's steps are verbs and their words. Images are called ``[REGISTRY!]NAME[:TAG][@LABEL]``: the registry is
the one that remembers unless it is ``plain`` (one without history) or ``away`` (one that will not answer),
and a label stands for a digest that an earlier step gave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

Step: TypeAlias = tuple[str, ...]
"""``publish LABEL IMAGE``: makes an image and points a tag to it, from elsewhere.
``sibling LABEL OF IMAGE``: the same with the config of ``OF`` and another manifest.
``index LABEL IMAGE``: the same with an index of two images, ``LABEL-own`` for this machine, ``LABEL-other``.
``run NAME IMAGE``: the runtime pulls it and starts a container. ``start NAME IMAGE``: without pulling.
``start-id NAME IMAGE``: by the image's ID.  ``pull``, ``forget``, ``push`` ``IMAGE``; ``tag IMAGE NAME``.
``load LABEL IMAGE``, ``load-old LABEL IMAGE``: from an archive, with and without the image's own manifest.
``build IMAGE``.  ``pushed LABEL IMAGE``: the digest that a tag has in the registry now.
``untag IMAGE``: the registry's tag is deleted.  ``restart``.  ``away``: that registry ends.
``affected LABEL IMAGE [FIXED]``: an advisory on the digest of ``LABEL``, in the repository of ``IMAGE``."""


@dataclass(frozen=True)
class Right:
    """What is true of one container: the digest that it runs (a label, None where nobody can know), the
    state of its tag, and that of the advisories."""

    runs: str | None
    tag: str
    advisory: str


@dataclass(frozen=True)
class Less:
    """What a family of runtimes, or one of them, cannot know in a row: the other answers that are honest
    there, and why."""

    families: frozenset[str]
    answers: Mapping[str, tuple[Right, ...]]
    exits: frozenset[int]
    why: str


@dataclass(frozen=True)
class Row:
    name: str
    steps: tuple[Step, ...]
    right: dict[str, Right]
    exit: int
    less: tuple[Less, ...] = field(default=())


UNKNOWN: Final = Right(None, "unknown", "unknown")
_ID_ONLY: Final = "containerd 1.6 keeps the ID that a kubelet gives, and not the name that the pod has"
_BARE: Final = "a bare containerd keeps the name of a container's image, and no digest"


def _row(
    name: str,
    exit_code: int,
    right: dict[str, Right],
    *steps: str,
    less: tuple[Less, ...] = (),
    others: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Row:
    """``others`` are the labels of digests with the same code that a runtime without a name may tell."""
    bare = Less(frozenset({"ctr"}), dict.fromkeys(right, (UNKNOWN,)), frozenset({exit_code, 3}), _BARE)
    nameless = {
        name: (UNKNOWN, *(Right(runs, "unknown", one.advisory) for runs in {one.runs, *others.get(name, ())}))
        for name, one in right.items()
    }
    by_id = Less(frozenset({"containerd-1.6-cri"}), nameless, frozenset({exit_code, 3}), _ID_ONLY)
    return Row(name, tuple(tuple(step.split()) for step in steps), right, exit_code, (bare, by_id, *less))


ROWS: Final = (
    _row(
        "moved tag", 1,
        {"old": Right("v1", "moved", "affected"), "new": Right("v2", "current", "fixed")},
        "publish v1 app:1", "run old app:1", "publish v2 app:1", "run new app:1", "affected v1 app v2",
    ),
    _row(
        "moved twice", 1,
        {
            "one": Right("v1", "moved", "affected"),
            "two": Right("v2", "moved", "not_assessed"),
            "three": Right("v3", "current", "fixed"),
        },
        "publish v1 app:1", "run one app:1", "publish v2 app:1", "run two app:1", "publish v3 app:1",
        "run three app:1", "affected v1 app v3",
    ),
    _row(
        "orphan", 1,
        {"orphan": Right("v1", "moved", "affected")},
        "publish v1 app:1", "run orphan app:1", "publish v2 app:1", "pull app:1", "forget app:1",
        "affected v1 app v2",
    ),
    _row(
        "pinned", 1,
        {"bad": Right("v1", "pinned", "affected"), "good": Right("v2", "pinned", "fixed")},
        "publish v1 app:1", "publish v2 app:1", "run bad app@v1", "run good app@v2", "affected v1 app v2",
    ),
    _row(
        "tag and digest", 1,
        {"both": Right("v1", "pinned", "affected")},
        "publish v1 app:1", "run both app:1@v1", "publish v2 app:1", "affected v1 app v2",
    ),
    _row(
        "multi-platform index", 1,
        {"own": Right("a", "current", "affected"), "other": Right("b", "current", "not_assessed")},
        "index a app:1", "index b app:2", "run own app:1", "run other app:2",
        "affected a-own app", "affected b-other app",
        less=(
            Less(
                frozenset({"docker-containerd"}),
                {"other": (Right("b", "current", "unknown"),)}, frozenset({1}),
                "releases before 28 tell the index alone, of which another platform's image may run",
            ),
        ),
    ),
    _row(
        "one platform of an index", 1,
        {"child": Right("a-own", "pinned", "affected")},
        "index a app:1", "run child app@a-own", "affected a app",
    ),
    _row(
        "loaded from an archive", 1,
        {"loaded": Right("v1", "current", "affected")},
        "publish v1 app:1", "load v1 app:1", "start loaded app:1", "affected v1 app",
    ),
    _row(
        "loaded from an old archive", 1,
        {"loaded": Right("v1", "current", "affected")},
        "publish v1 app:1", "load-old v1 app:1", "start loaded app:1", "affected v1 app",
        less=(
            Less(
                frozenset({"docker-containerd", "ctr"}),
                {"loaded": (UNKNOWN,)},
                frozenset({3}),
                "the store writes a manifest of its own for such an archive, and tells its digest only",
            ),
        ),
    ),
    _row(
        "built and never pushed", 3,
        {"local": Right(None, "never", "unknown")},
        "publish v1 app:1", "build app:local", "start local app:local", "affected v1 app",
        less=(
            Less(
                frozenset({"docker-containerd"}), {"local": (UNKNOWN,)}, frozenset({3}),
                "the store writes manifests of its own also of what it loads: that no registry has one tells "
                "nothing",
            ),
        ),
    ),
    _row(
        "built and pushed", 1,
        {"built": Right("v1", "current", "affected")},
        "build app:1", "push app:1", "pushed v1 app:1", "start built app:1", "affected v1 app",
    ),
    _row(
        "retagged", 1,
        {"renamed": Right("v1", "never", "affected")},
        "publish v1 app:1", "pull app:1", "tag app:1 other:1", "start renamed other:1", "affected v1 app",
        less=(
            Less(
                frozenset({"ctr"}), {"renamed": (Right(None, "never", "unknown"),)}, frozenset({3}), _BARE
            ),
        ),
    ),
    _row(
        "retagged and pushed", 1,
        {"renamed": Right("pushed", "current", "affected")},
        # What an engine pushes may be another manifest than what it pulled, with the same config.
        "publish v1 app:1", "pull app:1", "tag app:1 other:1", "push other:1", "pushed pushed other:1",
        "start renamed other:1", "affected v1 app",
        others={"renamed": ("v1",)},
    ),
    _row(
        "two repositories with one config", 1,
        {"first": Right("a", "current", "affected"), "second": Right("b", "current", "affected")},
        "publish a one:1", "sibling b a two:1", "run first one:1", "run second two:1", "affected a one",
        others={"second": ("a",), "first": ("b",)},
    ),
    _row(
        "image removed", 1,
        {"left": Right("v1", "current", "affected")},
        "publish v1 app:1", "run left app:1", "forget app:1", "affected v1 app",
    ),
    _row(
        "engine restarted", 1,
        {"old": Right("v1", "moved", "affected")},
        "publish v1 app:1", "run old app:1", "publish v2 app:1", "pull app:1", "restart",
        "affected v1 app v2",
    ),
    _row(
        "tag deleted", 1,
        {"old": Right("v1", "moved", "affected")},
        "publish v1 app:1", "run old app:1", "untag app:1", "affected v1 app",
    ),
    _row(
        "tag re-created", 1,
        {"moved": Right("v1", "moved", "affected"), "again": Right("v2", "current", "not_assessed")},
        "publish v1 app:1", "publish v2 app:2", "run moved app:1", "run again app:2", "untag app:1",
        "untag app:2", "publish v3 app:1", "publish v2 app:2", "affected v1 app",
    ),
    _row(
        "registry away", 3,
        {"far": Right("v1", "unknown", "unknown")},
        "publish v1 away!app:1", "run far away!app:1", "away",
        less=(
            Less(
                frozenset({"docker-classic", "docker-containerd", "podman", "cri"}),
                {"far": (UNKNOWN,)}, frozenset({3}),
                "the runtime may have put the digest together itself, and no registry confirms it",
            ),
        ),
    ),
    _row(
        "registry without history", 1,
        {"old": Right("v1", "unknown", "affected"), "new": Right("v2", "current", "fixed")},
        "publish v1 plain!app:1", "run old plain!app:1", "publish v2 plain!app:1", "run new plain!app:1",
        "affected v1 plain!app v2",
    ),
    _row(
        "started by ID", 1,
        {"by-id": Right("v1", "unknown", "affected")},
        "publish v1 app:1", "pull app:1", "start-id by-id app:1", "affected v1 app",
        less=(
            Less(
                frozenset({"podman", "cri"}), {"by-id": (Right("v1", "current", "affected"),)},
                frozenset({1}),
                "the runtime itself puts a name of the image in the place of the ID",
            ),
        ),
    ),
    _row(
        "untouched", 0,
        {"quiet": Right("v1", "current", "not_assessed")},
        "publish v1 app:1", "run quiet app:1",
    ),
)  # fmt: skip
