"""Rules for registries: which hosts are connected to how, and which names have mirrors or are refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from digestry.errors import Forbidden, InvalidReference
from digestry.model.digest import shown
from digestry.model.reference import check_host, check_repository

_WILDCARD: Final = "*."
_Value = TypeVar("_Value")


class ClientCertificate(msgspec.Struct, frozen=True):
    """A file with a certificate (PEM), and one with its key."""

    certificate: Path
    key: Path


class HostRule(msgspec.Struct, frozen=True):
    """How the hosts of ``pattern`` are connected to: ``host``, ``host:port`` or ``*.domain``.

    A field that is None is not set. ``origin`` is the rule's file.
    """

    pattern: str
    origin: str
    plain_http: bool | None = None
    """Whether plain HTTP is used if they do not speak TLS."""
    skip_verify: bool | None = None
    """Whether a certificate that cannot be trusted is accepted."""
    authorities: tuple[Path, ...] = ()
    """Files of certificates (PEM) that are trusted beside the system's."""
    client: ClientCertificate | None = None

    def matches(self, host: str) -> bool:
        """Return whether the rule is about ``host[:port]``."""
        if self.pattern.startswith(_WILDCARD):
            return without_port(host).endswith(self.pattern[1:])
        return self.pattern in {host, without_port(host)}


class Mirror(msgspec.Struct, frozen=True):
    """Another place of the same images: ``host[:port][/path]`` in place of a rule's prefix.

    ``by_tag`` and ``by_digest`` are the kinds of names that it is used for.
    """

    location: str
    by_tag: bool = True
    by_digest: bool = True


class NameRule(msgspec.Struct, frozen=True):
    """The rule for images whose names begin with ``prefix``.

    A prefix is ``host[:port]``, a longer part of a name, or ``*.domain`` (containers-registries.conf(5)). A
    field that is None is not set. ``origin`` is the rule's file.
    """

    prefix: str
    origin: str
    blocked: bool | None = None
    mirrors: tuple[Mirror, ...] | None = None
    """The places that are tried first, in order."""
    location: str | None = None
    """The place that is tried last, instead of the registry in the name."""

    def matched(self, name: str) -> str | None:
        """Return the part of ``name`` that a location takes the place of; None if the rule does not match."""
        if self.prefix.startswith(_WILDCARD):
            host = name.partition("/")[0]
            return host if without_port(host).endswith(self.prefix[1:]) else None
        rest = name[len(self.prefix) :]
        return self.prefix if name.startswith(self.prefix) and rest[:1] in {"", "/", ":", "@"} else None

    def moved(self, name: str, location: str) -> str:
        """Return ``name`` as it is called at ``location``. The rule must match it."""
        return location + name[len(self.matched(name) or "") :]


class RegistryRules(msgspec.Struct, frozen=True):
    """All rules, from several files. Of each kind there are levels: an earlier level goes before a later one.

    Within a level the longest prefix of a name counts alone, and the longest pattern of a host first.
    """

    hosts: tuple[tuple[HostRule, ...], ...] = ()
    names: tuple[tuple[NameRule, ...], ...] = ()

    def for_host(self, host: str) -> list[HostRule]:
        """Return the rules about ``host[:port]``, the one that counts most first."""
        found: list[HostRule] = []
        for level in self.hosts:
            here = [rule for rule in level if rule.matches(host)]
            found += sorted(here, key=lambda rule: (rule.pattern.startswith(_WILDCARD), -len(rule.pattern)))
        return found

    def for_name(self, name: str) -> list[NameRule]:
        """Return the rules about an image or a repository, the one that counts most first."""
        found = []
        for level in self.names:
            here = [rule for rule in level if rule.matched(name) is not None]
            if here:
                found.append(max(here, key=lambda rule: len(rule.prefix)))
        return found

    def check(self, name: str) -> None:
        """Raise :class:`Forbidden` if a rule blocks the image or repository ``name``."""
        rule = self._deciding(name)
        if rule is not None and rule.blocked:
            raise Forbidden(
                f"{name} is blocked: {rule.origin} blocks {rule.prefix}",
                hint=f"`digestry config explain {name}` shows which file says what",
            )

    def check_host(self, host: str) -> None:
        """Raise :class:`Forbidden` if a rule blocks all of ``host[:port]``."""
        below = f"{host}/"
        if not any(
            rule.blocked is False and rule.prefix.startswith(below) for level in self.names for rule in level
        ):
            self.check(host)

    def _deciding(self, name: str) -> NameRule | None:
        """Return the rule that says whether ``name`` is blocked; None if none does."""
        return next((rule for rule in self.for_name(name) if rule.blocked is not None), None)

    def may_be_plain(self, host: str) -> bool:
        """Return whether plain HTTP is allowed for ``host[:port]``."""
        return bool(first(rule.plain_http for rule in self.for_host(host)))

    def verification(self, host: str) -> HostRule | None:
        """Return the rule that says whether ``host[:port]`` is verified; None if none does."""
        return next((rule for rule in self.for_host(host) if rule.skip_verify is not None), None)


def first(values: Iterable[_Value | None]) -> _Value | None:
    """Return the first of ``values`` that says something; None if none does."""
    return next((value for value in values if value is not None), None)


def without_port(host: str) -> str:
    """Return ``host[:port]`` without its port; an IPv6 address keeps its brackets."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def host_of(location: str) -> str:
    """Return the ``host[:port]`` of a location."""
    return location.partition("/")[0]


def check_location(text: str) -> str:
    """Return ``text`` if it is ``host[:port][/path]``. Raises :class:`InvalidReference`."""
    host, slash, path = text.partition("/")
    check_host(host)
    if slash:
        check_repository(path)
    return text


def check_prefix(text: str) -> str:
    """Return ``text`` if it can be a prefix of names. Raises :class:`InvalidReference`."""
    if text.startswith(_WILDCARD):
        domain = text.removeprefix(_WILDCARD)
        if "/" in domain or ":" in domain or not domain:
            raise InvalidReference(f"{shown(text)} is not *.DOMAIN", hint="write it like *.example.com")
        check_host(domain)
        return text
    name, _, digest = text.partition("@")
    host, slash, path = name.partition("/")
    check_host(host)
    if slash:
        check_repository(path.partition(":")[0])
    if digest and "/" not in name:
        raise InvalidReference(f"{shown(text)} is not the beginning of an image's name")
    return text


def is_of_hosts(prefix: str) -> bool:
    """Return whether a prefix is about whole registries."""
    return "/" not in prefix


def insecure_hosts(hosts: Sequence[str], origin: str) -> tuple[HostRule, ...]:
    """Return the rules of hosts for which plain HTTP, or any certificate, is allowed."""
    return tuple(HostRule(host, origin, plain_http=True, skip_verify=True) for host in hosts)
