"""What a command writes beside a registry is no more for others than the registry is."""

from __future__ import annotations

from pathlib import Path

import click


def keep_private(root: Path) -> None:
    """Until the command ends, its process makes files that nobody can read who cannot read ``root``."""
    from digestry.registry.permissions import is_shared, umask

    click.get_current_context().with_resource(umask(group=is_shared(root)))
