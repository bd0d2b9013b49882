"""Alarms of a follower: kept, and told once to whoever is to hear them."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec

from digestry.client.transport import Call, Transport
from digestry.errors import DigestryError, RemoteError, StorageError
from digestry.fsio import read_file, remove_file, storage_errors, write_file
from digestry.model.json_types import prepared

log: Final = logging.getLogger("digestry.follower")

TYPE: Final = "digestry.log.alarm"
_PATIENCE: Final = 60.0
_LARGEST: Final = 1 << 20


class Alarm(msgspec.Struct, frozen=True):
    """A contradiction. ``at`` is RFC 3339; ``told`` is whether everybody who is to hear it has."""

    registry: str
    message: str
    evidence: str
    at: str
    told: bool = False


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is to hear an alarm: a URL that it is posted to, and a command line that is run."""

    url: str | None = None
    command: str | None = None


class Alarms:
    """The alarm in force, in a file. It is told until it was heard, also after a restart."""

    def __init__(self, path: Path, listeners: Listeners, transport: Transport) -> None:
        self._path = path
        self._listeners = listeners
        self._transport = transport
        self.current = self._read()

    def raise_(self, alarm: Alarm) -> None:
        """Keep an alarm, and tell it unless it is the one that was told. Raises :class:`StorageError`."""
        known = self.current
        if known is None or (known.message, known.evidence) != (alarm.message, alarm.evidence):
            self.current = known = alarm
            self._write(alarm)
        log.error("ALARM: %s%s", known.message, f"; evidence: {known.evidence}" if known.evidence else "")
        self.tell()

    def tell(self) -> None:
        """Tell the alarm in force, if somebody has not heard it yet."""
        alarm = self.current
        if alarm is None or alarm.told:
            return
        try:
            self._post(alarm)
            self._run(alarm)
        except (DigestryError, OSError, subprocess.SubprocessError) as error:
            log.error("the alarm could not be told, and will be told again: %s", error)
            return
        self.current = msgspec.structs.replace(alarm, told=True)
        self._write(self.current)

    def clear(self) -> None:
        """Forget the alarm: the log continues what was seen."""
        if self.current is not None and self.current.told:
            log.warning("the log of %s continues what was seen before again", self.current.registry)
            self.current = None
            remove_file(self._path)

    def _post(self, alarm: Alarm) -> None:
        if self._listeners.url is None:
            return
        event = {
            "specversion": "1.0",
            "id": str(uuid4()),
            "source": alarm.registry,
            "type": TYPE,
            "time": alarm.at,
            "datacontenttype": "application/json",
            "data": {"registry": alarm.registry, "message": alarm.message, "evidence": alarm.evidence},
        }
        headers = {"Content-Type": "application/cloudevents+json"}
        call = Call("POST", self._listeners.url, headers, msgspec.json.encode(event), repeatable=False)
        with self._transport.send(call) as response:
            if not 200 <= response.status < 300:
                raise RemoteError(f"{response.host} answers {response.status}")

    def _run(self, alarm: Alarm) -> None:
        if self._listeners.command is None:
            return
        environment = {
            **os.environ,
            "DIGESTRY_REGISTRY": alarm.registry,
            "DIGESTRY_ALARM": alarm.message,
            "DIGESTRY_EVIDENCE": alarm.evidence,
        }
        subprocess.run(
            shlex.split(self._listeners.command),
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=True,
        )

    def _read(self) -> Alarm | None:
        try:
            with storage_errors("read", self._path):
                return msgspec.json.decode(read_file(self._path, _LARGEST), type=prepared(Alarm))
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        except msgspec.DecodeError as error:
            raise StorageError(
                f"{self._path} is damaged: {error}", hint="look at it, and remove it"
            ) from error

    def _write(self, alarm: Alarm) -> None:
        write_file(self._path, msgspec.json.encode(alarm) + b"\n")
