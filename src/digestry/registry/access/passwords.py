"""The users of an ``htpasswd`` file (bcrypt only), read again when the file changes.

A password costs tens of milliseconds to verify, on purpose. So a thread does it, in a fair order
(:mod:`.login_queue`), and the result is remembered for a time under a keyed hash: a flood of wrong passwords
keeps one thread busy, and does not keep users out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Final

import bcrypt

from digestry.coordination.protocol import LoginFailures
from digestry.errors import InvalidConfiguration, StorageError
from digestry.registry.access.identity import check_user
from digestry.registry.access.login_queue import LoginQueue

log: Final = logging.getLogger("digestry.registry")

_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_HIGHEST_COST: Final = 16  # four seconds; 2^31 rounds would be hours
_LONGEST: Final = 72  # the length of a password that bcrypt reads, and htpasswd(1) passes
_KEPT_SECONDS: Final = 3600.0
_KEPT_WRONG_SECONDS: Final = 10.0
_KEPT: Final = 10_000
_SALT: Final = "7HZyub2OjC5.AG7ql0Maie"
_USUAL_COST: Final = 10
_HINT: Final = "write the line with: htpasswd -B FILE USER"
_NAMES: Final = (
    "a name is printable, at most 128 characters, without spaces, commas and quotes, and none of anonymous,"
    " authenticated and robot$…"
)


def parse(text: str, file: Path) -> dict[str, bytes]:
    """Return the users and their hashes. Raises :class:`InvalidConfiguration`, which names the line.

    No line is quoted: a wrong field may be a password in the place of a name.
    """
    users: dict[str, bytes] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, hashed = line.strip().partition(":")
        place = f"{file}, line {number}"
        if not colon:
            raise InvalidConfiguration(f"{place}: there is no colon after a user's name", hint=_HINT)
        found = _BCRYPT.fullmatch(hashed)
        if found is None:
            raise InvalidConfiguration(f"{place}: the password is not a bcrypt hash", hint=_HINT)
        if not 4 <= int(found[1]) <= _HIGHEST_COST:
            why = f"has cost {found[1]}; 04 to {_HIGHEST_COST} are taken"
            raise InvalidConfiguration(f"{place}: the bcrypt hash {why}", hint=_HINT)
        try:
            check_user(name)
        except ValueError:
            # Without its text, which quotes the name, and without itself, which a log would print.
            raise InvalidConfiguration(f"{place}: this cannot be a user's name", hint=_NAMES) from None
        if name in users:
            raise InvalidConfiguration(f"{place}: the user of line {lines[name]} is listed again")
        users[name], lines[name] = hashed.encode(), number
    return users


def read(file: Path) -> dict[str, bytes]:
    """Read ``file`` and return its users and their hashes. Raises :class:`InvalidConfiguration`."""
    try:
        return parse(file.read_bytes().decode(), file)
    except OSError as error:
        raise InvalidConfiguration(f"cannot read the users of {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidConfiguration(f"cannot read the users of {file}: it is not UTF-8") from None


class Passwords:
    """The users of one file. Call :meth:`start` first; all methods run on the event loop."""

    def __init__(self, file: Path, failures: LoginFailures | None = None) -> None:
        self._file = file
        self._users: dict[str, bytes] = {}
        self._seen: tuple[int, int, int] | None = None
        self._costliest = _USUAL_COST
        # Apart, so that however many wrong ones never push out a right one.
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._wrong: OrderedDict[bytes, float] = OrderedDict()
        self._pending: dict[bytes, asyncio.Task[bool]] = {}
        self._queue = LoginQueue(failures)

    def start(self) -> None:
        """Read the file. Raises :class:`InvalidConfiguration`."""
        try:
            self._seen = self._stamp()
        except OSError:
            self._seen = None  # reading it raises the error
        self._users = read(self._file)
        self._costliest = max(map(_cost, self._users.values()), default=_USUAL_COST)

    def close(self) -> None:
        self._queue.close()

    def refresh(self) -> bool:
        """Read the file again if it changed, and return whether the users did. On an error the users stay."""
        try:
            if self._stamp() == self._seen:
                return False
            before = self._users
            self.start()
        except (OSError, InvalidConfiguration) as error:
            reason = error.message if isinstance(error, InvalidConfiguration) else error
            log.error("%s; the users stay as they were", reason)
            return False
        self._right.clear()
        self._wrong.clear()
        return self._users != before

    async def share_failures(self) -> None:
        """Share the failed logins with the other nodes, and learn of theirs. Called periodically."""
        try:
            await self._queue.share_failures()
        except StorageError as error:
            log.error("failed logins are counted by this node alone: %s", error.message)

    def _stamp(self) -> tuple[int, int, int]:
        found = self._file.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def fingerprint(self, name: str) -> str | None:
        """Return a value that changes with the user's password; None for an unknown user."""
        hashed = self._users.get(name)
        return None if hashed is None else hashlib.sha256(hashed).hexdigest()[:16]

    async def verify(self, name: str, password: str, *, key: bytes, address: str) -> bool:
        """Return whether it is the user's password. ``key`` identifies the pair and cannot be reversed.

        Raises :class:`ErrorResponse` 429 while too many are waiting.
        """
        now = time.monotonic()
        if self._right.get(key, now) > now:
            # Users who log in repeatedly do not have to queue with clients that guess.
            self._right[key] = now + _KEPT_SECONDS
            self._right.move_to_end(key)
            return True
        if self._wrong.get(key, now) > now:
            return False
        task = self._pending.get(key)  # a client that opens several connections at once
        if task is None:
            task = asyncio.get_running_loop().create_task(self._verify(name, password, key, address))
            self._pending[key] = task
            task.add_done_callback(_retrieve_error)
        # A client that leaves does not cancel a result that others wait for.
        return await asyncio.shield(task)

    async def _verify(self, name: str, password: str, key: bytes, address: str) -> bool:
        try:
            hashed = self._users.get(name)
            work = partial(_check, password.encode()[:_LONGEST], hashed, self._costliest)
            right = await self._queue.verify(name, address, work)
            # The file may have changed while the thread was busy.
            right = right and self._users.get(name) == hashed
        finally:
            self._pending.pop(key, None)
        kept, seconds = (self._right, _KEPT_SECONDS) if right else (self._wrong, _KEPT_WRONG_SECONDS)
        kept[key] = time.monotonic() + seconds
        while len(kept) > _KEPT:
            kept.popitem(last=False)
        return right


def _retrieve_error(task: asyncio.Task[bool]) -> None:
    """Retrieve a task's error, so that asyncio does not report it after the last waiter has left."""
    if not task.cancelled():
        task.exception()


def _cost(hashed: bytes) -> int:
    return int(hashed[4:6])


def _check(password: bytes, hashed: bytes | None, costliest: int) -> bool:
    """Return whether the password has this hash; None is for an unknown user.

    A refusal always takes the time of the costliest hash: a cheaper one is followed by as many rounds as it
    lacks, 2^c + (2^c + 2^(c+1) + … + 2^(costliest-1)) = 2^costliest. So the time does not show which names
    exist.
    """
    cost = costliest if hashed is None else _cost(hashed)
    hashable = password.replace(b"\0", b"")  # with one bcrypt takes no time, and no htpasswd has one
    if hashed is None:
        _spend(hashable, cost)
    elif bcrypt.checkpw(hashable, hashed) and hashable == password:
        return True
    for missing in range(cost, costliest):
        _spend(hashable, missing)
    return False


def _spend(password: bytes, cost: int) -> None:
    bcrypt.hashpw(password, f"$2b${cost:02d}${_SALT}".encode())
