"""The format of the server log: lines of text or JSON, each with its request's ID.

Granian's own lines go through the same formatters. Untrusted text (paths, user names, clients) cannot begin a
line, nor reach a terminal as anything but text.
"""

from __future__ import annotations

import contextvars
import logging
import os
import sys
from typing import Final

import msgspec

from digestry.catalog import clock
from digestry.model.text import printable, printable_json
from digestry.registry.error_responses import BrokenOff
from digestry.registry.exchange import Exchange

CURRENT: Final[contextvars.ContextVar[Exchange | None]] = contextvars.ContextVar("exchange", default=None)
"""The request that is being answered, in its task and in the threads that work for it."""

FIELDS: Final = "fields"
"""The attribute of a log record with further fields of its line, by name."""

REQUESTS: Final = logging.getLogger("digestry.requests")

_LONGEST: Final = 2048


def configuration(form: str) -> dict[str, object]:
    """Return the ``logging.config`` dictionary of every process. ``form`` is ``text`` or ``json``.

    Everything goes to standard error: standard output has the one line with the URL.
    """
    formatter = "JsonLines" if form == "json" else "TextLines"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"on purpose": {"()": f"{__name__}.NotOnPurpose"}},
        "formatters": {"line": {"()": f"{__name__}.{formatter}"}},
        "handlers": {"stderr": {"()": f"{__name__}.Lines", "formatter": "line"}},
        "loggers": {
            "_granian": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
            "_granian.utils": {"filters": ["on purpose"]},
            "granian.access": {"handlers": [], "level": "WARNING", "propagate": False},
            "digestry": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        },
    }


class NotOnPurpose(logging.Filter):
    """Drops Granian's traceback of a connection that was closed on purpose: another line has the reason."""

    def filter(self, record: logging.LogRecord) -> bool:
        return f"\n{BrokenOff.__name__}: " not in record.getMessage()


class Lines(logging.Handler):
    """Writes each record to standard error at once, so that lines of several processes do not mix."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(sys.stderr.fileno(), (self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # there is no place to report it
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)


class TextLines(logging.Formatter):
    """``time LEVEL logger: message [request]``; a traceback follows below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message)
        line = super().formatMessage(record)
        exchange = CURRENT.get()
        return line if exchange is None else f"{line} [{exchange.request_id}]"


class JsonLines(logging.Formatter):
    """One JSON object for each record, with a traceback as a field."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": clock.to_rfc3339(int(record.created * clock.SECOND)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        exchange = CURRENT.get()
        if exchange is not None:
            entry.update(about(exchange))
        entry.update(getattr(record, FIELDS, {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        entry["process"] = record.process
        return encode(entry)


def about(exchange: Exchange) -> dict[str, object]:
    """Return the fields about its request that every line has."""
    entry: dict[str, object] = {
        "request_id": exchange.request_id,
        "user": exchange.principal.identity.name,
        "address": exchange.address,
        "method": exchange.scope["method"],
        "path": cut(exchange.scope["path"]),
        "route": exchange.route.metric,
    }
    if exchange.repository:
        entry["repository"] = exchange.repository
    digest = exchange.digest
    if digest:
        entry["digest"] = digest
    return entry


def note_request(exchange: Exchange, status: int, seconds: float) -> None:
    """Write the line of a request that has ended."""
    client = cut(exchange.header(b"user-agent") or "")
    fields: dict[str, object] = {
        "status": status,
        "seconds": round(seconds, 6),
        "received": exchange.received,
        "sent": exchange.sent,
        "client": client,
    }
    failure = cut(exchange.failure)
    if failure:
        fields["error"] = failure
    level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
    digest = exchange.digest
    REQUESTS.log(
        level,
        "%s %s %s %s %d, %d bytes in, %d out, %.1f ms%s%s",
        exchange.address or "-",
        exchange.principal.identity.name,
        exchange.scope["method"],
        cut(exchange.scope["path"]),
        status,
        exchange.received,
        exchange.sent,
        seconds * 1000,
        f", {digest}" if digest and digest not in exchange.scope["path"] else "",
        f": {failure}" if failure else "",
        extra={FIELDS: fields},
    )


def cut(text: str) -> str:
    """Return as much of a client's text as a line may have."""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def encode(entry: dict[str, object]) -> str:
    """Return one line of JSON without control characters, and without its end."""
    try:
        line = msgspec.json.encode(entry).decode()
    except (TypeError, ValueError, UnicodeEncodeError):
        line = msgspec.json.encode({name: _plain(value) for name, value in entry.items()}).decode()
    return printable_json(line)


def _plain(value: object) -> object:
    if isinstance(value, bool | int | float | None):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()
