"""Where an image is read from, by the rules for its name: its registry, its mirrors, or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from digestry.client.configuration.files import demands_something
from digestry.client.connection import Connection
from digestry.client.repository import Repository
from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.model.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from digestry.client.configuration.policy import Policy
    from digestry.client.configuration.rules import NameRule


def image_source(connection: Connection, reference: Reference) -> Repository:
    """Return the source of the images of ``reference``: its repository, or one with mirrors.

    Sends nothing. Raises :class:`~digestry.errors.Forbidden` if a rule blocks the name, or the policy rejects
    it, and :class:`~digestry.errors.InvalidConfiguration`.
    """
    options = connection.options
    policy = policy_of(connection)
    if policy is not None:
        from digestry.client.configuration.policy import image_scopes  # noqa: PLC0415 - few have a policy

        name = _canonical(reference)
        policy.check(name, "docker", image_scopes(name), connection.tell_once)
    if options.registries is None:
        return Repository(connection, reference.repository_only())
    options.registries.check(str(reference))
    return _by_rules(connection, reference, options.registries.for_name(str(reference)))


def policy_of(connection: Connection) -> Policy | None:
    """Return the policy for images; None if there is none, or it accepts anything.

    Raises :class:`~digestry.errors.InvalidConfiguration`.
    """
    file, cache = connection.options.policy, connection.cache
    if cache.policy is None and file is not None and demands_something(file):
        from digestry.client.configuration.policy import Policy  # noqa: PLC0415 - most demand nothing

        cache.policy = Policy.read(file)
    return cache.policy


def _canonical(reference: Reference) -> str:
    """Return the name that a policy has for an image: with the digest alone if there is one."""
    return str(reference if reference.digest is None else reference.with_digest(reference.digest))


def _by_rules(connection: Connection, reference: Reference, rules: Sequence[NameRule]) -> Repository:
    name = reference.name
    mirrored = next((rule for rule in rules if rule.mirrors is not None), None)
    located = next((rule for rule in rules if rule.location is not None), None)
    repository = reference.repository_only()
    if mirrored is None and located is None:
        return Repository(connection, repository)
    from digestry.client.mirrored_repository import (  # noqa: PLC0415 - few have mirrors
        MirroredRepository,
        MirrorRepository,
    )

    mirrors = []
    for mirror in (mirrored.mirrors or ()) if mirrored is not None else ():
        assert mirrored is not None  # noqa: S101 - it has mirrors
        place = _place(mirrored.moved(name, mirror.location), mirrored, connection.for_mirrors())
        # Blobs and inner manifests are requested by digest, even if the image itself is requested by tag.
        by_digest = mirror.by_digest if reference.digest is not None else mirror.by_tag
        mirrors.append(MirrorRepository(place, mirror.by_tag, by_digest))
    last = None
    if located is not None and located.location:
        last = _place(located.moved(name, located.location), located, connection)
    return MirroredRepository(connection, repository, mirrors, last)


def _place(name: str, rule: NameRule, connection: Connection) -> Repository:
    host, _, path = name.partition("/")
    try:
        return Repository(connection, Reference(host, path))
    except InvalidReference as error:
        raise InvalidConfiguration(
            f"{rule.origin}: {rule.prefix} leads to {name}: {error.message}"
        ) from error
