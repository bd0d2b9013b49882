"""The settings of all configuration files for one registry or image, and the file of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from digestry.client.configuration.certificates import HostCertificates, host_certificates
from digestry.client.configuration.policy import Policy, image_scopes
from digestry.client.configuration.rules import (
    HostRule,
    Mirror,
    NameRule,
    RegistryRules,
    first,
    without_port,
)
from digestry.client.options import ClientOptions, is_loopback
from digestry.model.reference import Reference

_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Statement:
    """The value of one key, and its file, or ``default``."""

    key: str
    value: str
    origin: str


def explain(options: ClientOptions, host: str, image: Reference | None) -> list[Statement]:
    """Return the settings for the registry ``host[:port]``, or for an ``image`` of it.

    Raises :class:`~digestry.errors.InvalidConfiguration`.
    """
    name = host if image is None else str(image)
    rules = options.registries or RegistryRules()
    found = [*_of_name(rules.for_name(name)), *_of_host(options, rules, host)]
    if image is not None and options.policy is not None:
        policy = Policy.read(options.policy)
        if policy is not None:
            scope, demanded = policy.requirements("docker", image_scopes(name))
            found.append(Statement("policy", ", ".join(demanded), f"{options.policy}, {scope}"))
    return found


def _of_name(rules: Sequence[NameRule]) -> Iterator[Statement]:
    for rule in rules:
        if rule.blocked is not None:
            yield Statement("blocked", _truth(rule.blocked), _origin(rule))
            break
    else:
        yield Statement("blocked", "false", _DEFAULT)
    for rule in rules:
        if rule.mirrors is not None:
            yield Statement("mirrors", ", ".join(map(_mirror, rule.mirrors)) or "none", _origin(rule))
            break
    for rule in rules:
        if rule.location is not None:
            yield Statement("location", rule.location, _origin(rule))
            break


def _of_host(options: ClientOptions, said: RegistryRules, host: str) -> Iterator[Statement]:
    rules = said.for_host(host)
    ours = is_loopback(host)
    plain = first(rule for rule in rules if rule.plain_http is not None)
    yield _truth_of("plain-http", plain, plain.plain_http if plain else None, here=ours)
    verification = said.verification(host)
    skip = verification.skip_verify if verification else None
    yield _truth_of("skip-verify", verification, skip, here=ours)
    files = host_certificates(options.certificate_directories, host)
    for rule in rules:
        for path in rule.authorities:
            yield Statement("ca", str(path), rule.origin)
    for path in files.authorities:
        yield Statement("ca", str(path), str(files.directory))
    yield from _client(rules, files)


def _client(rules: Sequence[HostRule], files: HostCertificates) -> Iterator[Statement]:
    for rule in rules:
        if rule.client is not None:
            yield Statement("client-cert", str(rule.client.certificate), rule.origin)
            return
    for pair in files.clients:
        yield Statement("client-cert", str(pair.certificate), str(files.directory))


def _truth_of(key: str, rule: HostRule | None, value: bool | None, *, here: bool) -> Statement:
    if rule is not None and value is not None and not (key == "plain-http" and here and not value):
        return Statement(key, _truth(value), rule.origin)
    return Statement(key, _truth(here), "this machine" if here else _DEFAULT)


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _mirror(mirror: Mirror) -> str:
    if mirror.by_tag and mirror.by_digest:
        return mirror.location
    return f"{mirror.location} (by {'tag' if mirror.by_tag else 'digest'} only)"


def _origin(rule: NameRule) -> str:
    return f"{rule.origin}, {rule.prefix}"


def names_host(text: str) -> bool:
    """Return whether ``text`` is a registry alone, and not an image's name."""
    host = without_port(text)
    return "/" not in text and "@" not in text and ("." in host or host == "localhost")
