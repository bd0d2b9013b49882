"""The platform: which operating system and processor an image runs on (image-spec, image-index.md)."""

from __future__ import annotations

import os
import re
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
_PARTS: Final = 3
_PART: Final = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


class Platform(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"os_version": "os.version", "os_features": "os.features"},
):
    """Operating system, architecture and variant, in Go's names (``linux``, ``arm64``, ``v8``)."""

    architecture: str
    os: str
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Reads ``os/architecture[/variant]``. Raises :class:`InvalidConfiguration`."""
        parts = text.split("/")
        if not 2 <= len(parts) <= _PARTS or not all(map(_PART.fullmatch, parts)):
            raise InvalidConfiguration(
                f"platform {shown(text)} is not valid", hint="write it as linux/amd64 or linux/arm/v7"
            )
        architecture, implied = _MACHINES.get(parts[1].lower(), (parts[1].lower(), None))
        return cls(architecture, parts[0].lower(), parts[2].lower() if len(parts) == _PARTS else implied)

    @classmethod
    def of_host(cls) -> Platform:
        """This machine's, as container images name it (always ``linux``: that is what engines run)."""
        machine = os.uname().machine.lower()
        architecture, variant = _MACHINES.get(machine, (machine, None))
        return cls(architecture, "linux", variant)

    def normalized(self) -> Platform:
        """In one spelling, as containerd has it: without arm64's ``v8`` and amd64's ``v1``, with the
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
        if (architecture, variant) == (self.architecture, self.variant):
            return self
        return msgspec.structs.replace(self, architecture=architecture, variant=variant)

    def satisfies(self, wanted: Platform) -> bool:
        """Whether an image of this platform is what ``wanted`` asks for (variants must agree)."""
        mine, other = self.normalized(), wanted.normalized()
        return (mine.os, mine.architecture, mine.variant) == (other.os, other.architecture, other.variant)

    def __str__(self) -> str:
        base = f"{self.os}/{self.architecture}"
        return f"{base}/{self.variant}" if self.variant else base
