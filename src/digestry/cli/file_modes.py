"""The modes of files that a command writes for a registry: no wider than the registry's."""

from __future__ import annotations

from pathlib import Path

import click


def keep_private(root: Path) -> None:
    """Make files that this process writes unreadable for users who cannot read ``root``."""
    from digestry.registry.permissions import is_shared, umask

    click.get_current_context().with_resource(umask(group=is_shared(root)))
