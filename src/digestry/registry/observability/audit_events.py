"""Audit events: the lines of the audit log, each with who did what, from where, and the outcome."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from digestry.catalog import clock
from digestry.catalog.job_states import COLLECTION, SCRUB
from digestry.catalog.journal import Origin
from digestry.catalog.removals import Removed, Stayed
from digestry.catalog.tag_retention import ACTOR
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.registry.exchange import READS, Exchange
from digestry.registry.observability.audit_log import AuditLog, LogEntry, recorded_path
from digestry.registry.observability.counters import CLIENT_CLOSED_REQUEST, METHODS, OTHER
from digestry.registry.observability.logs import cut

By = Mapping[str, str]

LOCAL: Final = "local:"
"""The prefix of the user in a line that a command wrote; no user of the registry can have it."""

_MOVES: Final = {
    "created": "create-tag",
    "moved": "move-tag",
    "deleted": "delete-tag",
    "allowed": "allow-young",
    "revoked": "revoke-young",
}
_REMOVALS: Final = {
    "tag": "delete-tag",
    "manifest": "delete-manifest",
    "link": "remove-link",
    "blob": "remove-blob",
}


def is_write(exchange: Exchange, status: int) -> bool:
    """Return whether a request that is answered with ``status`` gets an audit line.

    A part of an upload changes nothing that anybody can see, and so has one only if it was refused. A GET or
    HEAD has one if an event was recorded for it.
    """
    method = exchange.scope["method"]
    if not exchange.route.audited or (method in READS and exchange.audit_event is None):
        return False
    if exchange.route.refusals_only:
        return status >= 400
    return method != "PATCH" or (status >= 400 and status != CLIENT_CLOSED_REQUEST)


def action_of(exchange: Exchange) -> str:
    """Return the action of a request, as one of a few words."""
    route, method = exchange.route, exchange.scope["method"]
    return route.audit_event(method) or f"{method.lower() if method in METHODS else OTHER}-{route.metric}"


def of_request(exchange: Exchange, status: int) -> list[LogEntry]:
    """Return the lines of a request that is answered with ``status``: its own, and one for each tag that it
    moved."""
    common: LogEntry = {
        "time": clock.to_rfc3339(clock.now()),
        "request_id": exchange.request_id,
        "user": exchange.principal.identity.name,
        "address": exchange.address,
        "client": cut(exchange.header(b"user-agent") or ""),
        "repository": exchange.repository,
        "status": status,
    }
    own: LogEntry = {
        **common,
        "action": action_of(exchange),
        **_plain(exchange.audit_event or _intent(exchange)),
    }
    if status >= 400:
        own["path"] = cut(exchange.scope["path"])
        own["error"] = cut(exchange.failure)
    moves = [{**common, **_move(event)} for event in exchange.tag_events]
    if own["action"] == "delete-tag" and moves:
        return moves  # that is all there is to it
    return [own, *moves]


def _intent(exchange: Exchange) -> LogEntry:
    """Return the action, repository and target of a refused request, from its path."""
    last = cut(str(exchange.scope["path"]).rpartition("/")[2])
    match exchange.route.metric, exchange.scope["method"]:
        case ("manifest" | "blob", _) if ":" in last:
            return {"digest": last}
        case "manifest", "PUT":
            return {"tags": [last]}
        case "manifest", "DELETE":
            return {"action": "delete-tag", "tag": last}
        case "restore", _:
            return {"tag": last}
        case "upload", _ if last:
            return {"upload": last}
    return {}


def _plain(what: dict[str, object]) -> LogEntry:
    return {name: str(value) if isinstance(value, Digest) else value for name, value in what.items()}


def _move(event: TagEvent) -> LogEntry:
    return {
        "action": _MOVES[event.event],
        "tag": event.tag,
        "from": None if event.from_digest is None else str(event.from_digest),
        "to": None if event.to_digest is None else str(event.to_digest),
        "number": event.number,
        "sequence": event.sequence,
    }


# -- events without a request ------------------------------------------------------------------------


def of_itself(client: str, action: str, **what: object) -> LogEntry:
    """Return the line of an action of the registry itself, by its part ``client``."""
    return _line({"user": ACTOR, "client": client}, action, **what)


def of_mirror(
    origin: Origin, repository: str, *, event: TagEvent | None = None, action: str = "", **what: object
) -> list[LogEntry]:
    """Return the lines of a mirror's fetch (``action``, ``digest``, ``size``) and its move of a tag."""
    by = {"user": origin.actor, "client": "mirror"}
    lines = [_line(by, action, repository=repository, **what)] if action else []
    return lines if event is None else [*lines, _line(by, repository=repository) | _move(event)]


def _line(by: By, action: str = "", **what: object) -> LogEntry:
    entry = {"time": clock.to_rfc3339(clock.now()), **by, "action": action, **_plain(what)}
    return {name: value for name, value in entry.items() if value not in ("", 0, None)}


def operator(command: str) -> By:
    """Return the user who runs a command: their name on this machine and, with sudo, the original one."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    return {"user": LOCAL + name, "sudo_user": cut(os.environ.get("SUDO_USER", "")), "client": command}


def note_command(root: Path, command: str, action: str, **what: object) -> None:
    """Write the line of a command that was given only the root."""
    with _as_owner(root):
        audit = AuditLog(recorded_path(root), root)
        try:
            if audit.enabled:
                audit.write([_line(operator(command), action, **what)])
        finally:
            audit.close()


@contextlib.contextmanager
def _as_owner(root: Path) -> Iterator[None]:
    """Act as the root's owner, if root calls: the registry must be able to write to a new file, and no link
    that its user put there may redirect root to another one."""
    owner, us = root.stat(), (os.geteuid(), os.getegid())
    if us[0] != 0 or owner.st_uid == 0:
        yield
        return
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(us[0])
        os.setegid(us[1])


class RemovalEvents:
    """Writes a line for each tag, manifest, link or blob that garbage collection removes. ``by`` is the user
    who runs it."""

    def __init__(self, audit: AuditLog, by: By | None = None) -> None:
        self._audit = audit
        self._by = by or {"user": ACTOR, "client": COLLECTION}

    def __call__(self, item: Removed | Stayed) -> None:
        if isinstance(item, Stayed) or not self._audit.enabled:
            return
        what = {"tag" if item.kind == "tag" else "digest": item.name}
        entry = _line(
            self._by,
            _REMOVALS[item.kind],
            repository=item.repository,
            **what,
            size=item.size,
            reason=item.why,
        )
        self._audit.write([entry])


class DamageEvents:
    """Writes a line for content that was found damaged, or whole again. ``by`` as in
    :class:`RemovalEvents`."""

    def __init__(self, audit: AuditLog, by: By | None = None, *, client: str = SCRUB) -> None:
        self._audit = audit
        self._by = by or {"user": ACTOR, "client": client}

    def __call__(self, action: str, digest: Digest, reason: str) -> None:
        if self._audit.enabled:
            self._audit.write([_line(self._by, action, digest=digest, reason=reason)])
