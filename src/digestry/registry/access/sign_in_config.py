"""The ``[oidc.sign-in]`` section: an issuer at which people sign in to the pages (docs/web.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from digestry.registry import toml
from digestry.registry.toml import Key, Where

KEYS: Final = (
    Key("client-id", toml.text),
    Key("client-secret-file", toml.file, None),
    Key("title", toml.text, None),
    Key("scopes", toml.texts, ("openid", "profile", "email")),
    Key("redirect", toml.text, None),
    Key("authorization", toml.text, None),
    Key("token", toml.text, None),
)


@dataclass(frozen=True, slots=True)
class SignInConfig:
    """A registered client of an issuer. ``redirect``, ``authorization`` and ``token`` are URLs; None is for
    the address of the request, and for what the issuer's metadata says."""

    client_id: str
    client_secret_file: Path | None
    title: str
    scopes: tuple[str, ...]
    redirect: str | None
    authorization: str | None
    token: str | None


def parse(table: object, issuer: str, where: Where) -> SignInConfig:
    """Read one section. Raises :class:`InvalidConfiguration`."""
    values = toml.read(table, KEYS, where)
    values["title"] = values["title"] or urlsplit(issuer).hostname or issuer
    if "openid" not in values["scopes"]:
        raise where.wrong("scopes: openid has to be one of them")
    if (values["authorization"] is None) != (values["token"] is None):
        raise where.wrong("authorization and token: write both, or none and the issuer is asked for them")
    for key in ("redirect", "authorization", "token"):
        try:
            if values[key] is not None:
                check_endpoint(values[key])
        except ValueError as error:
            raise where.wrong(f"{key}: {error}") from error
    return SignInConfig(**values)


def check_endpoint(url: str) -> None:
    """Raise ValueError for a URL that others can listen to: all but ``https``, and this machine."""
    parts = urlsplit(url)
    local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if parts.hostname is None or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ValueError(f"{url} is not a URL with https://")
