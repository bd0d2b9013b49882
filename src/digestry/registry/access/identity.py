"""Identities: the names of users, robots and tokens in the journal, in rules and in tokens."""

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
    """The name of a user, a robot (``robot$NAME``), or a mapped token of an outside issuer."""

    name: str

    @property
    def anonymous(self) -> bool:
        return self.name == ANONYMOUS_NAME

    @property
    def robot(self) -> bool:
        return self.name.startswith(ROBOT_PREFIX)


ANONYMOUS: Final = Identity(ANONYMOUS_NAME)


def check_user(name: str) -> str:
    """Return ``name`` if it is a valid user name. Raises ValueError."""
    if not name or len(name) > _LONGEST or not name.isprintable() or set(name) & set(' *,:"'):
        raise ValueError(f"{name!r} cannot be a user's name")
    if name in {ANONYMOUS_NAME, "authenticated"} or name.startswith(ROBOT_PREFIX):
        raise ValueError(f"the name {name!r} has a meaning of its own; choose another")
    return name


def check_robot(name: str) -> str:
    """Return ``name`` if it is a valid robot name, without ``robot$``. Raises ValueError."""
    if not _ROBOT_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a robot's name: lower-case letters, digits, '.', '_' and '-', at most 64"
        )
    return name
