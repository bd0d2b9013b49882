"""The options that name a registry for its operator: its directory or its configuration."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli.file_modes import keep_private

if TYPE_CHECKING:
    from digestry.registry.config import RegistryConfig

CONFIG_HELP = "The server's registry.toml, such as one whose [storage] names a database (docs/scale.md)."
STORE_HELP = "The server's registry.toml, such as one whose [storage] names an S3 store (docs/scale.md)."
ROOT_HELP = "The registry's directory. It may be served at the same time."


def registry_options(function: Callable[..., object]) -> Callable[..., object]:
    """Give a command the options ``--root`` and ``--config``; it gets a registry for both."""

    @click.option("--root", type=click.Path(file_okay=False, path_type=Path), help=ROOT_HELP)
    @click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help=CONFIG_HELP)
    @functools.wraps(function)
    def command(*, config: Path | None, root: Path | None, **options: object) -> object:
        return function(registry=chosen_registry(config, root), **options)

    return command


def chosen_registry(config: Path | None, root: Path | None) -> RegistryConfig:
    """Return the configuration of the registry that the options, or the environment, name.

    Files that this process writes are then no wider than the registry's, and a node's scratch directory is
    there until the command ends. Raises :class:`InvalidConfiguration`.
    """
    from digestry.registry.config import load
    from digestry.registry.observability.audit_log import record_path
    from digestry.registry.scratch import with_scratch

    loaded = load(config, {"root": root, "allow_anonymous": True})
    temporary = loaded.root is None
    loaded, scratch = click.get_current_context().with_resource(with_scratch(loaded))
    if temporary:
        record_path(loaded.log, scratch)  # else a command would write its audit events there
    keep_private(scratch)
    return loaded


def registry_on_disk(config: Path | None, root: Path | None) -> RegistryConfig:
    """Return the configuration of a registry whose catalog is a file; its content may be in an S3 store.

    Raises :class:`Conflict` for a catalog in a database, and :class:`InvalidConfiguration`.
    """
    from digestry.registry.config import load

    loaded = load(config, {"root": root, "allow_anonymous": True})
    loaded.backend().catalog_store.as_file()
    return loaded
