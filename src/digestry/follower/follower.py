"""The follower: copies what is new of a log, verified, and raises an alarm at a contradiction."""

from __future__ import annotations

import datetime
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from digestry.client.connection import Connection
from digestry.client.registry import Registry
from digestry.client.transparency_log import TransparencyLog
from digestry.errors import ContentError, DigestryError, LogContradiction, RemoteError, StorageError
from digestry.follower.alarms import Alarm, Alarms
from digestry.follower.copied_history import CopiedHistory
from digestry.follower.copied_log import CopiedLog
from digestry.fsio import read_file, storage_errors, write_file
from digestry.model.json_types import prepared
from digestry.model.name_pattern import matches
from digestry.model.timestamps import rfc3339
from digestry.translog.entries import Entry, InvalidEntry, Sealed, parse_leaf
from digestry.translog.tiles import InvalidTile, Tile, bundles_of, check_bundle, decode_bundle, tiles_of
from digestry.verifier.log_view import LogVerifier, LogView
from digestry.verifier.repository_check import opened_entries
from digestry.verifier.seen_logs import TrustedKey

log: Final = logging.getLogger("digestry.follower")

_TOGETHER: Final = 8
"""Bundles that are fetched at a time; each may have 16 MB, and has some 100 kB."""


class Status(msgspec.Struct, frozen=True):
    """When the copy was compared with its original last, and what it has."""

    registry: str
    size: int = 0
    verified_at: datetime.datetime | None = None
    keys: tuple[TrustedKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """The outcome of one look: how many entries are new, and how many were opened; or the alarm's message."""

    size: int
    new: int = 0
    opened: int = 0
    alarm: str = ""


class Follower:
    """Follows the log of a registry into ``directory``. One process at a time may use it."""

    def __init__(
        self,
        connection: Connection,
        host: str,
        directory: Path,
        verifier: LogVerifier,
        alarms: Alarms,
        *,
        patterns: Sequence[str] = ("**",),
        with_sealed: bool = False,
    ) -> None:
        self.host = host
        self.alarms = alarms
        self.copy = CopiedLog(directory)
        self.copy.sweep()
        self.history = CopiedHistory(directory / "history.db", with_sealed=with_sealed)
        self._log = TransparencyLog(connection, host)
        self._connection = connection
        self._verifier = verifier
        self._patterns = tuple(patterns)
        self._opened_to = 0
        self._ended = threading.Event()
        self._status_file = directory / "status.json"
        self.status = self._read_status()
        # What a disk lost, or somebody changed, is copied again.
        self._since = self.copy.size if self._is_whole() else 0

    def _is_whole(self) -> bool:
        whole = self.copy.is_whole() and self.history.count() >= self.copy.size
        if not whole:
            log.warning("the copy is not whole: all of it is verified, and what is missing is copied again")
        return whole

    def recheck(self) -> None:
        """Have the next round verify all of the copy again."""
        self._since = 0

    def round(self) -> Round:
        """Look once. Raises :class:`RemoteError` and :class:`StorageError`; an alarm is in the answer.

        Nothing of a log that contradicts what was seen is copied.
        """
        self.alarms.tell()
        try:
            view = self._verifier.view(self._log)
            new = self._copy(view)
            if new is None:  # it was not copied to its end: the copy is as old as it was
                return Round(self.copy.size)
            opened = self._open(view)
        except ContentError as error:
            evidence = error.evidence if isinstance(error, LogContradiction) else ""
            self.alarms.raise_(Alarm(self.host, error.message, evidence, rfc3339(self._verifier.now())))
            return Round(self.copy.size, alarm=error.message)
        self.alarms.clear()
        self.status = Status(self.host, self.copy.size, view.seen_at, view.keys)
        write_file(self._status_file, msgspec.json.encode(self.status) + b"\n")
        return Round(self.copy.size, new, opened)

    def run(self, interval: float, ended: threading.Event, heard: Callable[[str], None]) -> None:
        """Look every ``interval`` seconds until ``ended``; ``heard`` is called after each look with its
        error, or an empty text."""
        self._ended = ended
        while not ended.is_set():
            problem = ""
            try:
                found = self.round()
                problem = found.alarm
                if found.new or found.opened:
                    log.info("%d entries, %d of them new, %d opened", found.size, found.new, found.opened)
            except RemoteError as error:
                problem = error.message
                log.warning("%s", error.message)
            except StorageError as error:
                problem = error.message
                log.error("%s%s", error.message, f"; {error.hint}" if error.hint else "")
            except DigestryError as error:
                problem = error.message
                log.error("%s", error.message)
            heard(problem)
            ended.wait(interval)

    def close(self) -> None:
        """Close the database."""
        self.history.close()

    # -- copying ------------------------------------------------------------------------------

    def _copy(self, view: LogView) -> int | None:
        """Copy what is new, and return how much that was; None if the process is to end first."""
        if self.copy.size and self.copy.checkpoint.origin == view.checkpoint.origin:
            if view.tiles.root_of(self.copy.size) != self.copy.checkpoint.root:
                raise LogContradiction(
                    f"the log of {self.host} continues what was seen of it, and not the copy in"
                    f" {self.copy.directory}",
                    hint="somebody changed the copy, or what was seen",
                )
        elif self.copy.size:
            raise LogContradiction(
                f"the copy in {self.copy.directory} is of the log {self.copy.checkpoint.origin}, and"
                f" {self.host} has the log {view.checkpoint.origin}",
                hint="follow the new one into another directory",
            )
        since, size = self._since, view.size
        if since == size:
            return 0
        bundles = bundles_of(size, since=since)
        while some := list(itertools.islice(bundles, _TOGETHER)):
            if self._ended.is_set():
                return None  # what was copied is verified again, and used
            self._copy_bundles(view, some)
        for tile in tiles_of(size, since=since):
            if tile.level:
                self.copy.write({tile: b"".join(view.tiles.hashes(tile))})
        new = size - self.copy.size
        self.copy.publish(view.note, view.checkpoint)
        self._since = size
        return new

    def _copy_bundles(self, view: LogView, bundles: Sequence[Tile]) -> None:
        """Store bundles and their tiles of hashes, verified; those that are here are not fetched again."""
        found = {bundle: self._here(view, bundle) for bundle in bundles}
        missing = [bundle for bundle, entries in found.items() if entries is None]
        contents = view.log.fetch(missing) if missing else {}
        new = {}
        for bundle in missing:
            found[bundle] = _entries_of(view, bundle, contents[bundle])
            new[bundle] = contents[bundle]
        self.history.add(
            (index, _in_clear(entry), entry)
            for bundle, entries in found.items()
            for index, entry in enumerate(entries or (), bundle.first)
        )
        for bundle in bundles:
            tile = Tile(0, bundle.index, bundle.width)
            new[tile] = b"".join(view.tiles.hashes(tile))
        self.copy.write(new)

    def _here(self, view: LogView, bundle: Tile) -> list[bytes] | None:
        """Return the entries of a bundle that was copied; None if it is not here, or is not the log's."""
        content = self.copy.read(bundle)
        if content is None:
            return None
        try:
            return _entries_of(view, bundle, content)
        except InvalidTile:
            return None

    # -- openings -----------------------------------------------------------------------------

    def _open(self, view: LogView) -> int:
        """Fetch the openings of sealed leaves that this user may have, and return how many are new."""
        begin = min(self._opened_to, view.size)
        if not self.history.unopened(begin):
            self._opened_to = view.size
            return 0
        count, failed = 0, False
        for name in self._names():
            try:
                logged = opened_entries(view, name, self._log.openings(name, first=begin))
            except RemoteError as error:
                log.warning("the openings of %s: %s", name, error.message)
                failed = True
                continue
            sealed = [(one.opening, one.entry) for one in logged if one.opening.salt]
            self.history.open(sealed)
            count += len(sealed)
        if not failed:
            self._opened_to = view.size
        return count

    def _names(self) -> Iterable[str]:
        registry = Registry(self.host, connection=self._connection)
        try:
            names = list(registry.repositories())
        except RemoteError as error:
            log.warning("the repositories of %s are not known: %s", self.host, error.message)
            return []
        return [name for name in names if any(matches(pattern, name) for pattern in self._patterns)]

    def _read_status(self) -> Status:
        try:
            with storage_errors("read", self._status_file):
                return msgspec.json.decode(read_file(self._status_file), type=prepared(Status))
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return Status(self.host)
            raise
        except msgspec.DecodeError:
            return Status(self.host)  # when it was verified last is not known: the next round says it


def _entries_of(view: LogView, bundle: Tile, content: bytes) -> list[bytes]:
    """Return the entries of a bundle. Raises :class:`InvalidTile` if they are not the log's."""
    entries = decode_bundle(bundle, content)
    check_bundle(bundle, entries, view.tiles.hashes(Tile(0, bundle.index, bundle.width)))
    return entries


def _in_clear(content: bytes) -> Entry | None:
    try:
        found = parse_leaf(content)
    except InvalidEntry:
        return None
    return None if isinstance(found, Sealed) else found
