"""Small contents on a disk: written whole, and made durable many at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from digestry.blobs.verify import wrong_hash
from digestry.errors import DigestryError
from digestry.fsio import NewFile, make_directory, publish_all, storage_errors
from digestry.model.digest import Digest


def store_all(
    contents: Sequence[tuple[bytes, Digest]], ingests: Path, place: Callable[[Digest], Path]
) -> list[DigestryError | None]:
    """Store ``contents`` durably at the paths that ``place`` returns; return the error of each, or None.

    It always renames from ``ingests``, even over an existing file: that repairs a damaged one.
    """
    problems: list[DigestryError | None] = [None] * len(contents)
    written: dict[int, NewFile] = {}
    try:
        for number, (content, digest) in enumerate(contents):
            try:
                written[number] = _write(content, digest, ingests, place(digest))
            except DigestryError as error:
                problems[number] = error
        for number, problem in zip(written, publish_all(list(written.values())), strict=True):
            problems[number] = problem
            if problem is not None:
                with contextlib.suppress(OSError):  # the caller must get the earlier error
                    written[number].temporary.unlink(missing_ok=True)
    finally:
        for file in written.values():
            os.close(file.descriptor)
    return problems


def _write(content: bytes, digest: Digest, ingests: Path, destination: Path) -> NewFile:
    found = Digest.of(content, digest.algorithm)
    if found != digest:
        raise wrong_hash(digest, found)
    if not destination.parent.is_dir():
        make_directory(destination.parent)
    temporary = ingests / f"new-{os.urandom(12).hex()}"
    with storage_errors("create", temporary):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, 0o644)
        except FileNotFoundError:
            # Another program that uses the same directory has just removed this one, as it was empty.
            ingests.mkdir(exist_ok=True)
            descriptor = os.open(temporary, flags, 0o644)
    try:
        with storage_errors("write", temporary):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a sweep leaves it alone
            written = 0
            while written < len(content):
                written += os.pwritev(descriptor, [memoryview(content)[written:]], written)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return NewFile(descriptor, temporary, destination)
