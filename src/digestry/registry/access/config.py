"""The ``[auth]``, ``[[rule]]`` and ``[[oidc]]`` sections of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from digestry.registry import toml
from digestry.registry.access import issuers as outside
from digestry.registry.access import rules
from digestry.registry.access.issuers import Issuer
from digestry.registry.access.rules import EVERYTHING, USERS_ONLY, Rule
from digestry.registry.toml import Key, Where

KEYS: Final = (
    Key("htpasswd", toml.file, None),
    Key("challenge", toml.one_of("bearer", "basic"), "bearer"),
    Key("service", toml.text, "digestry"),
    Key("realm", toml.text, None),
    Key("token-seconds", toml.seconds(30, 3600), 300.0),
    Key("refresh-token-seconds", toml.seconds(3600, 366 * 86400), 90 * 86400.0),
)


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """The configured access control. With ``enabled`` False every client may do everything.

    ``realm`` is the token endpoint's URL as clients see it; None: below the address of the request.
    """

    enabled: bool = False
    htpasswd: Path | None = None
    challenge: str = "bearer"
    service: str = "digestry"
    realm: str | None = None
    token_seconds: float = 300.0
    refresh_token_seconds: float = 90 * 86400.0
    rules: tuple[Rule, ...] = (EVERYTHING,)
    issuers: tuple[Issuer, ...] = ()


def parse(document: Mapping[str, object], where: Where) -> AccessConfig:
    """Read the three sections of a document. Raises :class:`InvalidConfiguration`."""
    if not document.keys() & {"auth", "rule", "oidc"}:
        return AccessConfig()
    inside = Where(where.file, "auth")
    values = toml.read(document.get("auth", {}), KEYS, inside)
    realm = values["realm"]
    if '"' in values["service"] or (realm is not None and '"' in realm):
        raise inside.wrong('service and realm stand between quotes in a header: they may have no "')
    if realm is not None and not realm.startswith(("http://", "https://")):
        raise inside.wrong("realm: a URL is required, such as https://registry.example.com/token")
    written = tuple(rules.parse(table, here) for table, here in toml.tables(document, "rule", where))
    issuers = tuple(outside.parse(table, here) for table, here in toml.tables(document, "oidc", where))
    names = [issuer.issuer for issuer in issuers]
    if len(set(names)) < len(names) or values["service"] in names:
        raise where.wrong("each [[oidc]] needs an issuer of its own")
    return AccessConfig(enabled=True, rules=written or (USERS_ONLY,), issuers=issuers, **values)
