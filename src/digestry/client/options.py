"""The options of the client: one frozen value, made at the edge."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from digestry.client.configuration.rules import RegistryRules

_METADATA: Final = frozenset({"fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192"})
"""Where clouds tell a machine its credentials, beside the link-local addresses."""


_BYTES: Final = frozenset(map(str, range(256)))


class ClientOptions(msgspec.Struct, frozen=True):
    """How registries are asked. All times are in seconds.

    Without ``docker_config``, ``auth_files`` and ``auth_config`` there is no login.
    """

    insecure_hosts: frozenset[str] = frozenset()
    """Hosts (``host`` or ``host:port``) that may be asked over plain HTTP, or with an unverified certificate.
    This machine's own addresses always may."""
    docker_config: Path | None = None
    """The directory of docker's ``config.json``, which has credentials."""
    timeout: float = 30.0
    """The time without a byte after which a request fails."""
    connect_timeout: float = 10.0
    """The time until a connection is open."""
    retries: int = 3
    """Further attempts after a failure that may pass."""
    parallel: int = 4
    """Blobs that are transferred at once; half as many again from or to a registry that is far away."""
    authorities: Path | None = None
    """A file of certificates (PEM) that are trusted beside the system's."""
    patience: float | None = None
    """The time that the head of a response may take in all, and its body unless that is streamed."""
    waiting: float | None = None
    """The time that may be spent waiting for registries in all."""
    longest_command: float | None = None
    """The time that everything may take, from the first request to the last byte."""
    longest_pause: float = 60.0
    """The longest pause that a registry may ask for at once (``Retry-After``)."""
    tell: Callable[[str], None] | None = None
    """Called with a sentence for a person, such as that a registry asks to wait."""
    tell_request: Callable[[str], None] | None = None
    """Called with a line on each request that was made. There is no login in it."""
    auth_files: tuple[Path, ...] = ()
    """Files like docker's ``config.json`` that are read after it (podman's ``auth.json``)."""
    auth_config: str = ""
    """A document like docker's ``config.json`` that goes before all files."""
    uploads: Path | None = None
    """The directory of records of uploads that were begun, which later sessions continue; None for none."""
    token_servers: frozenset[str] = frozenset()
    """Hosts that may be sent passwords for registries elsewhere."""
    registries: RegistryRules | None = None
    """What configuration files say of registries: how they are connected to, mirrors, what is blocked. None
    if they say nothing."""
    certificate_directories: tuple[Path, ...] = ()
    """Directories like docker's ``certs.d``, with certificates in a folder for each ``host[:port]``."""
    policy: Path | None = None
    """A file like containers' ``policy.json``, whose ``reject`` rules forbid images."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ClientOptions:
        """Return options that log in with what ``docker login`` and ``podman login`` have kept.

        They name docker's ``config.json`` in ``DOCKER_CONFIG`` or ``~/.docker``, podman's ``auth.json``, and
        the document in ``DOCKER_AUTH_CONFIG``; and they obey docker's and containers' ``certs.d``, and
        containers' ``registries.conf`` and ``policy.json``. Raises
        :class:`~digestry.errors.InvalidConfiguration` for such a file that is wrong.
        """
        from digestry.client.configuration.files import configuration_files, says_something  # noqa: PLC0415

        files = configuration_files(environment)
        rules = None
        if any(map(says_something, files.registries)):
            from digestry.client.configuration.registries_conf import read_registries  # noqa: PLC0415

            rules = read_registries(files.registries).rules()
        home = environment.get("HOME")
        docker = environment.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
        return cls(
            docker_config=Path(docker) if docker else None,
            auth_files=podman_files(environment),
            auth_config=environment.get("DOCKER_AUTH_CONFIG", ""),
            registries=rules,
            certificate_directories=files.certificates,
            policy=files.policy,
        )

    def replace(self, **changes: Any) -> ClientOptions:  # Any: the values of different fields
        """Return the same options with other values of some: ``options.replace(timeout=10.0)``."""
        return msgspec.structs.replace(self, **changes)

    def __repr__(self) -> str:
        """Return the options as text, without the logins in :attr:`auth_config`."""
        shown = (name for name in self.__struct_fields__ if name != "auth_config")
        return f"ClientOptions({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def may_be_plain(self, host: str) -> bool:
        """Return whether ``host[:port]`` may be asked without TLS."""
        return is_loopback(host) or self.is_insecure(host)

    def is_insecure(self, host: str) -> bool:
        """Return whether the user allows ``host[:port]`` to be asked without TLS."""
        return self._is_listed(host) or (self.registries is not None and self.registries.may_be_plain(host))

    def unverified_because(self, host: str) -> str | None:
        """Return why any certificate of ``host[:port]`` is accepted; None if it is verified."""
        if self._is_listed(host):
            return "the host is in insecure_hosts"
        rule = self.registries.verification(host) if self.registries is not None else None
        if rule is not None:
            return f"{rule.origin} allows that" if rule.skip_verify else None
        return "it is this machine" if is_loopback(host) else None

    def _is_listed(self, host: str) -> bool:
        return host in self.insecure_hosts or bare_host(host) in self.insecure_hosts


def podman_files(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return the files where podman and skopeo keep credentials, in their order (containers-auth.json(5))."""
    named = environment.get("REGISTRY_AUTH_FILE")
    if named:
        return (Path(named),)
    runtime, config = environment.get("XDG_RUNTIME_DIR"), environment.get("XDG_CONFIG_HOME")
    home = environment.get("HOME")
    bases = [runtime, config or (f"{home}/.config" if home else None)]
    return tuple(Path(base) / "containers" / "auth.json" for base in bases if base)


def bare_host(host: str) -> str:
    """Return ``host[:port]`` without its port, and without the brackets of an IPv6 address."""
    return urlsplit(f"//{host}").hostname or host


def is_loopback(host: str) -> bool:
    """Return whether ``host[:port]`` is this machine: 127.0.0.0/8, ``::1`` or ``localhost``."""
    name = bare_host(host)
    if name == "localhost":
        return True
    if name.isascii() and not name[-1:].isdigit() and ":" not in name:
        return False  # no address, which would take longer to find out
    parts = name.split(".")
    if len(parts) == 4 and all(part in _BYTES for part in parts):
        return parts[0] == "127"
    import ipaddress  # noqa: PLC0415 - few hosts are addresses

    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_inside(host: str) -> bool:
    """Return whether ``host[:port]`` is this machine, or has a link-local or unspecified address.

    At link-local addresses clouds keep the machine's credentials; so they do at some others.
    """
    if not host:
        return False
    if is_loopback(host):
        return True
    import ipaddress  # noqa: PLC0415 - few hosts are asked about

    try:
        address = ipaddress.ip_address(bare_host(host).partition("%")[0])
    except ValueError:
        return bare_host(host).endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified:
        return True
    return str(mapped) in _METADATA
