"""The client session and the local store of a command, from the user's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.client.configuration.files import ConfigurationFiles
    from digestry.client.configuration.rules import RegistryRules
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
    files = settings.files()
    return ClientOptions(
        registries=registry_rules(settings, files),
        certificate_directories=files.certificates,
        policy=files.policy,
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


def registry_rules(settings: Settings, files: ConfigurationFiles) -> RegistryRules | None:
    """Return what the settings say of registries, and then what ``files`` of other programs say.

    None if they say nothing. Raises :class:`InvalidConfiguration`.
    """
    from digestry.client.configuration.files import says_something

    others = any(map(says_something, files.registries))
    blocks, insecure = settings.blocks, settings.insecure_registries
    if blocks is None and not insecure and not others:
        return None
    from digestry.client.configuration.registries_conf import read_registries
    from digestry.client.configuration.rules import RegistryRules, insecure_hosts

    listed = insecure_hosts(insecure, str(settings.config_file))
    ours = RegistryRules(((*blocks.hosts, *listed) if blocks else listed,), (blocks.names if blocks else (),))
    return read_registries(files.registries).rules(ours) if others else ours


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


def open_surroundings(settings: Settings, session: Session, *, verify_log: bool = False) -> Surroundings:
    """Return what the places of a copy need; ``verify_log`` has tags of registries proven by their logs.

    Nothing is read or made yet.
    """
    from digestry.cli.digest_completion import complete_reference
    from digestry.cli.log_trust import tag_check
    from digestry.copy.places import Surroundings

    return Surroundings(
        session,
        open_store(settings),
        settings.store.with_name("transfers"),
        lambda text: complete_reference(settings, session, text),
        tag_check(settings) if verify_log else None,
    )
