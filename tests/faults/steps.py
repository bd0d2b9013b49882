"""The durable steps of a process, as they happen: every call that changes what a crash would leave.

:func:`watch` wraps the primitives in :mod:`os` that digestry's only writers use (``fsio``,
``blobs``), and SQLAlchemy's COMMIT. Nothing in the product knows of it. For a process of its own:
it is never taken back.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine.default import DefaultDialect

_FULL: Final = 2
"""Of SQLite's ``PRAGMA synchronous``: in WAL mode, a commit that waits for the disk."""

_RANDOM: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=new-)[0-9a-f]{24}|[0-9a-f]{8,}")


@dataclass(frozen=True, slots=True)
class Step:
    """One durable step: the call, the path it is about, and what a person may call it."""

    number: int
    call: str
    path: Path
    creates: bool = False

    def __str__(self) -> str:
        return f"{self.number} {self.call} {_RANDOM.sub('…', '/'.join(self.path.parts[-3:]))}"


Observer = Callable[[Step], None]


class Steps:
    """Numbers the steps under ``root`` and tells of each, before it and after it, one at a time."""

    def __init__(self, root: Path, before: Observer, after: Observer) -> None:
        self._root = str(root)
        self._before = before
        self._after = after
        self._count = 0
        self._lock = threading.RLock()

    def around(
        self, call: str, path: str | Path, function: Callable[[], Any], *, creates: bool = False
    ) -> Any:
        """Does one step."""
        if not str(path).startswith(self._root):
            return function()
        with self._lock:
            step = Step(self._count, call, Path(path), creates)
            self._count += 1
            self._before(step)
            try:
                return function()
            finally:
                self._after(step)

    def watch(self) -> None:
        """Begins."""
        for name in ("fsync", "fdatasync", "ftruncate", "pwritev"):
            self._wrap(name, lambda fd, *_: Path(f"/proc/self/fd/{fd}").readlink())
        for name in ("rename", "replace", "link", "symlink"):
            self._wrap(name, lambda _, destination, *__: destination)
        for name in ("unlink", "remove", "rmdir", "mkdir"):
            self._wrap(name, lambda path, *_: path)
        self._wrap_open()
        self._wrap_commit()

    def _wrap(self, name: str, path_of: Callable[..., Any]) -> None:
        real = getattr(os, name)

        @functools.wraps(real)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return self.around(name, os.fspath(path_of(*args)), lambda: real(*args, **kwargs))

        setattr(os, name, wrapped)

    def _wrap_open(self) -> None:
        real = os.open

        def wrapped(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_CREAT and not os.path.exists(path):  # noqa: PTH110 - may be a descriptor
                return int(
                    self.around("create", path, lambda: real(path, flags, *args, **kwargs), creates=True)
                )
            return real(path, flags, *args, **kwargs)

        os.open = wrapped

    def _wrap_commit(self) -> None:
        real: Callable[..., None] = DefaultDialect.do_commit

        def wrapped(dialect: Any, connection: Any) -> None:
            writes = not connection.execute("PRAGMA query_only").fetchone()[0]
            path = connection.execute("PRAGMA database_list").fetchone()[2]
            if writes and path:
                waits = connection.execute("PRAGMA synchronous").fetchone()[0] == _FULL
                call = "commit" if waits else "volatile-commit"
                self.around(call, path, lambda: real(dialect, connection))
            else:
                real(dialect, connection)

        DefaultDialect.do_commit = wrapped  # type: ignore[method-assign]
