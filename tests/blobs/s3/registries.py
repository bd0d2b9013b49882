"""Registries whose content is in an S3 store, for the tests that run with ``--store s3``."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any, Final

from digestry.backend import Backend
from digestry.blobs.protocols import BlobStore
from digestry.blobs.s3.config import S3Config
from digestry.blobs.s3.store import S3Blobs
from digestry.catalog import clock
from tests import seaweed
from tests.blobs.s3.stores import open_rows

VARIABLE: Final = "DIGESTRY_TESTS_S3"
"""The environment variable that tells :mod:`tests.fork_server` where the S3 server is."""
_ID: Final = "blobs/.s3"
"""The file of a registry's directory that says which folder of the bucket is its: it goes where that goes."""


def install(endpoint: str) -> None:
    """Make this process, and the jobs' process that it starts, keep what registries hold in an S3 store."""
    from digestry import backend
    from digestry.registry import server

    os.environ.update(seaweed.environment(endpoint))
    vars(backend)["open_layout"] = partial(_open_blobs, endpoint)
    vars(backend)["Backend"] = partial(_by_one_clock, backend.Backend)
    vars(server)["jobs"] = partial(_jobs, endpoint)


class RootBlobs(S3Blobs):
    """The store of a root directory, which remembers its folder of the bucket once it is prepared."""

    root = Path()
    now = staticmethod(clock.now)

    def prepare(self) -> None:
        super().prepare()
        path = self.root / _ID
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.config.prefix)


def _open_blobs(endpoint: str, root: Path) -> BlobStore:
    root = root.absolute()
    config = S3Config("digestry-tests", _folder(root), endpoint=endpoint, settle=0.0)
    blobs = RootBlobs(config, lambda: open_rows(root, blobs.now))
    blobs.root = root
    return blobs


def _by_one_clock(kind: type[Backend], *arguments: Any) -> Backend:
    """Make a backend, whose clock is that of its store too: what waits for a lease to end does in both."""
    made = kind(*arguments)
    if isinstance(made.blobs, RootBlobs):
        vars(made.blobs)["now"] = made.now
    return made


def _folder(root: Path) -> str:
    try:
        return (root / _ID).read_text()
    except OSError:
        return f"tests/{hashlib.sha256(str(root).encode()).hexdigest()[:16]}"


def _jobs(endpoint: str, *arguments: Any) -> Any:
    from digestry.registry.jobs import jobs

    install(endpoint)
    return jobs(*arguments)
