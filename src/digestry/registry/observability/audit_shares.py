"""Which lines stay of an audit log that must go: of every user as many as of each other, the latest first.

Without that, one user with enough writes would have the lines of all others removed.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from digestry import fsio
from digestry.registry.proxies import share_of

_LONGEST_LINE: Final = 1 << 20
_MOST_USERS: Final = 10_000
"""So many users have a share each; those that are met later have one together."""


class _Line(msgspec.Struct):
    user: str = ""
    address: str = ""


_decoder: Final = msgspec.json.Decoder(_Line)


def keep_shares(sources: Iterable[Path], target: Path, size: int) -> None:
    """Write to ``target`` what may stay of ``sources``, oldest first: ``size`` bytes in all at most.

    A user's lines go only if they have more bytes than an equal share of ``size`` and what others leave of
    theirs: then the oldest go. Raises :class:`~digestry.errors.StorageError`.
    """
    files = [source for source in sources if source.is_file()]
    sizes: Counter[str] = Counter()
    for line, user in _lines(files):
        sizes[user if user in sizes or len(sizes) < _MOST_USERS else ""] += len(line)
    share = _share(sizes.values(), size)
    over = {user: held - share for user, held in sizes.items() if held > share}
    mode = files[-1].stat().st_mode & 0o777 if files else 0o600
    with fsio.replacing(target, mode=mode) as file:
        for line, user in _lines(files):
            whose = user if user in sizes else ""
            if over.get(whose, 0) > 0:
                over[whose] -= len(line)
            else:
                file.write(line)
        is_empty = not file.tell()
    if is_empty:
        fsio.remove_file(target)


def _share(sizes: Iterable[int], size: int) -> int:
    """Return how much of each may stay so that all together have ``size``."""
    left = size
    ordered = sorted(sizes)
    for position, held in enumerate(ordered):
        share = left // (len(ordered) - position)
        if held > share:
            return share
        left -= held
    return size


def _lines(files: Iterable[Path]) -> Iterator[tuple[bytes, str]]:
    """Each whole line of ``files``, and whose it is: a user's, or the network's of who has none."""
    for path in files:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                if not line.endswith(b"\n"):
                    continue
                try:
                    found = _decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    yield line, ""
                    continue
                is_nobody = found.user == "anonymous" and found.address
                yield line, f"anonymous {share_of(found.address)}" if is_nobody else found.user
