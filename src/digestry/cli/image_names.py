"""Image names as arguments of commands, which shells complete: from the local store, and from registries."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from digestry.cli.settings import Settings

_MOST: Final = 500
_PATIENCE: Final = 2.0
"""Seconds for a registry: the user waits for it after a key press."""


class ImageName(click.ParamType[str]):
    """The name of an image. With ``remote``, registries are asked for tags and repositories, too."""

    name = "image"

    def __init__(self, *, remote: bool) -> None:
        self._remote = remote

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Return the names that begin with ``incomplete``; none if they are not known."""
        from click.shell_completion import CompletionItem

        from digestry.errors import DigestryError

        found: dict[str, None] = {}
        try:
            from digestry.cli.settings import load

            settings = load()._replace(tell=lambda _: None)
            names = self._names(settings, incomplete)
            for name in islice(names, _MOST):
                found.setdefault(name)
        except (DigestryError, OSError):
            pass  # a shell's line is no place for errors
        return [CompletionItem(name) for name in found]

    def _names(self, settings: Settings, incomplete: str) -> Iterator[str]:
        for name in _stored(settings):
            if name.startswith(incomplete):
                yield name
        if self._remote:
            yield from _in_registry(settings, incomplete)


LOCAL_IMAGE: Final = ImageName(remote=False)
"""An image of the local store."""
IMAGE: Final = ImageName(remote=True)
"""An image of the local store or of a registry."""


def _stored(settings: Settings) -> Iterator[str]:
    """Yield the names of the local store, in full and without the default registry."""
    from digestry.cli.sessions import open_store

    for entry in open_store(settings).entries():
        known = entry.reference
        if known is not None and known.tag is not None:
            yield str(known)
            yield known.familiar
            yield str(known).removeprefix(f"{settings.registry}/")


def _in_registry(settings: Settings, incomplete: str) -> Iterator[str]:
    """Yield the tags of ``REPO:``, or the repositories of ``HOST/``, that begin with ``incomplete``."""
    from digestry.cli.sessions import client_options
    from digestry.client.session import Session
    from digestry.errors import InvalidReference

    options = client_options(settings).replace(
        timeout=_PATIENCE,
        connect_timeout=_PATIENCE / 2,
        retries=0,
        patience=_PATIENCE,
        waiting=_PATIENCE,
        longest_command=_PATIENCE,
        longest_pause=0.1,
        tell=None,
    )
    repository, colon, tag = incomplete.rpartition(":")
    with Session(options) as session:
        if colon and "/" not in tag:
            try:
                reference = settings.reference(repository)
            except InvalidReference:
                return  # a host with its port
            for name in session.repository(reference).tags():
                if name.startswith(tag):
                    yield f"{repository}:{name}"
            return
        host, slash, prefix = incomplete.partition("/")
        if not slash or not (":" in host or "." in host or host == "localhost"):
            host, slash, prefix = settings.registry, "", incomplete
        for name in session.registry(host).repositories():
            if name.startswith(prefix):
                yield f"{host}/{name}" if slash else name
