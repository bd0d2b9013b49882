"""The platform: which operating system and processor an image runs on (image-spec, image-index.md)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown

_MACHINES: Final[dict[str, tuple[str, str | None]]] = {
    # uname's names and the usual other spellings -> GOARCH and variant, as containerd maps them
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "amd64": ("amd64", None),
    "i386": ("386", None),
    "i686": ("386", None),
    "aarch64": ("arm64", None),
    "arm64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
}
_SYSTEMS: Final = frozenset({"linux", "windows", "freebsd", "darwin", "wasip1"})
_ARCHITECTURES: Final = frozenset(
    {*_MACHINES, "arm", "386", "ppc64le", "s390x", "riscv64", "loong64", "mips64le", "wasm"}
)
_PARTS: Final = 3
_PART: Final = r"[A-Za-z0-9_.-]+"
_LEVEL: Final = r"v([0-9]{1,2})(?:\.([0-9]{1,2}))?"
_BUILD: Final = (
    r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:[^0-9].*)?"  # of Windows alone
)
_OLDEST_ARM: Final = 5
_ARM64_V8: Final = 8
_ARM64_V9: Final = 9
_V9_AHEAD: Final = 5  # arm64's v9.0 includes v8.5
_STABLE_WINDOWS: Final = 20348  # from this build on, a host runs images of earlier builds too
_LESS_THAN: Final[dict[str, tuple[str, ...]]] = {"amd64": ("386",), "arm64": ("arm",)}
"""The other architectures that a processor runs, if there is no image for its own."""
_PODMANS_ORDER: Final[dict[str, tuple[str, ...]]] = {"arm": ("v8", "v7", "v6", "v5"), "arm64": ("v8",)}


class Platform(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"os_version": "os.version", "os_features": "os.features"},
):
    """Operating system, architecture and variant, in Go's names (``linux``, ``arm64``, ``v8``).

    An index may leave out any of them: missing ones are empty, or None.
    """

    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Return the platform of ``os/architecture[/variant]``.

        Raises :class:`~digestry.errors.InvalidConfiguration`."""
        parts = text.split("/")
        if not 2 <= len(parts) <= _PARTS or not all(re.fullmatch(_PART, part, re.ASCII) for part in parts):
            raise InvalidConfiguration(
                f"platform {shown(text)} is not valid", hint="write it as linux/amd64 or linux/arm/v7"
            )
        architecture, implied = _MACHINES.get(parts[1].lower(), (parts[1].lower(), None))
        return cls(architecture, parts[0].lower(), parts[2].lower() if len(parts) == _PARTS else implied)

    @classmethod
    def chosen(cls, text: str) -> Platform:
        """Return the platform that a person writes, as containerd reads it: also ``arm64`` alone, which is
        linux's; ``linux`` or ``windows`` alone, of this machine's processor; ``windows(10.0.20348)/amd64``.

        Raises :class:`~digestry.errors.InvalidConfiguration`."""
        first, slash, rest = text.partition("/")
        build = re.fullmatch(r"([A-Za-z]+)\(([0-9A-Za-z.]{1,64})\)", first, re.ASCII)
        system = build[1] if build else first
        if slash:
            platform = cls.parse(f"{system}/{rest}")
        elif system.lower() in _SYSTEMS:
            platform = msgspec.structs.replace(cls.of_host(), os=system.lower())
        elif build is None and system.lower() in _ARCHITECTURES:
            platform = cls.parse(f"linux/{system}")
        else:
            platform = cls.parse(text)
        return msgspec.structs.replace(platform, os_version=build[2]) if build else platform

    @classmethod
    def of_host(cls) -> Platform:
        """Return this machine's platform; its system is always ``linux``, as that of engines."""
        machine = os.uname().machine.lower()
        architecture, variant = _MACHINES.get(machine, (machine, None))
        return cls(architecture, "linux", variant)

    def normalized(self) -> Platform:
        """Return it in containerd's spelling: without arm64's ``v8`` and amd64's ``v1``, with the
        ``v7`` of a bare ``arm``, an empty variant as none, and Go's names for processors."""
        machine = self.architecture.lower()
        architecture, implied = _MACHINES.get(machine, (machine, None))
        variant = (self.variant or "").lower() or implied
        if architecture in {"arm", "arm64"} and variant is not None and variant.isdecimal():
            variant = f"v{variant}"
        if (architecture, variant) in {("arm64", "v8"), ("amd64", "v1")}:
            variant = None
        elif (architecture, variant) == ("arm", None):
            variant = "v7"
        system = self.os.lower()
        if (architecture, variant, system) == (self.architecture, self.variant, self.os):
            return self
        return msgspec.structs.replace(self, architecture=architecture, variant=variant, os=system)

    @property
    def is_stated(self) -> bool:
        """Whether it names an operating system and an architecture."""
        return bool(self.os and self.architecture)

    @property
    def is_unknown(self) -> bool:
        """Whether it names ``unknown``, as buildkit does for an attestation."""
        return self.os == "unknown" or self.architecture == "unknown"

    def __str__(self) -> str:
        base = f"{self.os or '?'}/{self.architecture or '?'}"
        return f"{base}/{self.variant}" if self.variant else base


