"""The agent's log: lines of text or JSON on standard error."""

from __future__ import annotations

import datetime
import logging
import sys
from typing import Literal

import msgspec

from digestry.model.text import printable
from digestry.model.timestamps import rfc3339


def start_log(form: Literal["text", "json"]) -> None:
    """Write the messages of this program to standard error from now on, one a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else _TextLines())
    logger = logging.getLogger("digestry")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _time(record: logging.LogRecord) -> str:
    return rfc3339(datetime.datetime.fromtimestamp(record.created, datetime.UTC))


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname} {printable(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()
