"""The ``[[oidc]]`` sections: trusted outside issuers of tokens (OpenID Connect).

An issuer is trusted for one audience, with keys from a file or from its URL, and only for what the
configuration's patterns turn into an identity. A token that no pattern matches is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from digestry.registry import toml
from digestry.registry.access import sign_in_config
from digestry.registry.access.identity import check_user
from digestry.registry.access.sign_in_config import SignInConfig
from digestry.registry.toml import Key, Where

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
KEYS: Final = (
    Key("issuer", toml.text),
    Key("audience", toml.text),
    Key("jwks", toml.text),
    Key("algorithms", toml.texts, ("RS256", "ES256")),
    Key("jwks-seconds", toml.seconds(10, 7 * 86400), 3600.0),
    Key("leeway-seconds", toml.seconds(0, 300), 30.0),
    Key("identity", lambda value, _: value),
    Key("sign-in", lambda value, _: value, None),
)
IDENTITY_KEYS: Final = (
    Key("claim", toml.text, "sub"),
    Key("pattern", toml.text),
    Key("name", toml.text),
)


@dataclass(frozen=True, slots=True)
class IdentityMapping:
    """Maps tokens whose ``claim`` matches ``pattern`` (``*`` matches anything) to the user ``name``."""

    claim: str
    pattern: str
    name: str


@dataclass(frozen=True, slots=True)
class Issuer:
    """A trusted issuer. ``jwks`` is the path or the URL of its keys; with ``sign_in``, people sign in to the
    pages there."""

    issuer: str
    audience: str
    jwks: str | Path
    algorithms: tuple[str, ...]
    jwks_seconds: float
    leeway_seconds: float
    identities: tuple[IdentityMapping, ...]
    sign_in: SignInConfig | None = None


def parse(table: object, where: Where) -> Issuer:
    """Read one ``[[oidc]]`` section. Raises :class:`InvalidConfiguration`."""
    values = toml.read(table, KEYS, where)
    for algorithm in values["algorithms"]:
        if algorithm not in ALGORITHMS:
            raise where.wrong(
                f"algorithm {algorithm!r} is not taken", hint=f"choose from {', '.join(ALGORITHMS)}"
            )
    jwks: str | Path = values["jwks"]
    try:
        parts = urlsplit(str(jwks))
        good = parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise where.wrong("jwks: a URL, or the path of a file, is required")
    if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
        raise where.wrong("jwks: keys that come over plain HTTP can be anybody's; write https://")
    if parts.scheme not in {"http", "https"}:
        jwks = where.file.parent / str(jwks)
    tables = values.pop("identity")
    if not isinstance(tables, list) or not tables:
        raise where.wrong("identity: write one [[oidc.identity]] or more, with pattern and name")
    found = []
    for number, inner in enumerate(tables, 1):
        here = Where(where.file, f"{where.section} identity {number}")
        mapping = IdentityMapping(**toml.read(inner, IDENTITY_KEYS, here))
        try:
            check_user(mapping.name)
        except ValueError as error:
            raise here.wrong(str(error)) from error
        found.append(mapping)
    table = values.pop("sign_in")
    sign_in = None
    if table is not None:
        here = Where(where.file, f"{where.section} sign-in")
        sign_in = sign_in_config.parse(table, values["issuer"], here)
    return Issuer(**{**values, "jwks": jwks}, identities=tuple(found), sign_in=sign_in)
