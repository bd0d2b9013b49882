"""Each user's share of the audit lines that outlive rotation: the latest lines of every user stay.

Otherwise one user with enough writes could push out the lines of all others.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from digestry import fsio
from digestry.model.json_types import prepared
from digestry.registry.proxies import share_of

_LONGEST_LINE: Final = 1 << 20
_MOST_USERS: Final = 10_000
"""So many users have a share each; those that are met later have one together."""


class _Line(msgspec.Struct):
    user: str = ""
    address: str = ""


_decoder: Final = msgspec.json.Decoder(prepared(_Line))


def keep_shares(sources: Iterable[Path], target: Path, size: int) -> None:
    """Write the lines of ``sources`` that stay to ``target``, oldest first, at most ``size`` bytes.

    A user's oldest lines are dropped only if the user's lines exceed an equal share of ``size`` plus the
    unused part of other shares. Raises :class:`~digestry.errors.StorageError`.
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
    """Return the largest share for which all together have at most ``size`` bytes."""
    left = size
    ordered = sorted(sizes)
    for position, held in enumerate(ordered):
        share = left // (len(ordered) - position)
        if held > share:
            return share
        left -= held
    return size


def _lines(files: Iterable[Path]) -> Iterator[tuple[bytes, str]]:
    """Yield each whole line of ``files``, with its user, or the network of an anonymous client."""
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
