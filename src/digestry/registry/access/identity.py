"""Who asks. A name in the journal, in rules and in tokens is one of these."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

ANONYMOUS_NAME: Final = "anonymous"
ROBOT_PREFIX: Final = "robot$"
_ROBOT_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)
_LONGEST: Final = 128


@dataclass(frozen=True, slots=True)
class Identity:
    """A person, a robot (``robot$NAME``), or whoever an outside issuer's token stands for."""

    name: str

    @property
    def anonymous(self) -> bool:
        return self.name == ANONYMOUS_NAME

    @property
    def robot(self) -> bool:
        return self.name.startswith(ROBOT_PREFIX)


ANONYMOUS: Final = Identity(ANONYMOUS_NAME)


def check_user(name: str) -> str:
    """Returns ``name`` if a user of an htpasswd file or an issuer may have it. Raises ValueError."""
    if not name or len(name) > _LONGEST or not name.isprintable() or set(name) & set(' *,:"'):
        raise ValueError(f"{name!r} cannot be a user's name")
    if name in {ANONYMOUS_NAME, "authenticated"} or name.startswith(ROBOT_PREFIX):
        raise ValueError(f"the name {name!r} has a meaning of its own; choose another")
    return name


def check_robot(name: str) -> str:
    """Returns ``name`` if a robot token may have it, without the ``robot$``. Raises ValueError."""
    if not _ROBOT_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a robot's name: lower-case letters, digits, '.', '_' and '-', at most 64"
        )
    return name
