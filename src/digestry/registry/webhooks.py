"""The ``[[webhook]]`` sections, and the messages that webhooks receive (docs/tags.md).

A message is a CloudEvent 1.0 in its structured JSON form, signed as Standard Webhooks has it
(standardwebhooks.com): HMAC-SHA256 over ``id.timestamp.body``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from digestry.catalog import clock
from digestry.catalog.delivery_queue import Event, Subscription
from digestry.model.descriptor import encode_hook
from digestry.model.fleet_events import FLEET_EVENTS, UPSTREAM_MOVED, FleetEvent, FleetEventKind
from digestry.model.history import EventKind
from digestry.registry import toml
from digestry.registry.immutability_config import patterns
from digestry.registry.toml import Key, Where

CONTENT_TYPE: Final = "application/cloudevents+json"
_EVENTS: Final[tuple[EventKind, ...]] = ("created", "moved", "deleted")
_ACTS: Final[tuple[EventKind, ...]] = ("allowed", "revoked")
"""Sent to those alone who ask for them."""
_ENCODED_SECRET: Final = "whsec_"  # noqa: S105 - the prefix that Standard Webhooks gives to one
_SHORTEST_SECRET: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def _name(value: object, where: Where) -> str:
    text = toml.text(value, where)
    if not _NAME.fullmatch(text):
        raise ValueError("up to 64 letters, digits, . _ and - are required")
    return text


def _url(value: object, where: Where) -> str:
    text = toml.text(value, where)
    parts = toml.http_address(text)
    if parts is None or not text.isascii() or " " in text or parts.fragment or "@" in parts.netloc:
        raise ValueError("a URL is required, such as https://hooks.example.com/tags, without a user in it")
    return text


def _events(value: object, where: Where) -> frozenset[EventKind | FleetEventKind]:
    wanted = toml.texts(value, where)
    known: tuple[EventKind | FleetEventKind, ...] = (*_EVENTS, *_ACTS, *FLEET_EVENTS)
    found = frozenset(kind for kind in known if kind in wanted)
    if len(found) != len(set(wanted)):
        raise ValueError(f"some of {', '.join(known)} are required")
    return found


KEYS: Final = (
    Key("name", _name),
    Key("url", _url),
    Key("secret", toml.text, None),
    Key("secret-file", toml.file, None),
    Key("repository", patterns, ("**",)),
    Key("events", _events, frozenset(_EVENTS)),
    Key("source", toml.text, ""),
    Key("ca", toml.file, None),
    Key("timeout-seconds", toml.seconds(1, 60), 10.0),
    Key("give-up-days", toml.whole(1, 30), 3),
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """One receiver. ``secret`` is the signing key; ``source`` precedes the events' own source."""

    name: str
    url: str
    secret: bytes = field(repr=False)
    repositories: tuple[str, ...] = ("**",)
    events: frozenset[EventKind | FleetEventKind] = frozenset(_EVENTS)
    source: str = ""
    ca: Path | None = None
    timeout: float = 10.0
    patience: float = 3 * 86400.0

    @property
    def subscription(self) -> Subscription:
        """Return which events the catalog queues for this webhook."""
        return Subscription(self.name, self.repositories, self.events)

    def message(self, event: Event) -> bytes:
        """Return the message's body for ``event``: the same bytes each time."""
        if isinstance(event, FleetEvent):
            room = "observe" if event.event == UPSTREAM_MOVED else "fleet"
            where, subject = ("_digestry/observed" if room == "observe" else "_digestry/fleet"), event.subject
        else:
            room, where, subject = "tag", event.repository, event.tag
        return msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": _id(event),
                "source": f"{self.source}/v2/{where}",
                "type": f"digestry.{room}.{event.event}.v1",
                "subject": subject,
                "time": clock.to_rfc3339(clock.from_datetime(event.at)),
                "datacontenttype": "application/json",
                "data": event.data if isinstance(event, FleetEvent) else event,
            },
            enc_hook=encode_hook,
        )

    def headers(self, event: Event, body: bytes, timestamp: int) -> dict[str, str]:
        """Return the headers for ``body``, signed at ``timestamp`` (seconds since 1970)."""
        signed = f"{_id(event)}.{timestamp}.".encode() + body
        signature = base64.b64encode(hmac.new(self.secret, signed, hashlib.sha256).digest()).decode()
        return {
            "Content-Type": CONTENT_TYPE,
            "Webhook-Id": _id(event),
            "Webhook-Timestamp": str(timestamp),
            "Webhook-Signature": f"v1,{signature}",
        }


def _id(event: Event) -> str:
    """Return the message's ID, by which a receiver recognises a repeated one."""
    return event.id if isinstance(event, FleetEvent) else str(event.sequence)


def parse(document: Mapping[str, object], where: Where) -> tuple[Webhook, ...]:
    """Read the sections of a document. Raises :class:`InvalidConfiguration`."""
    found: dict[str, Webhook] = {}
    for table, here in toml.tables(document, "webhook", where):
        values = toml.read(table, KEYS, here)
        if values["name"] in found:
            raise here.wrong(f"there is a webhook {values['name']} already")
        found[values["name"]] = Webhook(
            name=values["name"],
            url=values["url"],
            secret=_secret(values["secret"], values["secret_file"], here),
            repositories=values["repository"],
            events=values["events"],
            source=values["source"].rstrip("/"),
            ca=_ca(values["ca"], values["url"], here),
            timeout=values["timeout_seconds"],
            patience=values["give_up_days"] * 86400.0,
        )
    return tuple(found.values())


def _ca(file: Path | None, url: str, where: Where) -> Path | None:
    if file is None:
        return None
    if urlsplit(url).scheme != "https":
        raise where.wrong("ca is for a url that begins with https:")
    try:
        trusting(file)
    except (OSError, ssl.SSLError) as error:
        reason = "it has no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise where.wrong(f"ca: cannot use {file}: {reason}") from error
    return file


def trusting(ca: Path | None) -> ssl.SSLContext:
    """Return the TLS context for a receiver. Raises OSError, and so :class:`ssl.SSLError`."""
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(cafile=ca)
    return context


def _secret(text: str | None, file: Path | None, where: Where) -> bytes:
    if (text is None) == (file is None):
        raise where.wrong("either secret or secret-file is required")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise where.wrong(f"secret-file: cannot read {file}: {reason}") from error
    assert text is not None  # noqa: S101 - one of the two was given
    try:
        encoded = text.startswith(_ENCODED_SECRET)
        key = (
            base64.b64decode(text.removeprefix(_ENCODED_SECRET), validate=True) if encoded else text.encode()
        )
    except binascii.Error as error:
        raise where.wrong(f"the secret begins with {_ENCODED_SECRET}, but the rest is not base64") from error
    if len(key) < _SHORTEST_SECRET:
        raise where.wrong(
            f"the secret is too short: {_SHORTEST_SECRET} bytes or more are required",
            hint="make one with: openssl rand -hex 32",
        )
    return key
