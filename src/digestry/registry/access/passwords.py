"""Users of an ``htpasswd`` file, bcrypt only, read again when the file changes.

A password costs tens of milliseconds to verify, on purpose. So it is done in a thread, what was
found is remembered for a short time under a keyed hash, and how many wait for it is bounded, in all
and for each address: a flood of wrong passwords keeps one thread busy, and nobody else waiting.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import bcrypt

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown
from digestry.registry.access.identity import check_user
from digestry.registry.problems import Problem

log: Final = logging.getLogger("digestry.registry")

_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_HIGHEST_COST: Final = 16  # four seconds; 2^31 rounds would be hours
_LONGEST: Final = 72  # what bcrypt reads of a password, and htpasswd(1) gives it
_KEPT_SECONDS: Final = 60.0
_KEPT_WRONG_SECONDS: Final = 10.0
_KEPT: Final = 10_000
_WAITING: Final = 64
_WAITING_OF_ONE: Final = 4

# For a name that nobody has another's hash is compared, so that the time does not tell which names
# there are; this one if there is nobody.
_NOBODY: Final = b"$2b$10$7HZyub2OjC5.AG7ql0MaieShVqIBpxWevHP1zcKAKFhFtUx96ERLa"


def parse(text: str, file: Path) -> dict[str, bytes]:
    """The users and their hashes. Raises :class:`InvalidConfiguration`, which names the line."""
    users: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        place = f"{file}, line {number}"
        found = _BCRYPT.fullmatch(hashed)
        if found is None or not 4 <= int(found[1]) <= _HIGHEST_COST:
            why = "is not a bcrypt hash"
            if found is not None:
                why = f"has cost {found[1]}; 04 to {_HIGHEST_COST} are taken"
            raise InvalidConfiguration(
                f"{place}: the password of {shown(name)} {why}",
                hint="write the line with: htpasswd -B FILE USER",
            )
        try:
            check_user(name)
        except ValueError as error:
            raise InvalidConfiguration(f"{place}: {error}") from error
        if name in users:
            raise InvalidConfiguration(f"{place}: {shown(name)} is there twice")
        users[name] = hashed.encode()
    return users


def read(file: Path) -> dict[str, bytes]:
    """The users of ``file`` and their hashes. Raises :class:`InvalidConfiguration`."""
    try:
        return parse(file.read_text(encoding="utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidConfiguration(f"cannot read the users of {file}: {reason}") from error


class Passwords:
    """The users of one file. :meth:`start` reads it; everything else is for the event loop."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._users: dict[str, bytes] = {}
        self._seen: tuple[int, int, int] | None = None
        self._kept: OrderedDict[bytes, tuple[bool, float]] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._pending: dict[bytes, asyncio.Task[bool]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")

    def start(self) -> None:
        """Reads the file. Raises :class:`InvalidConfiguration`."""
        try:
            self._seen = self._stamp()
        except OSError:
            self._seen = None  # reading it says what is wrong
        self._users = read(self._file)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def refresh(self) -> bool:
        """Reads the file again if it changed; whether the users did. Errors leave them as they were."""
        try:
            if self._stamp() == self._seen:
                return False
            before = self._users
            self.start()
        except (OSError, InvalidConfiguration) as error:
            told = error.message if isinstance(error, InvalidConfiguration) else error
            log.error("%s; the users stay as they were", told)
            return False
        self._kept.clear()
        return self._users != before

    def _stamp(self) -> tuple[int, int, int]:
        found = self._file.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def fingerprint(self, name: str) -> str | None:
        """Changes with the user's password; None if there is no such user."""
        hashed = self._users.get(name)
        return None if hashed is None else hashlib.sha256(hashed).hexdigest()[:16]

    async def verify(self, name: str, password: str, *, key: bytes, address: str) -> bool:
        """Whether it is the user's password. ``key`` stands for both, and cannot be turned back.

        Raises :class:`Problem` 429 while too many are waiting.
        """
        now = time.monotonic()
        kept = self._kept.get(key)
        if kept is not None and kept[1] > now:
            self._kept.move_to_end(key)
            return kept[0]
        pending = self._pending.get(key)
        if pending is not None:
            return await asyncio.shield(pending)  # a client that opens several connections at once
        if self._waiting[address] >= _WAITING_OF_ONE or self._waiting.total() >= _WAITING:
            raise Problem(
                429,
                "TOOMANYREQUESTS",
                "too many passwords are waiting to be verified; try again in a moment",
                headers={"Retry-After": "2"},
            )
        self._waiting[address] += 1
        task = asyncio.get_running_loop().create_task(self._verify(name, password, key, address))
        self._pending[key] = task
        # A client that leaves does not take away what others wait for.
        return await asyncio.shield(task)

    async def _verify(self, name: str, password: str, key: bytes, address: str) -> bool:
        try:
            hashed = self._users.get(name)
            compared = hashed or next(iter(self._users.values()), _NOBODY)
            right = await asyncio.get_running_loop().run_in_executor(
                self._thread, _check, password.encode(), compared
            )
            # The file may have changed while the thread was busy.
            right = right and hashed is not None and self._users.get(name) == hashed
        finally:
            self._pending.pop(key, None)
            self._waiting[address] -= 1
            if self._waiting[address] <= 0:
                del self._waiting[address]
        seconds = _KEPT_SECONDS if right else _KEPT_WRONG_SECONDS
        self._kept[key] = (right, time.monotonic() + seconds)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return right


def _check(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:_LONGEST], hashed)
    except ValueError:  # a zero byte, which no htpasswd has
        return False