def by_preference(offered: Sequence[Platform | None], wanted: Platform) -> list[int]:
    """Return the positions of the platforms that run on ``wanted``: the best first, equals in their order.

    The order is containerd's (github.com/containerd/platforms): first the same, then the variants below it,
    from the highest down, then other architectures that the processor runs. A platform without a variant
    matches any variant that has no better match, as in podman. Platforms without an architecture are left
    out.
    """
    ranks = [
        (rank, position)
        for position, platform in enumerate(offered)
        if platform is not None and (rank := _rank(platform, wanted)) is not None
    ]
    return [position for _, position in sorted(ranks)]


def possible(offered: Sequence[Platform | None], node: Platform | None) -> list[int]:
    """Return the positions of the entries that an engine on ``node`` may have chosen: several, where the
    node's variant, level or build is not known, or where engines prefer different ones. ``node`` is None if
    nothing is known of it."""
    images = [n for n, platform in enumerate(offered) if platform is None or not platform.is_unknown]
    if node is None:
        return images
    plain = node.normalized()
    for architecture in (plain.architecture, *_LESS_THAN.get(plain.architecture, ())):
        known: list[tuple[int, Platform]] = []
        for position in images:
            platform = offered[position]
            if platform is None or platform.normalized().architecture != architecture:
                continue
            if platform.os.lower() in {"", plain.os}:  # engines take no word for their own system
                known.append((position, platform))
        if known:
            return _possible_builds(known, node) if plain.os == "windows" else _possible_variants(known, node)
    # Engines use an entry without a platform only if no other entry matches.
    return [n for n in images if (platform := offered[n]) is None or not platform.architecture]


def _possible_variants(known: list[tuple[int, Platform]], node: Platform) -> list[int]:
    if not node.variant:
        return [position for position, _ in known]
    plain = node.normalized()
    ranks = {
        position: _variant_rank(platform.normalized(), plain, says_variant=bool(platform.variant))
        for position, platform in known
    }
    best = min((rank for rank in ranks.values() if rank is not None), default=None)
    chosen = {position for position, rank in ranks.items() if rank is not None and rank == best}
    order = _PODMANS_ORDER.get(plain.architecture, ())
    order = order[order.index(node.variant) :] if node.variant in order else (node.variant,)
    for variant in (*order, None):
        taken = {position for position, platform in known if (platform.variant or None) == variant}
        if taken:
            chosen |= taken
            break
    return [position for position, _ in known if not chosen or position in chosen]


