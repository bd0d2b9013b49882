"""The scratch directory of a node: its own files, which may be lost with it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from digestry.registry.config import RegistryConfig

PREFIX: Final = "digestry-node-"
"""The prefix of the names of temporary scratch directories."""


@contextlib.contextmanager
def with_scratch(config: RegistryConfig) -> Iterator[tuple[RegistryConfig, Path]]:
    """Give the configuration a scratch directory, and return both.

    With a root, that is it. Without one it is a temporary directory, which goes at the end of the block.
    """
    if config.root is not None:
        yield config, config.root
        return
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as directory:
        yield replace(config, root=Path(directory)), Path(directory)
