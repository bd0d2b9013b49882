"""The files that a configuration names: users, certificates, passwords and keys, read without serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from digestry.errors import InvalidConfiguration
from digestry.registry import tls
from digestry.registry.access import passwords
from digestry.registry.access.oidc import IssuerVerifier
from digestry.registry.config import RegistryConfig
from digestry.registry.pull_through.config import check_files


def mistakes(config: RegistryConfig) -> Iterator[InvalidConfiguration]:
    """Yield an error for each invalid file that the configuration names, and that a server reads at its
    start.

    Files that are read together with the configuration, such as the secrets of webhooks, are valid already.
    """
    for check in _checks(config):
        try:
            check()
        except InvalidConfiguration as error:
            yield error


def _checks(config: RegistryConfig) -> Iterator[Callable[[], object]]:
    if config.access.htpasswd is not None:
        yield partial(passwords.read, config.access.htpasswd)
    if config.tls is not None:
        yield partial(tls.check, config.tls)
    for issuer in config.access.issuers:
        yield IssuerVerifier(issuer).check
    for mirror in config.mirrors:
        yield partial(check_files, [mirror])
