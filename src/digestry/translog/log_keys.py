"""The documents about a registry's log that the registry and its clients share (docs/http-api.md)."""

from __future__ import annotations

import msgspec


class LogKey(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A key of a log as a *vkey*, and since when, and until when, it signs (RFC 3339)."""

    key: str
    created_at: str
    retired_at: str | None = None


class LogKeys(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """``GET /v2/_digestry/log/keys``: the log's name, its keys, the newest first, and its witnesses' keys.

    ``earlier_origins`` are the names under which the same entries were signed before. Of the witnesses
    ``quorum`` cosign each checkpoint that is served. ``witness`` is the key with which the registry cosigns
    others' logs.
    """

    origin: str
    keys: tuple[LogKey, ...]
    earlier_origins: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    quorum: int = 0
    witness: str = ""
