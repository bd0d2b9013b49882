"""The client session and the local store of a command, from the user's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.client.session import Session
    from digestry.images.store import ImageStore


def open_session(settings: Settings) -> Session:
    """Return a session by ``settings``, ``--timeout`` and ``--time-limit``; the caller closes it."""
    import os

    from digestry.cli.output import note, printable
    from digestry.cli.signals import end_promptly
    from digestry.cli.timeout_options import time_limit, timeout
    from digestry.client.options import ClientOptions, podman_files
    from digestry.client.session import Session

    end_promptly()
    waiting = timeout()
    return Session(
        ClientOptions(
            insecure_hosts=frozenset(settings.insecure_registries),
            token_servers=frozenset(settings.token_servers),
            docker_config=settings.docker_config,
            auth_files=podman_files(),
            auth_config=os.environ.get("DOCKER_AUTH_CONFIG", ""),
            patience=waiting,
            waiting=waiting,
            longest_command=time_limit(),
            longest_pause=waiting,
            tell=lambda text: note(printable(f"digestry: {text}")),
        )
    )


def open_store(settings: Settings) -> ImageStore:
    """Return the user's image store. Nothing is read or made yet."""
    from digestry.images.store import ImageStore

    return ImageStore(settings.store)
