"""The client session and the local store of a command, from the user's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.client.options import ClientOptions
    from digestry.client.session import Session
    from digestry.copy.places import Surroundings
    from digestry.images.store import ImageStore


def client_options(settings: Settings) -> ClientOptions:
    """Return how registries are asked, by ``settings``, ``--timeout`` and ``--time-limit``."""
    import os

    from digestry.cli.output import note, printable
    from digestry.cli.timeout_options import time_limit, timeout
    from digestry.cli.verbose_option import request_printer
    from digestry.client.options import ClientOptions, podman_files

    waiting = timeout()
    return ClientOptions(
        insecure_hosts=frozenset(settings.insecure_registries),
        token_servers=frozenset(settings.token_servers),
        docker_config=settings.docker_config,
        auth_files=podman_files(),
        auth_config=os.environ.get("DOCKER_AUTH_CONFIG", ""),
        patience=waiting,
        waiting=waiting,
        longest_command=time_limit(),
        longest_pause=waiting,
        uploads=settings.store.with_name("uploads"),
        tell_request=request_printer(),
        tell=lambda text: note(printable(f"digestry: {text}")),
    )


def open_session(settings: Settings) -> Session:
    """Return a session by ``settings``, ``--timeout`` and ``--time-limit``; the caller closes it."""
    from digestry.cli.signals import end_promptly
    from digestry.client.session import Session

    end_promptly()
    return Session(client_options(settings))


def open_store(settings: Settings) -> ImageStore:
    """Return the user's image store. Nothing is read or made yet."""
    from digestry.images.store import ImageStore

    return ImageStore(settings.store)


def open_surroundings(settings: Settings, session: Session) -> Surroundings:
    """Return what the places of a copy need. Nothing is read or made yet."""
    from digestry.cli.digest_completion import complete_reference
    from digestry.copy.places import Surroundings

    return Surroundings(
        session,
        open_store(settings),
        settings.store.with_name("transfers"),
        lambda text: complete_reference(settings, session, text),
    )