def _possible_builds(known: list[tuple[int, Platform]], node: Platform) -> list[int]:
    if node.os_version is None or re.fullmatch(_BUILD, node.os_version, re.ASCII) is None:
        return [position for position, _ in known]
    ranks = [(position, _build_rank(platform.os_version, node.os_version)) for position, platform in known]
    exact = [(rank, position) for position, rank in ranks if rank is not None and rank[0] == 0]
    if exact:
        best = min(rank for rank, _ in exact)
        return [position for rank, position in exact if rank == best]
    fitting = [position for position, rank in ranks if rank is not None]
    return fitting or [position for position, _ in known]


_Rank = tuple[int, int, int, int]


def _rank(offered: Platform, wanted: Platform) -> _Rank | None:
    """Return how well a platform runs on another: a lower rank is better; None if it does not run."""
    says_variant = bool(offered.variant)
    offered, wanted = offered.normalized(), wanted.normalized()
    if offered.os != wanted.os or not offered.is_stated or offered.is_unknown:
        return None
    variant = _variant_rank(offered, wanted, says_variant=says_variant)
    if variant is None:
        return None
    build = (0, 0)
    if wanted.os == "windows" and wanted.os_version is not None:
        found = _build_rank(offered.os_version, wanted.os_version)
        if found is None:
            return None
        build = found
    # Platforms with required features of the system come after those without.
    needs = len(set(offered.os_features or ()) - set(wanted.os_features or ()))
    return (variant, *build, needs)


def _variant_rank(offered: Platform, wanted: Platform, *, says_variant: bool) -> int | None:
    """Return the rank of a variant, among normalized platforms of one operating system."""
    order = _order(wanted.architecture, wanted.variant)
    mine = (offered.architecture, offered.variant)
    if mine in order:
        return order.index(mine)
    if offered.architecture == wanted.architecture and not says_variant:
        return len(order)
    return None


def _order(architecture: str, variant: str | None) -> list[tuple[str, str | None]]:
    """Return the architectures and variants that run on a processor, the best first, in normalized form."""
    order: list[tuple[str, str | None]] = [(architecture, variant)]
    level = re.fullmatch(_LEVEL, variant or "", re.ASCII)
    if architecture == "amd64":
        if level is not None:
            order += [("amd64", f"v{n}") for n in range(int(level[1]) - 1, 1, -1)]
            order.append(("amd64", None))
        order.append(("386", None))
    elif architecture == "arm" and level is not None:
        order += [("arm", f"v{n}") for n in range(int(level[1]) - 1, _OLDEST_ARM - 1, -1)]
    elif architecture == "arm64":
        major, minor = (int(level[1]), int(level[2] or 0)) if level is not None else (_ARM64_V8, 0)
        if major >= _ARM64_V9:
            order += [("arm64", _minor(_ARM64_V9, n)) for n in range(minor - 1, -1, -1)]
            minor += _V9_AHEAD + 1
        order += [("arm64", _minor(_ARM64_V8, n)) for n in range(minor - 1, -1, -1)]
        order += [("arm", f"v{n}") for n in range(_ARM64_V8, _OLDEST_ARM - 1, -1)]
    return list(dict.fromkeys(order))


def _minor(major: int, minor: int) -> str | None:
    if minor:
        return f"v{major}.{minor}"
    return None if major == _ARM64_V8 else f"v{major}"


def _build_rank(offered: str | None, host: str) -> tuple[int, int] | None:
    """Return the rank of a Windows build: the host's own first, its newest revision before others; then no
    build; then earlier builds that the host runs (Windows Server 2022 and later keep what images rely on)."""
    theirs = re.fullmatch(_BUILD, host, re.ASCII)
    mine = re.fullmatch(_BUILD, offered or "", re.ASCII)
    if theirs is None or mine is None:
        return (1, 0)
    if mine[1] != theirs[1] or mine[2] != theirs[2]:
        return None
    build, own = int(mine[3]), int(theirs[3])
    if build == own:
        return (0, -int(mine[4] or 0))
    return (2, -build) if _STABLE_WINDOWS <= build < own else None
